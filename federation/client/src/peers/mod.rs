//! What we ask of other servers: a method for each endpoint, signed, bounded, typed.
//!
//! What comes back is as the other server wrote it: events are raw JSON, to be parsed and verified by
//! whoever asked. The methods stand in the file of their subject.
//!
//! See <https://spec.matrix.org/v1.19/server-server-api/>.

mod events;
mod handshakes;
mod keys;
mod media;
mod policy;
mod queries;
mod transaction;
mod users;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use comity_protocol::{
    id::{OwnedServerName, ServerName, is_reachable_name},
    sign::{Request, SigningKey},
};
use comity_runtime::Runtime;
use comity_storage::{CommitError, Tenant};
use http::{HeaderValue, Method, StatusCode, header};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};
use tokio::{sync::OwnedSemaphorePermit, time::timeout};

use crate::{
    backoff::BackOff,
    per_server::PerServer,
    transport::{Limits, Transport, TransportError},
};

pub use events::{Nearby, State, StateIds};
pub use handshakes::{Invite, Joined, Template};
pub use queries::{AliasTarget, Hierarchy};
pub use transaction::{PduResult, Transaction, TransactionAnswer};

/// Signed requests under way to one server.
const IN_FLIGHT: usize = 32;
/// For most requests: what is asked fits in little.
const SMALL: Limits = Limits {
    timeout: Duration::from_secs(20),
    max_bytes: 1 << 20,
};
/// A page of events, each up to 64 KiB.
const PAGE: Limits = Limits {
    timeout: Duration::from_secs(60),
    max_bytes: 16 << 20,
};
/// A whole state: a room of 100,000 members has 150 MB of them and their auth chains.
const WHOLE: Limits = Limits {
    timeout: Duration::from_secs(600),
    max_bytes: 200 << 20,
};

/// What stands unescaped in a path or query: RFC 3986's unreserved characters.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// The way to all other servers. Cheap to clone.
#[derive(Clone)]
pub struct Peers {
    inner: Arc<Inner>,
    urgent: bool,
}

struct Inner {
    transport: Arc<dyn Transport>,
    server_name: OwnedServerName,
    key: Arc<SigningKey>,
    runtime: Runtime,
    backoff: BackOff,
    in_flight: PerServer,
}

/// Why a request brought nothing.
#[derive(Debug, thiserror::Error)]
pub enum PeerError {
    /// Not asked: the server has not answered lately, and its wait isn't over.
    #[error("the server has not answered lately")]
    BackingOff,
    /// Not asked: it is this server itself, or a name nobody has.
    #[error("not the name of another server")]
    Name,
    /// No answer.
    #[error(transparent)]
    Unreachable(#[from] TransportError),
    /// An answer that says no.
    #[error("{0}")]
    Refused(Box<Refusal>),
    /// A good status with something that isn't the answer of that endpoint.
    #[error("not an answer of the specified form")]
    Malformed,
    /// The request can't be written: what it is about is no JSON.
    #[error("the request is not JSON")]
    Request,
    /// What is known of the server can't be read.
    #[error(transparent)]
    Store(#[from] CommitError),
}

/// An answer that says no.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("refused with {status} {errcode}")]
pub struct Refusal {
    /// The HTTP status.
    pub status: u16,
    /// The Matrix error code; empty where there is none.
    pub errcode: String,
    /// What its sender says of it: another's words, to be shown as such.
    pub error: String,
    /// The whole body, where it is a JSON object: `room_version` of an incompatible room stands there.
    pub body: Map<String, Value>,
}

impl PeerError {
    /// What the server said, if it did.
    pub fn refusal(&self) -> Option<&Refusal> {
        match self {
            Self::Refused(refusal) => Some(refusal),
            _ => None,
        }
    }

    /// Whether the server has answered; one that is overloaded hasn't.
    pub fn is_answer(&self) -> bool {
        match self {
            Self::Refused(refusal) => refusal.status < 500 && refusal.status != 429,
            Self::Unreachable(error) => answers(error),
            Self::Malformed => true,
            _ => false,
        }
    }

    /// How long the server wants to be left alone, where it says so.
    ///
    /// <https://spec.matrix.org/v1.19/client-server-api/#rate-limiting>
    pub fn retry_after(&self) -> Option<Duration> {
        let named = self.refusal()?.body.get("retry_after_ms")?;
        named.as_u64().map(Duration::from_millis)
    }

    /// Whether the server doesn't know the endpoint, in any of the ways that servers say so.
    ///
    /// <https://spec.matrix.org/v1.19/server-server-api/#unsupported-endpoints>
    pub fn is_unknown_endpoint(&self) -> bool {
        self.refusal().is_some_and(|refusal| match refusal.status {
            405 => true,
            404 => matches!(refusal.errcode.as_str(), "M_UNRECOGNIZED" | ""),
            400 => refusal.errcode == "M_UNRECOGNIZED",
            _ => false,
        })
    }
}

/// A request in the making.
struct Call {
    method: Method,
    uri: String,
    body: Bytes,
    limits: Limits,
    /// Whether it says who asks. What anybody may ask goes without.
    signed: bool,
    /// Whether it goes to a server that is left alone as well: what is asked isn't asked a second time, and nobody else can answer.
    insists: bool,
}

impl Call {
    fn get(path: &[&str], limits: Limits) -> Self {
        Self {
            method: Method::GET,
            uri: path_of(path),
            body: Bytes::new(),
            limits,
            signed: true,
            insists: false,
        }
    }

    fn with<B: Serialize + ?Sized>(
        method: Method,
        path: &[&str],
        body: &B,
        limits: Limits,
    ) -> Result<Self, PeerError> {
        let body = serde_json::to_vec(body).map_err(|_| PeerError::Request)?;
        Ok(Self {
            method,
            body: body.into(),
            ..Self::get(path, limits)
        })
    }

    fn put<B: Serialize + ?Sized>(
        path: &[&str],
        body: &B,
        limits: Limits,
    ) -> Result<Self, PeerError> {
        Self::with(Method::PUT, path, body, limits)
    }

    fn post<B: Serialize + ?Sized>(
        path: &[&str],
        body: &B,
        limits: Limits,
    ) -> Result<Self, PeerError> {
        Self::with(Method::POST, path, body, limits)
    }

    fn unsigned(self) -> Self {
        Self {
            signed: false,
            ..self
        }
    }

    fn insisting(self) -> Self {
        Self {
            insists: true,
            ..self
        }
    }

    fn query<'a>(mut self, pairs: impl IntoIterator<Item = (&'a str, String)>) -> Self {
        for (name, value) in pairs {
            self.uri
                .push(if self.uri.contains('?') { '&' } else { '?' });
            self.uri.push_str(name);
            self.uri.push('=');
            self.uri.extend(utf8_percent_encode(&value, ESCAPED));
        }
        self
    }
}

/// Whether a server answers of which we have no answer: that one is too long says nothing of the next.
fn answers(error: &TransportError) -> bool {
    *error == TransportError::TooLarge
}

/// `/_matrix` and these segments, escaped.
fn path_of(segments: &[&str]) -> String {
    let mut path = String::from("/_matrix");
    for segment in segments {
        path.push('/');
        path.extend(utf8_percent_encode(segment, ESCAPED));
    }
    path
}

impl Peers {
    /// Requests go by `transport`, in the name of `server_name` and signed by its key.
    pub fn new(
        transport: Arc<dyn Transport>,
        tenant: &Tenant,
        server_name: OwnedServerName,
        key: Arc<SigningKey>,
    ) -> Self {
        Self {
            inner: Arc::new(Inner {
                transport,
                server_name,
                key,
                runtime: tenant.runtime().clone(),
                backoff: BackOff::new(tenant.clone()),
                in_flight: PerServer::new(IN_FLIGHT),
            }),
            urgent: false,
        }
    }

    /// The same for requests that somebody waits for: a server that backs off is tried once all the same.
    #[must_use]
    pub fn urgent(&self) -> Self {
        Self {
            inner: self.inner.clone(),
            urgent: true,
        }
    }

    /// In whose name we ask.
    pub fn server_name(&self) -> &ServerName {
        &self.inner.server_name
    }

    /// Which servers don't answer.
    pub fn backoff(&self) -> &BackOff {
        &self.inner.backoff
    }

    pub(crate) fn now_ms(&self) -> u64 {
        self.inner.runtime.clock().now_ms()
    }

    /// Whether a server is another one that could be asked.
    fn is_peer(&self, server: &ServerName) -> bool {
        *server != *self.inner.server_name && is_reachable_name(server)
    }

    async fn call<A: DeserializeOwned>(&self, to: &ServerName, call: Call) -> Result<A, PeerError> {
        let body = self.exchange(to, call).await?;
        serde_json::from_slice(&body).map_err(|_| PeerError::Malformed)
    }

    /// Sends a request unless its server is left alone; the body of a good answer.
    async fn exchange(&self, to: &ServerName, call: Call) -> Result<Bytes, PeerError> {
        let turn = self.admitted(to, &call).await?;
        let patience = call.limits.timeout;
        let (request, limits) = self.request(to, call)?;
        // A transport that forgets its limits would hold up a destination for good.
        // Its time begins now: that others of ours were before it is not the server's fault.
        let answer = timeout(patience, self.inner.transport.send(to, request, limits)).await;
        let answer = answer.unwrap_or(Err(TransportError::Timeout));
        drop(turn);
        let overwhelmed = |status: StatusCode| {
            status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS
        };
        let well = match &answer {
            Ok(answer) => !overwhelmed(answer.status()),
            Err(error) => answers(error),
        };
        self.note(to, well).await?;
        let answer = answer?;
        if answer.status() == StatusCode::OK {
            Ok(answer.into_body())
        } else {
            Err(PeerError::Refused(Box::new(refusal(&answer))))
        }
    }

    /// Whether a server is to be left alone for a while.
    async fn note(&self, to: &ServerName, well: bool) -> Result<(), CommitError> {
        let backoff = &self.inner.backoff;
        if well {
            backoff.answered(to).await.map(drop)
        } else {
            backoff.failed(to).await
        }
    }

    /// A request's turn at its server, unless that is left alone.
    async fn admitted(
        &self,
        to: &ServerName,
        call: &Call,
    ) -> Result<Option<OwnedSemaphorePermit>, PeerError> {
        if !self.is_peer(to) {
            return Err(PeerError::Name);
        }
        if !call.insists {
            let admitted = self.inner.backoff.admits(to, self.urgent).await;
            if !admitted.map_err(CommitError::from)? {
                return Err(PeerError::BackingOff);
            }
        }
        // What goes unsigned is what a server needs to know others; it never waits for their answers.
        if !call.signed {
            return Ok(None);
        }
        let turn = timeout(call.limits.timeout, self.inner.in_flight.turn(to)).await;
        Ok(turn.map_err(|_| TransportError::Timeout)?)
    }

    fn request(
        &self,
        to: &ServerName,
        call: Call,
    ) -> Result<(http::Request<Bytes>, Limits), PeerError> {
        let mut request = http::Request::builder()
            .method(&call.method)
            .uri(&call.uri)
            .header(header::ACCEPT, "application/json");
        if !call.body.is_empty() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        if call.signed {
            let covered = Request {
                method: call.method.as_str(),
                uri: &call.uri,
                body: &call.body,
            };
            let origin = &self.inner.server_name;
            let authorization = self.inner.key.authorise_request(origin, to, covered);
            let authorization = authorization.map_err(|_| PeerError::Request)?;
            let mut value = HeaderValue::try_from(authorization).map_err(|_| PeerError::Request)?;
            value.set_sensitive(true);
            request = request.header(header::AUTHORIZATION, value);
        }
        let request = request.body(call.body).map_err(|_| PeerError::Request)?;
        Ok((request, call.limits))
    }
}

#[derive(Default, Deserialize)]
struct Said {
    #[serde(default)]
    errcode: String,
    #[serde(default)]
    error: String,
}

fn refusal(answer: &http::Response<Bytes>) -> Refusal {
    let said: Said = serde_json::from_slice(answer.body()).unwrap_or_default();
    Refusal {
        status: answer.status().as_u16(),
        errcode: said.errcode,
        error: said.error,
        body: serde_json::from_slice(answer.body()).unwrap_or_default(),
    }
}

/// The answer of an endpoint of version 1 that puts its status into the body as well.
#[derive(Deserialize)]
struct WithStatus<A>(#[expect(dead_code, reason = "always 200")] u16, A);
