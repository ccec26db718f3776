//! Work that many ask for and one does: whoever asks for what is under way waits for its outcome, and an outcome is remembered for as
//! long as it is good.

use std::{collections::BTreeMap, future::Future, sync::Arc, time::Duration};

use comity_runtime::{Runtime, watch};
use parking_lot::Mutex;

use crate::MediaError;

/// Outcomes remembered.
const REMEMBERED: usize = 1_000;

/// What a flight comes to.
pub(crate) type Outcome<T> = Result<T, MediaError>;

/// Where an outcome will be told.
type Told<T> = watch::Receiver<Option<Outcome<T>>>;

/// Flights by what they are for.
pub(crate) struct Flights<K, T>(Arc<Inner<K, T>>);

struct Inner<K, T> {
    runtime: Runtime,
    name: &'static str,
    /// Under way at once, those among them that wait for something.
    most: usize,
    /// How long an outcome is remembered.
    good_for: fn(&Outcome<T>) -> Duration,
    known: Mutex<Known<K, T>>,
}

struct Known<K, T> {
    under_way: BTreeMap<K, Told<T>>,
    /// Outcomes, and until when on the monotonic clock they are good.
    landed: BTreeMap<K, (Duration, Outcome<T>)>,
}

impl<K, T> Flights<K, T>
where
    K: Ord + Clone + Send + 'static,
    T: Clone + Send + Sync + 'static,
{
    /// At most `most` at once, in tasks of this name, whose outcomes are good for that long.
    pub fn new(
        runtime: &Runtime,
        name: &'static str,
        most: usize,
        good_for: fn(&Outcome<T>) -> Duration,
    ) -> Self {
        Self(Arc::new(Inner {
            runtime: runtime.clone(),
            name,
            most,
            good_for,
            known: Mutex::new(Known {
                under_way: BTreeMap::new(),
                landed: BTreeMap::new(),
            }),
        }))
    }

    /// What is remembered for a key, or comes of the flight under way, or else of `work`, which goes on if its asker doesn't wait.
    ///
    /// # Errors
    /// The work's; [`MediaError::Busy`] if as much is under way as may be.
    pub async fn outcome<F>(&self, key: &K, work: impl Fn() -> F) -> Outcome<T>
    where
        F: Future<Output = Outcome<T>> + Send + 'static,
    {
        loop {
            let (ours, mut told) = match self.board(key, &work) {
                Ok(boarded) => boarded,
                Err(outcome) => return outcome,
            };
            // It is told before the teller goes.
            let outcome = match told.wait_for(Option::is_some).await {
                Ok(()) => told.borrow().clone(),
                Err(_) => None,
            };
            match outcome.unwrap_or(Err(MediaError::Stopped)) {
                // It stopped the one who asked first, not us.
                Err(error) if !ours && error.is_the_askers() => {}
                outcome => return outcome,
            }
        }
    }

    /// The flight for a key, and whether it begins by this; or its outcome at once.
    fn board<F>(&self, key: &K, work: impl Fn() -> F) -> Result<(bool, Told<T>), Outcome<T>>
    where
        F: Future<Output = Outcome<T>> + Send + 'static,
    {
        let now = self.0.runtime.clock().monotonic();
        let mut known = self.0.known.lock();
        if let Some((until, outcome)) = known.landed.get(key)
            && *until > now
        {
            return Err(outcome.clone());
        }
        if let Some(told) = known.under_way.get(key) {
            return Ok((false, told.clone()));
        }
        if known.under_way.len() >= self.0.most {
            return Err(Err(MediaError::Busy));
        }
        let tell = watch::Sender::new(None);
        let told = tell.subscribe();
        known.under_way.insert(key.clone(), told.clone());
        drop(known);
        let mut flight = Flight {
            flights: Arc::clone(&self.0),
            key: key.clone(),
            outcome: Err(MediaError::Stopped),
            tell,
        };
        let work = work();
        drop(self.0.runtime.carry_on(self.0.name, async move {
            flight.comes_to(work.await);
        }));
        Ok((true, told))
    }
}

/// A flight under way. However it ends, it has landed.
struct Flight<K: Ord + Clone, T: Clone> {
    flights: Arc<Inner<K, T>>,
    key: K,
    outcome: Outcome<T>,
    tell: watch::Sender<Option<Outcome<T>>>,
}

impl<K: Ord + Clone, T: Clone> Flight<K, T> {
    fn comes_to(&mut self, outcome: Outcome<T>) {
        self.outcome = outcome;
    }
}

impl<K: Ord + Clone, T: Clone> Drop for Flight<K, T> {
    fn drop(&mut self) {
        self.flights.land(&self.key, &self.outcome);
        self.tell.send_replace(Some(self.outcome.clone()));
    }
}

impl<K: Ord + Clone, T: Clone> Inner<K, T> {
    fn land(&self, key: &K, outcome: &Outcome<T>) {
        let now = self.runtime.clock().monotonic();
        let good_for = (self.good_for)(outcome);
        let mut known = self.known.lock();
        known.under_way.remove(key);
        if good_for.is_zero() {
            return;
        }
        if known.landed.len() >= REMEMBERED {
            known.landed.retain(|_, (until, _)| *until > now);
        }
        if known.landed.len() >= REMEMBERED {
            known.landed.clear();
        }
        let landed = (now + good_for, outcome.clone());
        known.landed.insert(key.clone(), landed);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures_util::future::join_all;
    use tokio::time::sleep;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn flights(most: usize) -> Flights<u8, usize> {
        let good_for = |outcome: &Outcome<usize>| match outcome {
            Err(MediaError::NotFound) => 10 * SECOND,
            _ => Duration::ZERO,
        };
        Flights::new(&Runtime::simulated(1), "test", most, good_for)
    }

    /// However many ask, the work is done once, also if the one who began it doesn't wait; what failed fails for all, for a while.
    #[tokio::test(start_paused = true)]
    async fn one_flies_for_all() {
        let flights = flights(10);
        let flown = Arc::new(AtomicUsize::new(0));
        let work = || {
            let flown = flown.clone();
            async move {
                sleep(SECOND).await;
                match flown.fetch_add(1, Ordering::Relaxed) {
                    0 => Ok(7),
                    _ => Err(MediaError::NotFound),
                }
            }
        };
        let first = tokio::time::timeout(SECOND / 2, flights.outcome(&1, work));
        assert!(first.await.is_err());
        let all = join_all((0..100).map(|_| flights.outcome(&1, work))).await;
        assert!(all.iter().all(|one| matches!(one, Ok(7))));
        assert_eq!(flown.load(Ordering::Relaxed), 1);
        for (after, times) in [(SECOND, 2), (9 * SECOND, 2), (2 * SECOND, 3)] {
            let all = join_all((0..100).map(|_| flights.outcome(&1, work))).await;
            assert!(
                all.iter()
                    .all(|one| matches!(one, Err(MediaError::NotFound)))
            );
            assert_eq!(flown.load(Ordering::Relaxed), times);
            sleep(after).await;
        }
    }

    /// Law 11: so many at once; who has had enough isn't all.
    #[tokio::test(start_paused = true)]
    async fn flights_are_bounded() {
        let flights = flights(2);
        let slow = || async {
            sleep(SECOND).await;
            Ok(1)
        };
        let (one, other, beyond, joined) = tokio::join!(
            flights.outcome(&1, slow),
            flights.outcome(&2, slow),
            flights.outcome(&3, slow),
            flights.outcome(&2, slow),
        );
        assert!(matches!((one, other, joined), (Ok(1), Ok(1), Ok(1))));
        assert!(matches!(beyond, Err(MediaError::Busy)));
        let refused = || async {
            sleep(SECOND).await;
            Err(MediaError::FetchedTooMuch { retry_after_ms: 1 })
        };
        let (one, other) = tokio::join!(flights.outcome(&1, refused), flights.outcome(&1, slow));
        assert!(matches!(one, Err(MediaError::FetchedTooMuch { .. })));
        assert!(matches!(other, Ok(1)));
        async fn panics() -> Outcome<usize> {
            panic!("on purpose")
        }
        assert!(matches!(
            flights.outcome(&1, panics).await,
            Err(MediaError::Stopped)
        ));
        assert!(matches!(flights.outcome(&1, slow).await, Ok(1)));
    }
}
