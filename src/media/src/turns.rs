//! Turns at what there is little of: of each name so many at a time, and so many more that wait. One user's or one server's
//! slowness takes no more than that.

use std::{collections::BTreeMap, sync::Arc};

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::MediaError;

/// Names whose turns are kept though nobody has one.
const KEPT: usize = 1_000;

/// Turns by name.
pub(crate) struct Turns {
    each: usize,
    waiting: usize,
    queues: Mutex<BTreeMap<String, Queue>>,
}

#[derive(Clone)]
struct Queue {
    /// Those whose turn it is, and those that wait.
    places: Arc<Semaphore>,
    turns: Arc<Semaphore>,
}

/// A turn, until it is dropped.
pub(crate) struct Turn {
    _turn: OwnedSemaphorePermit,
    _place: OwnedSemaphorePermit,
}

impl Turns {
    /// Of each name `each` at a time, and `waiting` more.
    pub fn new(each: usize, waiting: usize) -> Self {
        Self {
            each,
            waiting,
            queues: Mutex::default(),
        }
    }

    /// Waits for a turn of this name's.
    ///
    /// # Errors
    /// [`MediaError::Busy`] if as many wait as may.
    pub async fn take(&self, name: &str) -> Result<Turn, MediaError> {
        let Queue { places, turns } = {
            let mut queues = self.queues.lock();
            if queues.len() >= KEPT {
                queues.retain(|_, queue| Arc::strong_count(&queue.places) > 1);
            }
            let queue = queues.entry(name.to_owned()).or_insert_with(|| Queue {
                places: Arc::new(Semaphore::new(self.each.saturating_add(self.waiting))),
                turns: Arc::new(Semaphore::new(self.each)),
            });
            queue.clone()
        };
        let place = places.try_acquire_owned().map_err(|_| MediaError::Busy)?;
        let turn = turns.acquire_owned().await;
        Ok(Turn {
            // It is never closed.
            _turn: turn.map_err(|_| MediaError::Stopped)?,
            _place: place,
        })
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    /// Law 11: of each name so many have a turn and so many wait; other names don't.
    #[test]
    fn turns_are_bounded_by_name() {
        let turns = Turns::new(2, 1);
        let now = |name| turns.take(name).now_or_never();
        let (one, other) = (now("a").unwrap().unwrap(), now("a").unwrap().unwrap());
        let mut third = Box::pin(turns.take("a"));
        assert!(third.as_mut().now_or_never().is_none());
        assert!(matches!(now("a"), Some(Err(MediaError::Busy))));
        assert!(matches!(now("b"), Some(Ok(_))));
        drop(one);
        let third = third.now_or_never().unwrap().unwrap();
        drop((other, third));
        assert!(matches!(now("a"), Some(Ok(_))));
    }
}
