//! Who may look through the members of their rooms: that reads as much as thousands of other requests do, so few do at a time, each
//! user once, whatever one asks at once.

use std::{
    collections::BTreeMap,
    sync::{Arc, Weak},
    time::Duration,
};

use comity_protocol::id::{OwnedUserId, UserId};
use parking_lot::Mutex;
use tokio::{
    sync::{OwnedMutexGuard, Semaphore, SemaphorePermit},
    time::timeout,
};

/// At a time.
const WALKS: usize = 2;
/// How long one is waited for. Whoever searches as they type would rather have what is known by then.
const PATIENCE: Duration = Duration::from_secs(5);

type Own = tokio::sync::Mutex<()>;

/// See the module.
pub(crate) struct Walks {
    places: Semaphore,
    /// Of those who walk or wait.
    own: Mutex<BTreeMap<OwnedUserId, Weak<Own>>>,
}

/// A walk, until it is dropped.
#[must_use]
pub(crate) struct Walk<'a> {
    _place: SemaphorePermit<'a>,
    _own: OwnedMutexGuard<()>,
}

impl Default for Walks {
    fn default() -> Self {
        Self {
            places: Semaphore::new(WALKS),
            own: Mutex::default(),
        }
    }
}

impl Walks {
    /// Waits for a walk of this user's; `None` where that took too long.
    pub async fn begin(&self, user: &UserId) -> Option<Walk<'_>> {
        let own = self.own_of(user);
        let begun = async {
            // First the own: whoever asks much waits behind themselves, not before others.
            let own = own.lock_owned().await;
            let place = self.places.acquire().await.ok()?;
            Some(Walk {
                _place: place,
                _own: own,
            })
        };
        timeout(PATIENCE, begun).await.ok().flatten()
    }

    fn own_of(&self, user: &UserId) -> Arc<Own> {
        let mut all = self.own.lock();
        all.retain(|_, own| own.strong_count() > 0);
        let own = all.get(user).and_then(Weak::upgrade).unwrap_or_default();
        all.insert(user.to_owned(), Arc::downgrade(&own));
        own
    }
}
