//! The accept loop: a place first, then a connection, then its task.

use std::{io, sync::Arc, time::Duration};

use super::{Listener, Phase, Shared, connection};

/// How long to wait before trying again when the operating system gives no connection, at first and at most.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));

/// Accepts until the server drains. Holds nothing while it waits for a place: those who come then queue in the
/// operating system.
pub(super) async fn accept(listener: Listener, shared: Arc<Shared>) {
    let mut back_off = BACK_OFF.0;
    let draining = shared.lifecycle.reached(Phase::Draining);
    tokio::pin!(draining);
    loop {
        let place = tokio::select! {
            biased;
            () = &mut draining => return,
            place = Arc::clone(&shared.places).acquire_owned() => place,
        };
        let Ok(place) = place else { return };
        let accepted = tokio::select! {
            biased;
            () = &mut draining => return,
            accepted = listener.socket.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                back_off = BACK_OFF.0;
                // Answers are written whole; waiting to fill a packet only delays them.
                let _ = stream.set_nodelay(true);
                let (tls, shared) = (listener.tls.clone(), Arc::clone(&shared));
                let runtime = shared.runtime.clone();
                runtime.spawn("connection", async move {
                    // Made in here: handed in, its state would take its room twice.
                    connection::serve(stream, peer, tls, shared).await;
                    drop(place);
                });
            }
            Err(error) if gone(&error) => {}
            Err(error) => {
                // Out of file descriptors or memory: the connection stays queued, so asking again at once would
                // spin. The first of a row is told.
                if back_off == BACK_OFF.0 {
                    tracing::error!(%error, "cannot accept connections; trying on");
                }
                tokio::time::sleep(back_off).await;
                back_off = (back_off * 2).min(BACK_OFF.1);
            }
        }
    }
}

/// The client left before we took it in.
fn gone(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}
