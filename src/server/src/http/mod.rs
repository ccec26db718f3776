//! The way in: listeners, connections, and what every request goes through before any endpoint.
//!
//! ```text
//! accept ─▶ connection (TLS, HTTP/1 or 2, patience) ─▶ door (id, limits, CORS, panics) ─▶ router
//! ```
//!
//! The loop is ours rather than `axum::serve`, because it has to hold a hundred thousand waiting clients and an
//! attacker beside them: each connection has a deadline from its first moment, buffers that start small, and a
//! place out of a fixed number. Plain connections speak HTTP/1.1; HTTP/2 is agreed on under TLS.

mod accept;
mod body;
mod connection;
mod door;
mod framing;
mod lifecycle;
mod patience;
mod proxies;
mod tls;

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use axum::Router;
use comity_runtime::Runtime;
use tokio::{
    net::{TcpListener, TcpSocket},
    sync::Semaphore,
};

pub use door::error;
pub use lifecycle::{Lifecycle, Phase};
pub use proxies::{Network, NotANetwork, Proxies};
pub use tls::{Tls, TlsError};

/// What a connection may take, in time and in bytes.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Connections at once, over all listeners.
    pub connections: usize,
    /// From the first moment of a connection, or from the first byte of a further request, to the end of that
    /// request's head. The TLS handshake is within the first.
    pub head: Duration,
    /// The same while three quarters of the connections are taken.
    pub head_when_crowded: Duration,
    /// Between requests.
    pub idle: Duration,
    /// Between two pieces of a request's body.
    pub body_gap: Duration,
    /// For a request's whole body.
    pub body_whole: Duration,
    /// For a whole upload of media.
    pub upload_whole: Duration,
    /// How long a client may take nothing of what we send.
    pub stalled_write: Duration,
    /// Bytes of a request's head.
    pub head_bytes: usize,
    /// Bytes of a request's body.
    pub body_bytes: u64,
    /// Bytes of a transaction of another server, which holds up to 150 things of the size of an event.
    pub transaction_bytes: u64,
    /// Bytes of an upload of media.
    pub upload_bytes: u64,
    /// Requests at once on one HTTP/2 connection.
    pub streams: u32,
    /// How long answers may take once the server is asked to stop.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 10_000,
            head: Duration::from_secs(10),
            head_when_crowded: Duration::from_secs(3),
            idle: Duration::from_secs(60),
            body_gap: Duration::from_secs(10),
            body_whole: Duration::from_secs(60),
            upload_whole: Duration::from_secs(30 * 60),
            stalled_write: Duration::from_secs(30),
            head_bytes: 16 * 1024,
            body_bytes: 1024 * 1024,
            transaction_bytes: comity_federation_server::MAX_TRANSACTION as u64,
            upload_bytes: 1024 * 1024,
            streams: 100,
            drain: Duration::from_secs(20),
        }
    }
}

impl Limits {
    /// Bytes of the body of a request for this path, and the time it may take.
    fn body_of(&self, path: &str) -> (u64, Duration) {
        if path.starts_with("/_matrix/federation/v1/send/") {
            (self.transaction_bytes, self.body_whole)
        } else if path.starts_with("/_matrix/media/") {
            (self.upload_bytes, self.upload_whole)
        } else {
            (self.body_bytes, self.body_whole)
        }
    }
}

/// A bound address, with TLS or without.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    tls: Option<Tls>,
}

impl Listener {
    /// Binds `address`; port 0 takes a free one.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn bind(address: SocketAddr, tls: Option<Tls>) -> io::Result<Self> {
        let socket = if address.is_ipv4() {
            TcpSocket::new_v4()?
        } else {
            TcpSocket::new_v6()?
        };
        // A restart must not wait for the last connections of the one before.
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        #[expect(clippy::disallowed_methods, reason = "the one place that listens")]
        let socket = socket.listen(4096)?;
        Ok(Self { socket, tls })
    }

    /// The address that was bound.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }
}

/// What all connections share.
struct Shared {
    router: Router,
    limits: Limits,
    proxies: Proxies,
    lifecycle: Lifecycle,
    runtime: Runtime,
    places: Arc<Semaphore>,
}

/// Serves `router` on `listeners` until `lifecycle` drains; returns when every connection is closed.
pub async fn serve(
    listeners: Vec<Listener>,
    router: Router,
    limits: Limits,
    proxies: Proxies,
    lifecycle: Lifecycle,
    runtime: Runtime,
) {
    let shared = Arc::new(Shared {
        router,
        proxies,
        places: Arc::new(Semaphore::new(limits.connections)),
        limits,
        lifecycle,
        runtime,
    });
    let loops: Vec<_> = listeners
        .into_iter()
        .map(|listener| {
            let accepting = accept::accept(listener, Arc::clone(&shared));
            shared.runtime.spawn("accept", accepting)
        })
        .collect();
    shared.lifecycle.reached(Phase::Draining).await;
    for accepting in loops {
        // It ends by itself now; a panic in it has been logged.
        let _ = accepting.await;
    }
    let all = u32::try_from(shared.limits.connections).unwrap_or(u32::MAX);
    let drained = tokio::time::timeout(shared.limits.drain, shared.places.acquire_many(all)).await;
    if drained.is_ok() {
        return shared.lifecycle.advance(Phase::Closed);
    }
    let free = shared.places.available_permits();
    let busy = shared.limits.connections.saturating_sub(free);
    tracing::warn!(busy, "closing connections that are still busy");
    shared.lifecycle.advance(Phase::Closed);
    let _ = tokio::time::timeout(Duration::from_secs(1), shared.places.acquire_many(all)).await;
}
