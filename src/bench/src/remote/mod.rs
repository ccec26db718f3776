//! Homeservers of the bench's own making, which the measured one shares rooms with: they have names, keys and certificates, make
//! signed rooms of any size ([`room`]) and answer what a server asks that joins them ([`answers`]).
//!
//! All of them are one process and know everything of one another; they differ in name, key and address
//! alone. They check nothing: what they cost is the same for every server, and little.

mod answers;
mod room;
pub mod tls;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use comity_protocol::id::{OwnedServerName, OwnedUserId, ServerName};
use comity_protocol::sign::{Request, SigningKey};
use hyper::Method;
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::error::{Error, Result};
use crate::http::{Answer, Connection};
use crate::servers::SERVER_NAME;

pub use room::{Made, Room, Shape};

/// Servers that there are: as many origins as any workload needs.
pub const ORIGINS: usize = 20;

/// One of the servers.
pub struct Origin {
    /// Its name: a loopback address of its own, and the port that all share.
    pub name: OwnedServerName,
    key: SigningKey,
}

/// The servers, their rooms, and the authority that certifies them. Cheap to clone.
#[derive(Clone)]
pub struct Remotes(Arc<Inner>);

struct Inner {
    origins: Vec<Origin>,
    /// By room id.
    rooms: Mutex<BTreeMap<String, Arc<Mutex<Room>>>>,
    /// When they began, in milliseconds since 1970: the time of all that they make.
    began_ms: u64,
    authority: PathBuf,
}

impl Remotes {
    /// Starts them; `folder` gets the certificate of their authority.
    ///
    /// # Errors
    /// When there is no port for them, or nothing can be written to the folder.
    pub async fn start(folder: &Path, began_ms: u64) -> Result<Self> {
        let addresses: Vec<IpAddr> = (1..=ORIGINS)
            .filter_map(|n| Some(Ipv4Addr::new(127, 77, 0, u8::try_from(n).ok()?).into()))
            .collect();
        let authority = folder.join("authority.pem");
        let acceptor = tls::certify(&addresses, &authority)?;
        let listeners = tls::listen(&addresses).await?;
        let mut origins = Vec::new();
        for (seed, listener) in (1u8..).zip(&listeners) {
            let address = listener.local_addr()?;
            origins.push(Origin {
                name: ServerName::parse(address.to_string())
                    .map_err(|error| Error::Program(error.to_string()))?,
                key: SigningKey::from_seed("bench", &[seed; 32])
                    .map_err(|error| Error::Program(error.to_string()))?,
            });
        }
        let remotes = Self(Arc::new(Inner {
            origins,
            rooms: Mutex::default(),
            began_ms,
            authority,
        }));
        for (index, listener) in listeners.into_iter().enumerate() {
            tokio::spawn(answers::serve(
                remotes.clone(),
                index,
                listener,
                acceptor.clone(),
            ));
        }
        Ok(remotes)
    }

    /// The certificate of the authority that a server must trust to speak with them: a file.
    #[must_use]
    pub fn authority(&self) -> &Path {
        &self.0.authority
    }

    /// One of the servers; beyond their number it begins anew.
    ///
    /// # Errors
    /// Never, as there are some.
    pub fn origin(&self, index: usize) -> Result<&Origin> {
        let at = index % self.0.origins.len().max(1);
        let none = || Error::Program("there are no remote servers".to_owned());
        self.0.origins.get(at).ok_or_else(none)
    }

    /// A user of one of the servers.
    ///
    /// # Errors
    /// Never, for names of letters and digits.
    pub fn user(&self, origin: usize, name: &str) -> Result<OwnedUserId> {
        let server = &self.origin(origin)?.name;
        OwnedUserId::try_from(format!("@{name}:{server}"))
            .map_err(|error| Error::Program(error.to_string()))
    }

    /// Makes a room; from now on all of them have it.
    ///
    /// # Errors
    /// When the shape asks for what no room can be.
    pub fn make_room(&self, shape: Shape) -> Result<Arc<Mutex<Room>>> {
        let room = Room::make(self, shape)?;
        let id = room.id().to_string();
        let room = Arc::new(Mutex::new(room));
        self.0.rooms.lock().insert(id, Arc::clone(&room));
        Ok(room)
    }

    fn room(&self, id: &str) -> Option<Arc<Mutex<Room>>> {
        self.0.rooms.lock().get(id).cloned()
    }

    fn rooms(&self) -> Vec<Arc<Mutex<Room>>> {
        self.0.rooms.lock().values().cloned().collect()
    }

    /// Asks the measured server something as one of them.
    ///
    /// # Errors
    /// When there is no whole answer.
    pub async fn ask(
        &self,
        connection: &mut Connection,
        origin: usize,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<Answer> {
        let origin = self.origin(origin)?;
        let us =
            ServerName::parse(SERVER_NAME).map_err(|error| Error::Program(error.to_string()))?;
        let request = Request {
            method: method.as_str(),
            uri: path,
            body: &body,
        };
        let authorization = origin
            .key
            .authorise_request(&origin.name, &us, request)
            .map_err(|error| Error::Program(error.to_string()))?;
        connection.signed(method, path, &authorization, body).await
    }

    /// Sends events as a transaction of one of them.
    ///
    /// # Errors
    /// [`Error::Refused`] when the server doesn't take it.
    pub async fn transact(
        &self,
        connection: &mut Connection,
        origin: usize,
        transaction: &str,
        pdus: &[&str],
    ) -> Result<()> {
        let name = &self.origin(origin)?.name;
        let body = format!(
            r#"{{"origin":"{name}","origin_server_ts":{},"pdus":[{}]}}"#,
            self.0.began_ms,
            pdus.join(",")
        );
        let path = format!("/_matrix/federation/v1/send/{transaction}");
        let answer = self
            .ask(connection, origin, Method::PUT, &path, body.into())
            .await?;
        answer.accepted(&Method::PUT, &path).map(drop)
    }

    /// Joins a user of one of them to a room by way of the measured server; how large its answer was.
    ///
    /// # Errors
    /// [`Error::Refused`] when the server doesn't let them in.
    pub async fn join_through(
        &self,
        connection: &mut Connection,
        origin: usize,
        room: &Mutex<Room>,
        user: &OwnedUserId,
    ) -> Result<usize> {
        let (room_id, version) = {
            let room = room.lock();
            (room.id().to_string(), room.version())
        };
        let (room_id, user_id) = (
            crate::matrix::encode(&room_id),
            crate::matrix::encode(user.as_str()),
        );
        let path = format!(
            "/_matrix/federation/v1/make_join/{room_id}/{user_id}?ver={}",
            version.as_str()
        );
        let template = self
            .ask(connection, origin, Method::GET, &path, Bytes::new())
            .await?
            .accepted(&Method::GET, &path)?;
        let template: Value = serde_json::from_slice(&template)?;
        let event = template.get("event").unwrap_or(&Value::Null);
        let join = room::complete(self.origin(origin)?, version, event)?;
        let path = format!(
            "/_matrix/federation/v2/send_join/{room_id}/{}",
            crate::matrix::encode(join.event_id().as_str())
        );
        let answer = self
            .ask(
                connection,
                origin,
                Method::PUT,
                &path,
                Bytes::from(join.json().to_owned()),
            )
            .await?;
        Ok(answer.accepted(&Method::PUT, &path)?.len())
    }
}

/// What a server says that doesn't have something.
fn not_found() -> Value {
    json!({"errcode": "M_NOT_FOUND", "error": "Nothing is known of it here"})
}
