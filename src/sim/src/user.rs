//! A user at random: asks, gives up waiting, asks again until there is an answer.

use std::{cell::RefCell, rc::Rc, time::Duration};

use axum::body::Body;
use comity_testkit::{encode, spec};
use http::{Method, Request};
use http_body_util::BodyExt;
use rand::{RngExt, seq::IndexedRandom};
use serde_json::{Value, json};
use tower::ServiceExt;

use crate::{
    fold::{DATA, text},
    slide,
    story::digest,
    world::{Ask, Fate, Kind, World},
};

pub(crate) const V3: &str = "/_matrix/client/v3";

/// The world as all in one life see it; borrowed only between awaits.
pub(crate) type Shared<'a> = Rc<RefCell<&'a mut World>>;

/// A status and a body, or none: nobody answered in time.
pub(crate) type Answer = Option<(u16, Value)>;

/// One request to the server of the moment; who waits longer than `patience` hangs up, and the server sees that.
///
/// Who is told to sign in again, as everybody is after a store without fsync lost what it had
/// (a new incarnation), does so on the same device and asks once more.
pub(crate) async fn request(
    world: &Shared<'_>,
    user: usize,
    method: Method,
    path: &str,
    body: Value,
    patience: Duration,
) -> Answer {
    if is_signed_out(world, user) {
        sign_in(world, user, patience).await?;
    }
    let answer = ask_once(world, user, method.clone(), path, &body, patience).await;
    let ended = |(status, said): &(u16, Value)| *status == 401 && said["soft_logout"] == true;
    if user == usize::MAX || !answer.as_ref().is_some_and(ended) {
        return answer;
    }
    world.borrow_mut().users[user].token.clear();
    sign_in(world, user, patience).await?;
    ask_once(world, user, method, path, &body, patience).await
}

fn is_signed_out(world: &Shared<'_>, user: usize) -> bool {
    let world = world.borrow();
    world
        .users
        .get(user)
        .is_some_and(|user| user.token.is_empty())
}

/// Once signed out a client stays so until it is let in: an answer that is lost may have ended the old session.
async fn sign_in(world: &Shared<'_>, user: usize, patience: Duration) -> Option<()> {
    let login = {
        let world = world.borrow();
        let known = &world.users[user];
        json!({
            "type": "m.login.password", "password": "secret", "device_id": known.device,
            "identifier": {"type": "m.id.user", "user": known.name},
        })
    };
    let path = format!("{V3}/login");
    let answer = ask_once(world, usize::MAX, Method::POST, &path, &login, patience).await?;
    let token = answer.1.get("access_token").and_then(Value::as_str)?;
    token.clone_into(&mut world.borrow_mut().users[user].token);
    Some(())
}

async fn ask_once(
    world: &Shared<'_>,
    user: usize,
    method: Method,
    path: &str,
    body: &Value,
    patience: Duration,
) -> Answer {
    let (router, request) = {
        let world = world.borrow();
        let router = world.router.clone()?;
        let mut request = Request::builder().method(method.clone()).uri(path);
        if let Some(user) = world.users.get(user) {
            request = request.header("authorization", format!("Bearer {}", user.token));
        }
        let body = match body {
            Value::Null => Body::empty(),
            body => Body::from(body.to_string()),
        };
        (router, request.body(body).unwrap())
    };
    let asked = (method.as_str(), path);
    let answer = tokio::time::timeout(patience, async move {
        let response = router.oneshot(request).await.unwrap();
        let status = response.status().as_u16();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        // While its store fails it says so (503), which the specification has no word for.
        if status < 500 {
            spec::check(asked, (status, &bytes), true);
        }
        (status, bytes)
    });
    let answer = answer.await.ok();
    let world = world.borrow();
    let said = match &answer {
        Some((status, bytes)) => {
            let start = String::from_utf8_lossy(&bytes[..bytes.len().min(100)]).into_owned();
            format!("{status} {} {start}", digest(bytes))
        }
        None => "hung up".to_owned(),
    };
    let body = if body.is_null() {
        String::new()
    } else {
        body.to_string()
    };
    let at = world.clock().as_millis();
    world.tell(format!(
        "{at} ms, user {user}: {method} {path} {body} → {said}"
    ));
    answer.map(|(status, bytes)| (status, serde_json::from_slice(&bytes).unwrap_or_default()))
}

/// Does things until the life ends.
pub(crate) async fn live(world: &Shared<'_>, user: usize) -> Result<(), String> {
    loop {
        let wait = world.borrow_mut().users[user].rng.random_range(0..400);
        tokio::time::sleep(Duration::from_millis(wait)).await;
        step(world, user).await?;
    }
}

async fn step(world: &Shared<'_>, user: usize) -> Result<(), String> {
    let (dice, pending, patience) = {
        let mut world = world.borrow_mut();
        let known = &mut world.users[user];
        let patience = Duration::from_millis(*[20, 300, 5_000].choose(&mut known.rng).unwrap());
        (
            known.rng.random_range(0..20),
            known.pending.is_some(),
            patience,
        )
    };
    let window = {
        let windows = &mut world.borrow_mut().users[user].windows;
        (windows.random_range(0..8) == 0).then(|| slide::some(windows))
    };
    if let Some(window) = window {
        slide(world, user, window, patience).await?;
    }
    match dice {
        0..6 => sync(world, user, patience).await,
        6 | 7 => repeat(world, user, patience).await,
        _ if pending => ask(world, user, patience).await,
        _ => {
            choose(world, user, dice);
            ask(world, user, patience).await
        }
    }
}

/// Decides what to ask next.
fn choose(world: &Shared<'_>, user: usize, dice: u32) {
    let mut world = world.borrow_mut();
    let World { rooms, users, .. } = &mut **world;
    let known = &mut users[user];
    let room = rooms.choose(&mut known.rng).unwrap().clone();
    known.next += 1;
    let (txn, text) = (
        format!("t{}", known.next),
        format!("{} {}", known.name, known.next),
    );
    // The creator stays, to see everything at the end.
    let is_in = user == 0 || known.joined.get(&room) == Some(&true);
    let said = known.said.iter().filter(|(in_room, _)| *in_room == room);
    let said = said.map(|(_, event)| event.clone()).collect::<Vec<_>>();
    let said = said.choose(&mut known.rng).cloned();
    let asked = match (dice, said) {
        (8, _) => Ask::Rename(text),
        (9, _) => Ask::Data(text),
        (10 | 11, _) if is_in && user > 0 => Ask::Leave(room),
        (12, _) if is_in => Ask::Topic(room, text),
        _ if !is_in => Ask::Join(room),
        (13, Some(event)) => Ask::Redact(room, txn, event),
        (14, Some(event)) => Ask::Read(room, event),
        (15, Some(event)) => Ask::Send(room, txn, text, Some(event)),
        _ => Ask::Send(room, txn, text, None),
    };
    known.pending = Some((asked, 0));
}

async fn ask(world: &Shared<'_>, user: usize, patience: Duration) -> Result<(), String> {
    let (asked, tries) = {
        let mut world = world.borrow_mut();
        let known = &mut world.users[user];
        let Some((asked, tries)) = known.pending.clone() else {
            return Ok(());
        };
        known.pending = Some((asked.clone(), tries + 1));
        (asked, tries)
    };
    let answer = send(world, user, &asked, patience).await;
    let Some((status, body)) = answer else {
        return Ok(());
    };
    let mut world = world.borrow_mut();
    let World { users, ledger, .. } = &mut **world;
    let known = &mut users[user];
    let fate = match status {
        200 => Fate::Done(text(&body, "event_id")),
        400..429 => Fate::Refused,
        // Whether it was done is not known.
        _ => return Ok(()),
    };
    if fate == Fate::Refused && body["errcode"] == "M_UNRECOGNIZED" {
        return Err(format!("{asked:?} is not served"));
    }
    known.pending = None;
    let done = fate != Fate::Refused;
    match &asked {
        Ask::Send(room, _, text, thread) => {
            if let Fate::Done(event) = &fate {
                known.last = Some((asked.clone(), event.clone()));
                known.said.push((room.clone(), event.clone()));
                if let Some(thread) = thread {
                    ledger.replies.insert(event.clone(), thread.clone());
                }
            }
            ledger.note(Kind::Message, text, fate);
        }
        Ask::Redact(_, _, event) => {
            // One's own message, by a member: refused only by one who is in the room no more.
            if done {
                known.said.retain(|(_, said)| said != event);
                ledger.note(Kind::Redaction, event, fate);
            }
        }
        Ask::Topic(_, text) => {
            // Nothing says that a repeated state event is the same: then a refusal says nothing of the first.
            if done || tries == 0 {
                ledger.note(Kind::Topic, text, fate);
            }
        }
        Ask::Read(room, event) if done => {
            known
                .read
                .entry(room.clone())
                .or_default()
                .push(event.clone());
        }
        Ask::Join(room) if done => drop(known.joined.insert(room.clone(), true)),
        Ask::Leave(room) if done => {
            known.joined.insert(room.clone(), false);
            known.read.remove(room);
        }
        Ask::Rename(name) if done => known.device_name = Some(name.clone()),
        Ask::Data(text) if done => known.data = Some(text.clone()),
        // One who leaves twice is refused the second time.
        Ask::Leave(room) if tries > 0 => {
            known.joined.insert(room.clone(), false);
            known.read.remove(room);
        }
        // What was asked for before the loss may need what was lost.
        Ask::Read(..) if known.fold.doubtful => {}
        asked => {
            return Err(format!(
                "user {user} may do it and was refused: {asked:?} {body}"
            ));
        }
    }
    Ok(())
}

async fn send(world: &Shared<'_>, user: usize, asked: &Ask, patience: Duration) -> Answer {
    let room = |room: &str| format!("{V3}/rooms/{}", encode(room));
    let (method, path, body) = match asked {
        Ask::Send(id, txn, text, thread) => {
            let mut content = json!({"msgtype": "m.text", "body": text});
            if let Some(thread) = thread {
                content["m.relates_to"] = json!({"rel_type": "m.thread", "event_id": thread});
            }
            let path = format!("{}/send/m.room.message/{txn}", room(id));
            (Method::PUT, path, content)
        }
        Ask::Redact(id, txn, event) => (
            Method::PUT,
            format!("{}/redact/{}/{txn}", room(id), encode(event)),
            json!({}),
        ),
        Ask::Read(id, event) => (
            Method::POST,
            format!("{}/receipt/m.read/{}", room(id), encode(event)),
            json!({}),
        ),
        Ask::Data(text) => {
            let id = encode(&format!("@{}:localhost", world.borrow().users[user].name));
            let path = format!("{V3}/user/{id}/account_data/{DATA}");
            (Method::PUT, path, json!({"text": text}))
        }
        Ask::Topic(id, text) => (
            Method::PUT,
            format!("{}/state/m.room.topic", room(id)),
            json!({"topic": text}),
        ),
        Ask::Join(id) => (Method::POST, format!("{}/join", room(id)), json!({})),
        Ask::Leave(id) => (Method::POST, format!("{}/leave", room(id)), json!({})),
        Ask::Rename(name) => (
            Method::PUT,
            format!(
                "{V3}/devices/{}",
                encode(&world.borrow().users[user].device)
            ),
            json!({"display_name": name}),
        ),
    };
    request(world, user, method, &path, body, patience).await
}

/// Sends once more what was acknowledged: the answer is the same event.
async fn repeat(world: &Shared<'_>, user: usize, patience: Duration) -> Result<(), String> {
    let Some((asked, event)) = world.borrow().users[user].last.clone() else {
        return Ok(());
    };
    match send(world, user, &asked, patience).await {
        Some((200, body)) if text(&body, "event_id") != event => Err(format!(
            "{asked:?} was {event} and is {} the second time",
            text(&body, "event_id")
        )),
        _ => Ok(()),
    }
}

async fn sync(world: &Shared<'_>, user: usize, patience: Duration) -> Result<(), String> {
    let since = world.borrow().users[user].fold.since.clone();
    let timeout = if world.borrow_mut().users[user].rng.random_range(0..4) == 0 {
        1_000
    } else {
        0
    };
    let mut path = format!("{V3}/sync?timeout={timeout}");
    if let Some(since) = since {
        path.push_str(&format!("&since={}", encode(&since)));
    }
    match request(world, user, Method::GET, &path, Value::Null, patience).await {
        Some((200, body)) => world.borrow_mut().users[user].fold.take(&body),
        Some((status @ 400..500, body)) => Err(format!("user {user} may sync: {status} {body}")),
        _ => Ok(()),
    }
}

/// Asks for a window of sliding sync; whether there was an answer.
pub(crate) async fn slide(
    world: &Shared<'_>,
    user: usize,
    window: Value,
    patience: Duration,
) -> Result<bool, String> {
    let body = world.borrow_mut().users[user].slid.body(window);
    let said = request(world, user, Method::POST, slide::PATH, body, patience).await;
    world.borrow_mut().users[user].slid.hear(said)
}

/// Asks until it is answered, on a server in good weather.
pub(crate) async fn settle(world: &Shared<'_>, user: usize) -> Result<(), String> {
    for _ in 0..20 {
        ask(world, user, Duration::from_secs(30)).await?;
        if world.borrow().users[user].pending.is_none() {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    Err(format!("user {user} gets no answer on a sound disk"))
}
