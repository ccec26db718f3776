//! The few Matrix calls a load needs, on one connection.

use bytes::Bytes;
use futures_util::future::try_join_all;
use hmac::{Hmac, KeyInit, Mac};
use hyper::Method;
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::error::{Error, Result};
use crate::http::Connection;
use crate::target::Target;

/// The password of every account the bench makes. The servers it makes them on are thrown away.
const PASSWORD: &str = "bench-only-Passw0rd";

/// A registered user with a token that serves every request.
#[derive(Clone, Debug, Deserialize)]
pub struct Account {
    /// The full user ID.
    pub user_id: String,
    /// The device that is signed in.
    pub device_id: String,
    /// The access token.
    #[serde(rename = "access_token")]
    pub token: String,
}

/// Percent-encodes an identifier for use as one path segment or query value.
#[must_use]
pub fn encode(part: &str) -> String {
    let mut out = String::with_capacity(part.len() + 8);
    for byte in part.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

/// Calls an endpoint and parses its answer.
///
/// # Errors
/// [`Error::Refused`] for any status but 2xx; transport errors as they are.
pub async fn call(
    connection: &mut Connection,
    method: Method,
    path: &str,
    token: Option<&str>,
    body: Option<Value>,
) -> Result<Value> {
    let body = body.map_or_else(Bytes::new, |body| Bytes::from(body.to_string()));
    let answer = connection
        .request(method.clone(), path, token, body)
        .await?;
    Ok(serde_json::from_slice(&answer.accepted(&method, path)?)?)
}

fn text(answer: &Value, field: &'static str, of: &str) -> Result<String> {
    answer
        .get(field)
        .and_then(Value::as_str)
        .map(str::to_owned)
        .ok_or_else(|| Error::Missing(of.to_owned(), field))
}

/// Registers `name`: with the shared secret where one is given (`/_synapse/admin/v1/register`), else
/// through the [dummy stage](https://spec.matrix.org/v1.19/client-server-api/#dummy-auth).
///
/// # Errors
/// [`Error::Refused`] when the server does not register it.
pub async fn register(
    connection: &mut Connection,
    name: &str,
    secret: Option<&str>,
) -> Result<Account> {
    let Some(secret) = secret else {
        let path = "/_matrix/client/v3/register";
        let body = json!({
            "username": name, "password": PASSWORD, "auth": {"type": "m.login.dummy"},
            "initial_device_display_name": "bench",
        });
        return Ok(serde_json::from_value(
            call(connection, Method::POST, path, None, Some(body)).await?,
        )?);
    };
    let path = "/_synapse/admin/v1/register";
    let nonce = text(
        &call(connection, Method::GET, path, None, None).await?,
        "nonce",
        path,
    )?;
    let mut mac = Hmac::<sha1::Sha1>::new_from_slice(secret.as_bytes())
        .map_err(|_| Error::Program("the shared secret can't be a key".to_owned()))?;
    mac.update(format!("{nonce}\0{name}\0{PASSWORD}\0notadmin").as_bytes());
    let mac: String = mac
        .finalize()
        .into_bytes()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let body =
        json!({"nonce": nonce, "username": name, "password": PASSWORD, "admin": false, "mac": mac});
    Ok(serde_json::from_value(
        call(connection, Method::POST, path, None, Some(body)).await?,
    )?)
}

/// Signs an account of the bench's in once more, with a new device.
///
/// # Errors
/// [`Error::Refused`] when the server does not let it in.
pub async fn login(connection: &mut Connection, user_id: &str) -> Result<Account> {
    let path = "/_matrix/client/v3/login";
    let body = json!({
        "type": "m.login.password", "identifier": {"type": "m.id.user", "user": user_id},
        "password": PASSWORD, "initial_device_display_name": "bench",
    });
    Ok(serde_json::from_value(
        call(connection, Method::POST, path, None, Some(body)).await?,
    )?)
}

/// Posts a body that was made beforehand and gives the answer's, which only the caller knows how to
/// read cheaply.
///
/// # Errors
/// [`Error::Refused`] for any status but 2xx; transport errors as they are.
pub async fn post(
    connection: &mut Connection,
    path: &str,
    token: &str,
    body: Bytes,
) -> Result<Bytes> {
    let answer = connection
        .request(Method::POST, path, Some(token), body)
        .await?;
    answer.accepted(&Method::POST, path)
}

/// Creates a public room and gives its ID.
///
/// # Errors
/// [`Error::Refused`] when the server does not create it.
pub async fn create_room(
    connection: &mut Connection,
    creator: &Account,
    name: &str,
) -> Result<String> {
    let path = "/_matrix/client/v3/createRoom";
    let body = json!({"preset": "public_chat", "name": name});
    text(
        &call(
            connection,
            Method::POST,
            path,
            Some(&creator.token),
            Some(body),
        )
        .await?,
        "room_id",
        path,
    )
}

/// Joins `account` to `room`.
///
/// # Errors
/// [`Error::Refused`] when the server does not let it in.
pub async fn join(connection: &mut Connection, account: &Account, room: &str) -> Result<()> {
    let path = format!("/_matrix/client/v3/rooms/{}/join", encode(room));
    call(
        connection,
        Method::POST,
        &path,
        Some(&account.token),
        Some(json!({})),
    )
    .await?;
    Ok(())
}

/// Joins `account` to a room that another server is in.
///
/// # Errors
/// [`Error::Refused`] when the server can't.
pub async fn join_through(
    connection: &mut Connection,
    account: &Account,
    room: &str,
    server: &str,
) -> Result<()> {
    let (room, server) = (encode(room), encode(server));
    // One name for what servers of before and after version 1.12 of the specification look for.
    let path = format!("/_matrix/client/v3/join/{room}?server_name={server}&via={server}");
    let token = Some(account.token.as_str());
    call(connection, Method::POST, &path, token, Some(json!({})))
        .await
        .map(drop)
}

/// How many members are in the room, as `account` is told.
///
/// # Errors
/// [`Error::Refused`] when the server doesn't say.
pub async fn members(connection: &mut Connection, account: &Account, room: &str) -> Result<usize> {
    let path = format!("/_matrix/client/v3/rooms/{}/joined_members", encode(room));
    let answer = call(connection, Method::GET, &path, Some(&account.token), None).await?;
    let joined = answer.get("joined").and_then(Value::as_object);
    Ok(joined.map_or(0, serde_json::Map::len))
}

/// Whether the server has the event and shows it.
///
/// # Errors
/// When there is no answer.
pub async fn has_event(
    connection: &mut Connection,
    account: &Account,
    room: &str,
    event: &str,
) -> Result<bool> {
    let (room, event) = (encode(room), encode(event));
    let path = format!("/_matrix/client/v3/rooms/{room}/event/{event}");
    let token = Some(account.token.as_str());
    let answer = connection.request(Method::GET, &path, token, Bytes::new());
    Ok(answer.await?.status == 200)
}

/// Sends a text message; returns once the server has acknowledged it.
///
/// # Errors
/// [`Error::Refused`] when the server does not take it.
pub async fn send(
    connection: &mut Connection,
    token: &str,
    room: &str,
    transaction: &str,
    body: &str,
) -> Result<()> {
    let path = format!("/_matrix/client/v3/rooms/{room}/send/m.room.message/{transaction}");
    let content = Bytes::from(format!(r#"{{"msgtype":"m.text","body":"{body}"}}"#));
    let answer = connection
        .request(Method::PUT, &path, Some(token), content)
        .await?;
    answer.accepted(&Method::PUT, &path).map(drop)
}

/// Stores `filter` for the account and gives its ID.
///
/// # Errors
/// [`Error::Refused`] when the server does not take it.
pub async fn upload_filter(
    connection: &mut Connection,
    account: &Account,
    filter: Value,
) -> Result<String> {
    let path = format!(
        "/_matrix/client/v3/user/{}/filter",
        encode(&account.user_id)
    );
    text(
        &call(
            connection,
            Method::POST,
            &path,
            Some(&account.token),
            Some(filter),
        )
        .await?,
        "filter_id",
        &path,
    )
}

#[derive(Deserialize)]
struct NextBatch {
    next_batch: String,
}

/// One `/sync`: the token to go on from and the body, which only the caller knows how to read cheaply.
///
/// # Errors
/// [`Error::Refused`] when the server does not answer it.
pub async fn sync(
    connection: &mut Connection,
    account: &Account,
    since: Option<&str>,
    filter: Option<&str>,
    timeout_ms: u64,
) -> Result<(String, Bytes)> {
    let mut path = format!("/_matrix/client/v3/sync?timeout={timeout_ms}&set_presence=offline");
    for (key, value) in [("since", since), ("filter", filter)] {
        if let Some(value) = value {
            path.push_str(&format!("&{key}={}", encode(value)));
        }
    }
    let answer = connection
        .request(Method::GET, &path, Some(&account.token), Bytes::new())
        .await?;
    let body = answer.accepted(&Method::GET, &path)?;
    let next: NextBatch = serde_json::from_slice(&body)?;
    Ok((next.next_batch, body))
}

/// Does `work` for every item over `width` connections, results in the items' order. For setting
/// up, where only the end counts.
///
/// # Errors
/// The first error of any item.
pub async fn each<T: Send, R: Send>(
    target: &Target,
    width: usize,
    items: Vec<T>,
    work: impl AsyncFn(&mut Connection, T) -> Result<R>,
) -> Result<Vec<R>> {
    let count = items.len();
    let queue = Mutex::new(items.into_iter().enumerate());
    let lanes = (0..width.min(count)).map(|_| async {
        let mut connection = Connection::new(target);
        let mut done = Vec::new();
        loop {
            let Some((index, item)) = queue.lock().next() else {
                return Ok::<_, Error>(done);
            };
            done.push((index, work(&mut connection, item).await?));
        }
    });
    let mut done: Vec<_> = try_join_all(lanes).await?.into_iter().flatten().collect();
    done.sort_by_key(|(index, _)| *index);
    Ok(done.into_iter().map(|(_, result)| result).collect())
}
