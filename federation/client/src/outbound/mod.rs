//! The real transport: finds the server, checks the address, speaks TLS and HTTP/1.1.
//!
//! HTTP/1.1 alone: with one request in flight a destination there is nothing to multiplex, and what a
//! peer can do to us by it is well known. A connection is kept for the next request for a while.

mod address;
mod dial;
mod discover;
mod page;
mod stream;
mod well_known;
mod whole;

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use comity_protocol::id::{OwnedServerName, ServerName};
use comity_runtime::Runtime;
use http::{HeaderMap, HeaderValue, Request, Response, header};
use http_body_util::Full;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::Semaphore,
};

pub use address::is_public;
use dial::{Dialer, Purpose, Srv};
use discover::{Ask, Route, Routes, WellKnown};
use whole::Places;

use crate::transport::{Limits, Streamed, Transport, TransportError};

/// Requests on their way at once; more wait, within their own time.
const IN_FLIGHT: usize = 2_000;
/// Idle connections kept, and for how long: a little less than servers do.
const IDLE: usize = 1_000;
const IDLE_OF_A_SERVER: usize = 2;
const IDLE_FOR: Duration = Duration::from_secs(50);
/// Waited for a connection to be ready for another request, after an answer was read.
const READY: Duration = Duration::from_millis(100);
/// The head of an answer, at most.
const MAX_HEAD: usize = 64 << 10;

/// `[outbound]` of the configuration.
#[derive(Clone, Debug, Default)]
pub struct OutboundConfig {
    /// PEM files with certificate authorities to trust beside the system's.
    pub extra_ca_files: Vec<PathBuf>,
    /// Whether private, loopback and link-local addresses may be connected to.
    pub allow_private_addresses: bool,
    /// The same for pages and files of the web, whose addresses users and other servers choose.
    pub allow_private_pages: bool,
}

/// Why requests can't be made at all.
#[derive(Debug, thiserror::Error)]
pub enum OutboundError {
    /// A file of certificate authorities.
    #[error("outbound.extra_ca_files: {path}: {reason}", path = .0.display(), reason = .1)]
    Authority(PathBuf, String),
    /// TLS can't be set up.
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
}

/// The transport over the network.
pub struct Outbound {
    dialer: Dialer,
    routes: Routes,
    idle: Mutex<Idle>,
    in_flight: Semaphore,
    places: Places,
    runtime: Runtime,
}

type Connection = SendRequest<Full<Bytes>>;

/// Connections without a request, by server, and since when.
type Idle = BTreeMap<OwnedServerName, Vec<(Connection, Duration)>>;

impl Outbound {
    /// Reads the certificate authorities.
    ///
    /// # Errors
    /// [`OutboundError`], for the operator.
    pub fn new(config: &OutboundConfig, runtime: Runtime) -> Result<Self, OutboundError> {
        Ok(Self {
            dialer: Dialer::new(config, runtime.random().clone())?,
            routes: Routes::new(runtime.clone()),
            idle: Mutex::default(),
            in_flight: Semaphore::new(IN_FLIGHT),
            places: Places::default(),
            runtime,
        })
    }

    async fn request(
        &self,
        to: &ServerName,
        mut request: Request<Bytes>,
        max_bytes: usize,
    ) -> Result<Response<Bytes>, TransportError> {
        let Ok(_place) = self.in_flight.acquire().await else {
            return Err(TransportError::Broken("shutting down".to_owned()));
        };
        let route = self.routes.find(to, self).await?;
        let host = HeaderValue::try_from(&route.host).map_err(|_| TransportError::Name)?;
        request.headers_mut().insert(header::HOST, host);
        // A kept connection may have been closed by the other end while it was idle. Then the request
        // goes by another, if nothing of it was sent or doing it twice is doing it once.
        let repeatable = request.method() != http::Method::POST;
        let answer = loop {
            let Some(connection) = self.take(to) else {
                break None;
            };
            match self
                .exchange(to, connection, request.clone(), max_bytes)
                .await
            {
                Err(Failed {
                    error: TransportError::Broken(why),
                    unsent,
                }) if unsent || repeatable => {
                    tracing::debug!(%to, why, "an idle connection was closed");
                }
                answer => break Some(answer),
            }
        };
        let answer = match answer {
            Some(answer) => answer,
            None => match self.open(&route).await {
                Ok(connection) => self.exchange(to, connection, request, max_bytes).await,
                Err(error) => {
                    self.routes.failed(to);
                    Err(error.into())
                }
            },
        };
        let (answer, connection) = answer.map_err(|failed| failed.error)?;
        self.keep(to, connection);
        Ok(answer)
    }

    /// One request and its whole answer.
    async fn exchange(
        &self,
        to: &ServerName,
        mut connection: Connection,
        request: Request<Bytes>,
        max_bytes: usize,
    ) -> Result<(Response<Bytes>, Option<Connection>), Failed> {
        let answer = connection.try_send_request(request.map(Full::new)).await;
        let answer = answer.map_err(|mut failed| Failed {
            unsent: failed.take_message().is_some(),
            error: broken(failed.error()),
        })?;
        let (head, body) = answer.into_parts();
        fits(&head.headers, max_bytes)?;
        let body = self.places.read(to, body, max_bytes).await?;
        // Soon, where it can be used again at all.
        let again = tokio::time::timeout(READY, connection.ready()).await;
        let connection = matches!(again, Ok(Ok(()))).then_some(connection);
        Ok((Response::from_parts(head, body), connection))
    }

    async fn open(&self, route: &Route) -> Result<Connection, TransportError> {
        let (targets, name) = (&route.targets, &route.name);
        let stream = self.dialer.connect(targets, name, Purpose::Peer).await?;
        self.speak(stream).await
    }

    /// HTTP over a connection.
    async fn speak<S>(&self, stream: S) -> Result<Connection, TransportError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (connection, driver) = http1::Builder::new()
            .max_buf_size(MAX_HEAD)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|error| broken(&error))?;
        // Ends with the connection's handle, or when the other end closes.
        drop(self.runtime.spawn("outgoing connection", async move {
            if let Err(error) = driver.await {
                tracing::debug!(%error, "an outgoing connection broke");
            }
        }));
        Ok(connection)
    }

    fn take(&self, to: &ServerName) -> Option<Connection> {
        let now = self.runtime.clock().monotonic();
        let mut idle = self.idle.lock();
        let kept = idle.get_mut(to)?;
        while let Some((connection, since)) = kept.pop() {
            if connection.is_ready() && since + IDLE_FOR > now {
                return Some(connection);
            }
        }
        idle.remove(to);
        None
    }

    fn keep(&self, to: &ServerName, connection: Option<Connection>) {
        let Some(connection) = connection else {
            return;
        };
        let now = self.runtime.clock().monotonic();
        let mut idle = self.idle.lock();
        idle.retain(|_, kept| {
            kept.retain(|(connection, since)| !connection.is_closed() && *since + IDLE_FOR > now);
            !kept.is_empty()
        });
        if idle.len() < IDLE {
            let kept = idle.entry(to.to_owned()).or_default();
            if kept.len() < IDLE_OF_A_SERVER {
                kept.push((connection, now));
            }
        }
    }
}

#[async_trait]
impl Transport for Outbound {
    async fn send(
        &self,
        to: &ServerName,
        request: Request<Bytes>,
        limits: Limits,
    ) -> Result<Response<Bytes>, TransportError> {
        let answer = self.request(to, request, limits.max_bytes);
        tokio::time::timeout(limits.timeout, answer)
            .await
            .unwrap_or(Err(TransportError::Timeout))
    }

    async fn stream(
        &self,
        to: &ServerName,
        request: Request<Bytes>,
        limits: Limits,
    ) -> Result<Streamed, TransportError> {
        let head = self.open_stream(to, request);
        let head = tokio::time::timeout(limits.timeout, head).await;
        stream::pieces(head.unwrap_or(Err(TransportError::Timeout))?, limits)
    }
}

#[async_trait]
impl Ask for Outbound {
    async fn well_known(&self, host: &str) -> WellKnown {
        self.ask_well_known(host).await
    }

    async fn srv(&self, name: &str) -> Srv {
        self.dialer.srv(name).await
    }
}

/// Why an exchange brought nothing, and whether nothing of the request left.
struct Failed {
    error: TransportError,
    unsent: bool,
}

impl From<TransportError> for Failed {
    fn from(error: TransportError) -> Self {
        let unsent = false;
        Self { error, unsent }
    }
}

/// Refuses an answer by its head.
fn fits(headers: &HeaderMap, max_bytes: usize) -> Result<(), TransportError> {
    // Nobody was asked to compress; what unpacks to a hundred times its size isn't unpacked (G2).
    let encoding = headers.get(header::CONTENT_ENCODING);
    if encoding.is_some_and(|encoding| encoding != "identity") {
        return Err(TransportError::Broken("a compressed answer".to_owned()));
    }
    let announced = headers.get(header::CONTENT_LENGTH);
    let announced = announced.and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    if announced.is_some_and(|length| length > max_bytes) {
        return Err(TransportError::TooLarge);
    }
    Ok(())
}

fn broken(error: &hyper::Error) -> TransportError {
    TransportError::Broken(error.to_string())
}

#[cfg(test)]
mod tests;
