//! How much each user may have fetched: a bucket of bytes that leaks (threat H6). What comes is put into it as it comes, however it ends.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use comity_runtime::Runtime;
use futures_util::StreamExt;
use parking_lot::Mutex;

use crate::{MediaError, Pieces, cache::FOOTPRINT};

/// A full bucket is empty after this long.
const LEAKS_FOR: Duration = Duration::from_secs(1_024);
/// Users whose buckets are remembered.
const BUCKETS: usize = 10_000;

/// Everybody's buckets. Clones share them.
#[derive(Clone)]
pub(crate) struct Allowances(Arc<Inner>);

struct Inner {
    runtime: Runtime,
    /// Of a bucket, in bytes.
    size: u64,
    /// When a user's bucket will be empty, on the monotonic clock: all there is to know of it.
    empty_at: Mutex<BTreeMap<String, Duration>>,
}

impl Allowances {
    /// Buckets of `size` bytes.
    pub fn new(runtime: &Runtime, size: u64) -> Self {
        Self(Arc::new(Inner {
            runtime: runtime.clone(),
            size: size.max(1),
            empty_at: Mutex::default(),
        }))
    }

    /// Lets a user have one more file fetched, unless their bucket is full. A file that is short counts for what it costs to keep one.
    ///
    /// # Errors
    /// [`MediaError::FetchedTooMuch`].
    pub fn admit(&self, user: &str) -> Result<(), MediaError> {
        let full_for = self.spend(user, 0).saturating_sub(LEAKS_FOR);
        if full_for.is_zero() {
            self.spend(user, FOOTPRINT);
            return Ok(());
        }
        let millis = u64::try_from(full_for.as_millis()).unwrap_or(u64::MAX);
        Err(MediaError::FetchedTooMuch {
            retry_after_ms: millis.saturating_add(1),
        })
    }

    /// The body, each of whose pieces goes into the user's bucket.
    pub fn spending(&self, user: &str, body: Pieces) -> Pieces {
        let (allowances, user) = (self.clone(), user.to_owned());
        body.inspect(move |piece| {
            if let Ok(piece) = piece {
                allowances.spend(&user, piece.len() as u64);
            }
        })
        .boxed()
    }

    /// Puts bytes into a user's bucket; how long it takes to be empty.
    fn spend(&self, user: &str, bytes: u64) -> Duration {
        let now = self.0.runtime.clock().monotonic();
        let mut empty_at = self.0.empty_at.lock();
        let nanos = u128::from(bytes) * LEAKS_FOR.as_nanos() / u128::from(self.0.size);
        let more = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        let empty = empty_at.get(user).copied().unwrap_or_default().max(now);
        let empty = empty.saturating_add(more);
        if bytes > 0 {
            if empty_at.len() >= BUCKETS && !empty_at.contains_key(user) {
                empty_at.retain(|_, at| *at > now);
            }
            empty_at.insert(user.to_owned(), empty);
        }
        empty.saturating_sub(now)
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use bytes::Bytes;
    use futures_util::stream;

    use super::*;

    /// H6: what broke off counts as well, a user's bucket is theirs, and it leaks.
    #[tokio::test(start_paused = true)]
    async fn h6_what_comes_counts() {
        let allowances = Allowances::new(&Runtime::simulated(1), 10 * FOOTPRINT);
        allowances.admit("bob").unwrap();
        let piece = Bytes::from(vec![0; usize::try_from(FOOTPRINT).unwrap()]);
        let broken = || Err(io::Error::other("broken"));
        let body = stream::iter((0..19).map(move |_| Ok(piece.clone())));
        let body = body.chain(stream::iter([broken()])).boxed();
        let came: Vec<_> = allowances.spending("bob", body).collect().await;
        assert_eq!(came.len(), 20);
        // Twice as much as it holds.
        let Err(MediaError::FetchedTooMuch { retry_after_ms }) = allowances.admit("bob") else {
            panic!("it isn't full");
        };
        assert_eq!(retry_after_ms, 1_024_001);
        allowances.admit("carol").unwrap();
        tokio::time::advance(LEAKS_FOR).await;
        allowances.admit("bob").unwrap();
        assert!(allowances.admit("bob").is_err());
    }
}
