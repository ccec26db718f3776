//! Answers that are held until their last byte has come.
//!
//! Most are short. Whoever sends more than that needs one of few places to go on, so that what other servers send at a time, of large
//! rooms or for spite, has an end; who sends little, or nothing, takes none. One server has a part of the places only.
//! What is bounded is the reading: the answer goes on without its place. And whoever has one keeps a pace, lest few that drip keep all
//! others waiting.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use comity_protocol::id::ServerName;
use http_body_util::BodyExt;
use hyper::body::Body;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit},
    time::{Instant, timeout_at},
};

use crate::{per_server::PerServer, transport::TransportError};

/// Bytes of an answer that needs no place.
pub(super) const SHORT: usize = 16 << 20;
/// Longer answers read at a time.
const LONG: usize = 8;
/// Of these from one server.
const OF_ONE: usize = 2;
/// Whoever has a place brings so much within so long, each time. A third of what the longest answer needs to come in time.
const PACE: (usize, Duration) = (3 << 20, Duration::from_secs(30));

/// The places for long answers.
pub(super) struct Places {
    all: Semaphore,
    of_one: PerServer,
}

struct Place<'a> {
    _of_one: Option<OwnedSemaphorePermit>,
    _of_all: Option<SemaphorePermit<'a>>,
    /// Bytes still to come until then.
    due: (usize, Instant),
}

impl Place<'_> {
    fn brought(&mut self, bytes: usize) {
        self.due.0 = self.due.0.saturating_sub(bytes);
        if self.due.0 == 0 {
            self.due = due();
        }
    }
}

fn due() -> (usize, Instant) {
    (PACE.0, Instant::now() + PACE.1)
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
    pub(super) async fn read<B>(
        &self,
        from: &ServerName,
        mut body: B,
        max_bytes: usize,
    ) -> Result<Bytes, TransportError>
    where
        B: Body<Data = Bytes, Error: ToString> + Unpin,
    {
        let mut read = BytesMut::new();
        let mut place: Option<Place<'_>> = None;
        loop {
            let frame = match &place {
                Some(place) => timeout_at(place.due.1, body.frame()).await,
                None => Ok(body.frame().await),
            };
            let Some(frame) = frame.map_err(|_| TransportError::Timeout)? else {
                return Ok(read.freeze());
            };
            let frame = frame.map_err(|error| TransportError::Broken(error.to_string()))?;
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
            if let Some(place) = &mut place {
                place.brought(piece.len());
            }
        }
    }

    async fn place(&self, from: &ServerName) -> Place<'_> {
        // Who waits for its server's place takes none of the others'.
        let of_one = self.of_one.turn(from).await;
        Place {
            _of_one: of_one,
            _of_all: self.all.acquire().await.ok(),
            due: due(),
        }
    }

    /// Places that nobody has.
    #[cfg(test)]
    pub(super) fn free(&self) -> usize {
        self.all.available_permits()
    }
}

#[cfg(test)]
mod tests {
    use std::{convert::Infallible, iter::once};

    use futures_util::{StreamExt, stream};
    use http_body_util::StreamBody;
    use hyper::body::Frame;
    use tokio::time::sleep;

    use super::*;

    /// Law 11: whoever drips, never silent for long, loses its place early; who keeps the pace keeps it to the end.
    #[tokio::test(start_paused = true)]
    async fn who_drips_loses_its_place() {
        const TAKE: u64 = 20;
        let places = Places::default();
        let from = <&ServerName>::try_from("slow.test").unwrap();
        let read = async |each: usize| {
            let pieces = once(SHORT + 1).chain([each; 20]);
            let drip = |bytes: usize| async move {
                sleep(Duration::from_secs(TAKE)).await;
                Ok::<_, Infallible>(Frame::data(Bytes::from(vec![0; bytes])))
            };
            let body = StreamBody::new(stream::iter(pieces).then(drip).boxed());
            let began = Instant::now();
            let read = places.read(from, body, usize::MAX).await;
            assert_eq!(places.free(), LONG);
            (read.map(|body| body.len()), began.elapsed().as_secs())
        };
        let whole = SHORT + 1 + 20 * PACE.0;
        assert_eq!(read(PACE.0).await, (Ok(whole), 21 * TAKE));
        for each in [1, PACE.0 / 2] {
            let late = Err(TransportError::Timeout);
            assert_eq!(read(each).await, (late, TAKE + PACE.1.as_secs()), "{each}");
        }
    }
}
