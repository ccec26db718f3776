//! A server of the test's own making: its own keys, its own mind.

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    Router,
    body::Body,
    extract::{Request as HttpRequest, State},
};
use bytes::Bytes;
use comity_protocol::{
    id::{OwnedServerName, OwnedUserId, ServerName},
    sign::SigningKey,
};
use comity_runtime::Runtime;
use http::{Method, StatusCode, header::CONTENT_TYPE};
use http_body_util::BodyExt;
use parking_lot::Mutex;
use ruma_signatures::Ed25519KeyPair;
use serde_json::{Value, json};

use super::Wire;
use crate::{Client, Server, client::Signer};

/// What stands before the seed in an Ed25519 key's PKCS#8 form ([RFC 8410](https://www.rfc-editor.org/rfc/rfc8410#section-7)).
const PKCS8_ED25519: [u8; 16] = [
    0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20,
];

/// A homeserver that does as the test says. It publishes its key and answers 404 to all else, until it is told otherwise.
///
/// What it signs it signs with another library than ours, and without looking at what it is.
pub struct HostilePeer {
    /// Its name.
    pub name: OwnedServerName,
    pub(super) key: Arc<SigningKey>,
    pub(super) pair: Ed25519KeyPair,
    mind: Mind,
}

/// What a peer was asked.
#[derive(Clone, Debug)]
pub struct Asked {
    /// The method.
    pub method: Method,
    /// The path, still percent-encoded, and the query.
    pub target: String,
    /// The body; `null` if it is no JSON.
    pub body: Value,
}

/// What a peer answers.
pub struct Reply {
    status: StatusCode,
    kind: String,
    body: Bytes,
}

const JSON: &str = "application/json";

impl Reply {
    /// A file of this content type.
    pub fn file(kind: &str, body: impl Into<Bytes>) -> Self {
        Self {
            status: StatusCode::OK,
            kind: kind.to_owned(),
            body: body.into(),
        }
    }
}

impl From<Value> for Reply {
    fn from(body: Value) -> Self {
        (200, body).into()
    }
}

impl From<(u16, Value)> for Reply {
    fn from((status, body): (u16, Value)) -> Self {
        Self {
            status: StatusCode::from_u16(status).expect("a status"),
            kind: JSON.to_owned(),
            body: body.to_string().into(),
        }
    }
}

/// Byte by byte, for what is no JSON.
impl From<Bytes> for Reply {
    fn from(body: Bytes) -> Self {
        Self::file(JSON, body)
    }
}

type Rule = Arc<dyn Fn(&Asked) -> Reply + Send + Sync>;

#[derive(Clone, Default)]
struct Mind(Arc<Mutex<Thoughts>>);

#[derive(Default)]
struct Thoughts {
    /// By method and the path's beginning; the longest that fits decides.
    rules: BTreeMap<(String, String), Rule>,
    heard: Vec<Asked>,
}

impl HostilePeer {
    /// A peer of this name on the wire.
    #[must_use]
    pub fn on(wire: &Wire, name: &str) -> Self {
        let name = OwnedServerName::try_from(name).expect("a server name");
        let mut seed = [9; 32];
        for (place, byte) in seed.iter_mut().zip(name.as_str().bytes()) {
            *place ^= byte;
        }
        let peer = Self {
            key: Arc::new(SigningKey::from_seed("evil", &seed).expect("a key")),
            pair: ed25519(&seed, "evil"),
            mind: Mind::default(),
            name,
        };
        let router = Router::new().fallback(think).with_state(peer.mind.clone());
        let process = Runtime::simulated(0);
        let day = 24 * 60 * 60 * 1000;
        peer.publish_until(process.clock().now_ms() + day);
        wire.attach(&peer.name, router, process, false);
        peer
    }

    /// Publishes its key as good until then, in milliseconds since 1970.
    pub fn publish_until(&self, valid_until_ts: u64) {
        let keys = self.key.publish_keys(&self.name, &[], valid_until_ts);
        let keys = Bytes::from(keys.expect("keys can be written"));
        self.answer(Method::GET, "/_matrix/key/v2/server", move |_| {
            Reply::from(keys.clone())
        });
    }

    /// From now on answers so what begins so.
    pub fn answer<R: Into<Reply>>(
        &self,
        method: Method,
        path: &str,
        answer: impl Fn(&Asked) -> R + Send + Sync + 'static,
    ) {
        let rule: Rule = Arc::new(move |asked| answer(asked).into());
        let mut thoughts = self.mind.0.lock();
        thoughts
            .rules
            .insert((method.to_string(), path.to_owned()), rule);
    }

    /// What it was asked so far, its key apart. Telling clears it.
    #[must_use]
    pub fn heard(&self) -> Vec<Asked> {
        std::mem::take(&mut self.mind.0.lock().heard)
    }

    /// A user of the peer.
    #[must_use]
    pub fn user(&self, localpart: &str) -> OwnedUserId {
        let id = format!("@{localpart}:{}", self.name);
        OwnedUserId::try_from(id).expect("a user id")
    }

    /// A client whose requests to this server are the peer's, signed as they should be. A request with an `Authorization` of its own
    /// is sent with that one.
    #[must_use]
    pub fn to(&self, server: &Server) -> Client {
        Client::new(server.router.clone()).signing(Signer {
            key: Arc::clone(&self.key),
            origin: self.name.clone(),
            destination: server.name().to_owned(),
        })
    }

    /// The `Authorization` of a request of the peer to `destination`.
    #[must_use]
    pub fn authorisation(
        &self,
        destination: &ServerName,
        method: &Method,
        target: &str,
        body: &[u8],
    ) -> String {
        Signer {
            key: Arc::clone(&self.key),
            origin: self.name.clone(),
            destination: destination.to_owned(),
        }
        .authorise(method, target, body)
    }
}

/// The key of a seed, under a version.
pub(super) fn ed25519(seed: &[u8; 32], version: &str) -> Ed25519KeyPair {
    let der = [PKCS8_ED25519.as_slice(), seed].concat();
    Ed25519KeyPair::from_der(&der, version.into()).expect("a key")
}

async fn think(State(mind): State<Mind>, request: HttpRequest) -> http::Response<Body> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.map(|body| body.to_bytes());
    let target = parts.uri.path_and_query();
    let asked = Asked {
        method: parts.method,
        target: target.map_or("/", |target| target.as_str()).to_owned(),
        body: body
            .ok()
            .and_then(|body| serde_json::from_slice(&body).ok())
            .unwrap_or_default(),
    };
    let rule = {
        let mut thoughts = mind.0.lock();
        if !asked.target.starts_with("/_matrix/key/") {
            thoughts.heard.push(asked.clone());
        }
        let fitting = thoughts.rules.iter().filter(|((method, path), _)| {
            *method == asked.method.as_str() && asked.target.starts_with(path.as_str())
        });
        let closest = fitting.max_by_key(|((_, path), _)| path.len());
        closest.map(|(_, rule)| Arc::clone(rule))
    };
    let reply = match rule {
        Some(rule) => rule(&asked),
        None => (
            404,
            json!({"errcode": "M_UNRECOGNIZED", "error": "The peer was not told what to say"}),
        )
            .into(),
    };
    let response = http::Response::builder()
        .status(reply.status)
        .header(CONTENT_TYPE, reply.kind);
    response.body(Body::from(reply.body)).expect("an answer")
}
