//! One connection from its first byte to its last.

use std::{
    future::Future,
    net::SocketAddr,
    pin::{Pin, pin},
    sync::Arc,
};

use comity_runtime::Runtime;
use hyper::{
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::GracefulConnection,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};

use super::{
    Phase, Shared, door,
    patience::{Activity, Patience, Patient},
    tls::{Protocol, Tls},
};

/// Serves `stream` until it ends, times out or is cut.
pub(super) async fn serve(
    stream: TcpStream,
    peer: SocketAddr,
    tls: Option<Tls>,
    shared: Arc<Shared>,
) {
    let crowded = shared.places.available_permits() < shared.limits.connections / 4;
    let patience = Patience::new(&shared.limits, crowded);
    match tls {
        None => http1(stream, peer, patience, shared).await,
        // Boxed, so that a plain connection's task is not as large as one with TLS.
        Some(tls) => Box::pin(secured(stream, peer, patience, tls, shared)).await,
    }
}

async fn secured(
    stream: TcpStream,
    peer: SocketAddr,
    patience: Patience,
    tls: Tls,
    shared: Arc<Shared>,
) {
    let handshake = tokio::select! {
        biased;
        () = shared.lifecycle.reached(Phase::Draining) => return,
        handshake = tokio::time::timeout_at(patience.first_head, tls.accept(stream)) => handshake,
    };
    match handshake {
        Ok(Ok((stream, Protocol::Http1))) => http1(stream, peer, patience, shared).await,
        Ok(Ok((stream, Protocol::Http2))) => http2(stream, peer, patience, shared).await,
        Ok(Err(error)) => tracing::debug!(%error, "TLS handshake failed"),
        Err(_) => tracing::debug!("TLS handshake timed out"),
    }
}

async fn http1<S>(stream: S, peer: SocketAddr, patience: Patience, shared: Arc<Shared>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let activity = Activity::http1(&shared.limits, patience);
    let io = TokioIo::new(Patient::new(stream, Arc::clone(&activity)));
    let connection = pin!(
        http1::Builder::new()
            // Reading begins with 8 kB and grows only for those who send more.
            .max_buf_size(shared.limits.head_bytes.max(8 * 1024))
            // `Patient` holds the clocks, of which hyper has only this one.
            .header_read_timeout(None)
            .serve_connection(
                io,
                service_fn({
                    let shared = Arc::clone(&shared);
                    move |request| {
                        door::enter(Arc::clone(&shared), peer, Arc::clone(&activity), request)
                    }
                }),
            ),
    );
    until_closed(connection, &shared).await;
}

async fn http2<S>(stream: S, peer: SocketAddr, patience: Patience, shared: Arc<Shared>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let activity = Activity::http2(&shared.limits, patience);
    let io = TokioIo::new(Patient::new(stream, Arc::clone(&activity)));
    let mut builder = http2::Builder::new(Tasks(shared.runtime.clone()));
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(shared.limits.streams)
        .max_header_list_size(u32::try_from(shared.limits.head_bytes).unwrap_or(u32::MAX))
        // What a client may have in flight towards us, and we towards it.
        .initial_stream_window_size(64 * 1024)
        .initial_connection_window_size(256 * 1024)
        .max_send_buf_size(64 * 1024)
        // Streams opened only to be reset cost us work: a few are clumsy, more are a flood (CVE-2023-44487).
        .max_pending_accept_reset_streams(20)
        .max_local_error_reset_streams(100)
        // Finds peers that are gone, which an idle deadline cannot while a poll is open.
        .keep_alive_interval(shared.limits.idle)
        .keep_alive_timeout(shared.limits.stalled_write);
    let connection = pin!(builder.serve_connection(
        io,
        service_fn({
            let shared = Arc::clone(&shared);
            move |request| door::enter(Arc::clone(&shared), peer, Arc::clone(&activity), request)
        }),
    ));
    until_closed(connection, &shared).await;
}

/// Drives a connection; when the server drains, it answers what it has begun and takes no more.
async fn until_closed<C: GracefulConnection>(mut connection: Pin<&mut C>, shared: &Shared) {
    let ended = tokio::select! {
        biased;
        () = shared.lifecycle.reached(Phase::Draining) => {
            connection.as_mut().graceful_shutdown();
            tokio::select! {
                biased;
                () = shared.lifecycle.reached(Phase::Closed) => return,
                ended = connection => ended,
            }
        }
        ended = connection.as_mut() => ended,
    };
    if ended.is_err() {
        // A client's doing: gone, too slow, or no HTTP. Nothing of it is worth an operator's attention.
        tracing::trace!("connection ended early");
    }
}

/// Lets hyper start the tasks of HTTP/2 streams.
#[derive(Clone)]
struct Tasks(Runtime);

impl<F> hyper::rt::Executor<F> for Tasks
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, future: F) {
        let future: Pin<Box<dyn Future<Output = ()> + Send>> = Box::pin(future);
        self.0.spawn("stream", future);
    }
}

#[cfg(test)]
mod tests {
    /// W4: a plain connection's task, of which there is one for each client that waits.
    #[test]
    fn w4_a_connections_task_is_small() {
        fn size<A, B, C, D, F>(_: impl Fn(A, B, C, D) -> F) -> usize {
            size_of::<F>()
        }
        let size = size(super::serve);
        assert!(size <= 2 << 10, "{size}");
    }
}
