//! Answers that are held until their last byte has come.
//!
//! Most are short. Whoever sends more than that needs one of few places to go on, so that what other servers send at a time, of large
//! rooms or for spite, has an end; who sends little, or nothing, takes none. One server has a part of the places only.
//! What is bounded is the reading: the answer goes on without its place.

use bytes::{Bytes, BytesMut};
use comity_protocol::id::ServerName;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};

use super::broken;
use crate::{per_server::PerServer, transport::TransportError};

/// Bytes of an answer that needs no place.
pub(super) const SHORT: usize = 16 << 20;
/// Longer answers read at a time.
const LONG: usize = 8;
/// Of these from one server.
const OF_ONE: usize = 2;

/// The places for long answers.
pub(super) struct Places {
    all: Semaphore,
    of_one: PerServer,
}

struct Place<'a> {
    _of_one: Option<OwnedSemaphorePermit>,
    _of_all: Option<SemaphorePermit<'a>>,
}

impl Default for Places {
    fn default() -> Self {
        Self {
            all: Semaphore::new(LONG),
            of_one: PerServer::new(OF_ONE),
        }
    }
}

impl Places {
    /// Reads an answer of this server as a whole.
    pub(super) async fn read(
        &self,
        from: &ServerName,
        mut body: Incoming,
        max_bytes: usize,
    ) -> Result<Bytes, TransportError> {
        let mut read = BytesMut::new();
        let mut place = None;
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| broken(&error))?;
            let Ok(piece) = frame.into_data() else {
                continue;
            };
            let bytes = read.len().saturating_add(piece.len());
            if bytes > max_bytes {
                return Err(TransportError::TooLarge);
            }
            if bytes > SHORT && place.is_none() {
                place = Some(self.place(from).await);
            }
            read.extend_from_slice(&piece);
        }
        Ok(read.freeze())
    }

    async fn place(&self, from: &ServerName) -> Place<'_> {
        // Who waits for its server's place takes none of the others'.
        let of_one = self.of_one.turn(from).await;
        Place {
            _of_one: of_one,
            _of_all: self.all.acquire().await.ok(),
        }
    }

    /// Places that nobody has.
    #[cfg(test)]
    pub(super) fn free(&self) -> usize {
        self.all.available_permits()
    }
}
