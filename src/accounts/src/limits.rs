//! Rate limits: a token bucket for each kind of request and who makes it.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use comity_runtime::Runtime;
use parking_lot::Mutex;

use crate::error::AccountError;

/// Buckets kept of each kind. More at once than this are an attack on that kind, and no other kind feels it.
const MOST: usize = 50_000;

/// What is limited. Each has its own rate and is counted by the key that fits it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Limit {
    /// Failed password checks, by account.
    FailedLoginByAccount,
    /// Failed logins, by address.
    FailedLoginByAddress,
    /// Logins tried, by address.
    LoginByAddress,
    /// Accounts made, by address.
    Registration,
    /// Events sent, by user.
    Send,
    /// Requests that send to devices, by user. Keys for a large room take many.
    SendToDevice,
    /// Requests for keys, and uploads of them, by user.
    Keys,
    /// Servers that nobody here has heard of and that messages go to or keys are asked of, by user. Each has a queue until it is given
    /// up, or costs a connection.
    Stranger,
    /// Changes of one's key backup, by user. The first takes many.
    KeyBackup,
    /// Rooms joined or made, by user.
    Join,
    /// Invitations, by sender.
    InviteBySender,
    /// Invitations, by who receives them.
    InviteByReceiver,
    /// Changes of one's account that fan out: profile, presence, account data; by user.
    AccountChange,
    /// What is told in passing: typing, receipts; by user.
    InPassing,
    /// Searches of users and rooms, by user.
    Directory,
    /// Looks into a room that cost more than a page: threads, times; by user.
    LookUp,
    /// Look-ups that have to be asked of other servers, by address: no account is needed for them.
    Elsewhere,
    /// Reports to the administrators, by user.
    Report,
    /// Files uploaded, and ids made for them, by user.
    Upload,
}

impl Limit {
    /// So many at once, and one more each so often.
    const fn rate(self) -> (u32, Duration) {
        match self {
            // The sixth wrong password is refused (G9).
            Self::FailedLoginByAccount | Self::FailedLoginByAddress => (5, Duration::from_secs(12)),
            Self::LoginByAddress => (30, Duration::from_secs(2)),
            Self::Registration => (10, Duration::from_secs(6)),
            Self::Send => (100, Duration::from_millis(100)),
            Self::SendToDevice | Self::Keys | Self::KeyBackup => (200, Duration::from_millis(50)),
            Self::Stranger => (200, Duration::from_secs(60)),
            Self::Join => (30, Duration::from_secs(1)),
            Self::InviteBySender => (30, Duration::from_secs(3)),
            Self::InviteByReceiver => (30, Duration::from_secs(10)),
            Self::AccountChange => (50, Duration::from_millis(500)),
            Self::InPassing => (200, Duration::from_millis(100)),
            Self::LookUp => (100, Duration::from_millis(200)),
            Self::Directory => (30, Duration::from_millis(500)),
            Self::Elsewhere => (100, Duration::from_millis(200)),
            Self::Report => (5, Duration::from_secs(30)),
            Self::Upload => (100, Duration::from_secs(1)),
        }
    }
}

/// When a bucket would be full again, on the monotonic clock: all there is to know of it.
type FullAt = Duration;

/// The buckets of one kind that aren't full.
#[derive(Debug, Default)]
struct Buckets {
    by_key: HashMap<Arc<str>, FullAt>,
    by_time: BTreeSet<(FullAt, Arc<str>)>,
}

impl Buckets {
    fn get(&self, key: &str) -> FullAt {
        self.by_key.get(key).copied().unwrap_or_default()
    }

    /// Sets one; forgets those that are full by now, and beyond [`MOST`] the one that would be next: it had the least to tell.
    fn set(&mut self, key: &str, full_at: FullAt, now: Duration) {
        let old = self.by_key.remove_entry(key);
        let key = match old {
            Some((key, old)) => {
                self.by_time.remove(&(old, key.clone()));
                key
            }
            None => key.into(),
        };
        self.by_key.insert(key.clone(), full_at);
        self.by_time.insert((full_at, key));
        while let Some((first, _)) = self.by_time.first()
            && (*first <= now || self.by_time.len() > MOST)
        {
            if let Some((_, key)) = self.by_time.pop_first() {
                self.by_key.remove(&key);
            }
        }
    }
}

/// The buckets. With limits off it lets everything through.
#[derive(Debug)]
pub struct Limits {
    runtime: Runtime,
    enabled: bool,
    kinds: Mutex<BTreeMap<Limit, Buckets>>,
}

impl Limits {
    /// No bucket yet.
    pub fn new(runtime: &Runtime, enabled: bool) -> Self {
        Self {
            runtime: runtime.clone(),
            enabled,
            kinds: Mutex::default(),
        }
    }

    /// Takes one from the bucket.
    ///
    /// # Errors
    /// [`AccountError::LimitExceeded`] if it is empty.
    pub fn take(&self, limit: Limit, key: &str) -> Result<(), AccountError> {
        self.take_many(limit, key, 1)
    }

    /// Takes several from the bucket, or none.
    ///
    /// # Errors
    /// [`AccountError::LimitExceeded`] if it holds fewer; [`AccountError::TooLarge`] if it never holds so many.
    pub fn take_many(&self, limit: Limit, key: &str, count: u32) -> Result<(), AccountError> {
        if !self.enabled || count == 0 {
            return Ok(());
        }
        let now = self.runtime.clock().monotonic();
        let (burst, every) = limit.rate();
        if count > burst {
            return Err(AccountError::TooLarge("More at once than is ever allowed."));
        }
        let mut kinds = self.kinds.lock();
        let buckets = kinds.entry(limit).or_default();
        let after = buckets.get(key).max(now) + every * count;
        // The bucket holds `burst`: it may be at most that many refills from full.
        let allowed = now + every * burst;
        if after > allowed {
            let wait = after - allowed;
            return Err(AccountError::LimitExceeded {
                retry_after_ms: u64::try_from(wait.as_millis()).unwrap_or(u64::MAX).max(1),
            });
        }
        buckets.set(key, after, now);
        Ok(())
    }

    /// Puts one back, of what only counts if it fails and didn't: taken before, so that many at a time count like one after
    /// another.
    pub fn give_back(&self, limit: Limit, key: &str) {
        let now = self.runtime.clock().monotonic();
        let (_, every) = limit.rate();
        let mut kinds = self.kinds.lock();
        if let Some(buckets) = kinds.get_mut(&limit) {
            let full_at = buckets.get(key);
            if full_at > now {
                buckets.set(key, full_at.saturating_sub(every), now);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn g9_the_sixth_is_refused_and_time_heals() {
        let limits = Limits::new(&Runtime::simulated(1), true);
        let limit = Limit::FailedLoginByAccount;
        for _ in 0..5 {
            limits.take(limit, "alice").unwrap();
        }
        let refused = limits.take(limit, "alice").unwrap_err();
        assert!(matches!(
            refused,
            AccountError::LimitExceeded {
                retry_after_ms: 12_000
            }
        ));
        limits.take(limit, "bob").unwrap();
        limits.take(Limit::Send, "alice").unwrap();
        tokio::time::advance(Duration::from_secs(12)).await;
        limits.take(limit, "alice").unwrap();
        assert!(limits.take(limit, "alice").is_err());
        limits.give_back(limit, "alice");
        limits.take(limit, "alice").unwrap();
        assert!(limits.take(limit, "alice").is_err());
    }

    /// Putting back what was full again meanwhile gives nobody more than the bucket holds.
    #[tokio::test(start_paused = true)]
    async fn g9_a_bucket_is_never_more_than_full() {
        let limits = Limits::new(&Runtime::simulated(1), true);
        let limit = Limit::FailedLoginByAccount;
        limits.take(limit, "alice").unwrap();
        for _ in 0..3 {
            limits.give_back(limit, "alice");
        }
        for _ in 0..5 {
            limits.take(limit, "alice").unwrap();
        }
        assert!(limits.take(limit, "alice").is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn limits_can_be_off() {
        let limits = Limits::new(&Runtime::simulated(1), false);
        for _ in 0..1_000 {
            limits.take(Limit::Report, "alice").unwrap();
        }
    }

    /// G9, law 11: as many buckets of a kind as stated, whoever asks. Neither other kinds nor those who asked more often lose
    /// theirs by it, and what is full again takes no place.
    #[tokio::test(start_paused = true)]
    async fn g9_buckets_are_bounded_by_kind() {
        let limits = Limits::new(&Runtime::simulated(1), true);
        let (login, failed) = (Limit::LoginByAddress, Limit::FailedLoginByAccount);
        for _ in 0..5 {
            limits.take(failed, "alice").unwrap();
        }
        for _ in 0..30 {
            limits.take(login, "1.2.3.4").unwrap();
        }
        for n in 0..=2 * MOST {
            limits.take(login, &n.to_string()).unwrap();
        }
        let kept = |limit| {
            let kinds = limits.kinds.lock();
            let buckets = &kinds[&limit];
            assert_eq!(buckets.by_key.len(), buckets.by_time.len());
            buckets.by_key.len()
        };
        assert_eq!((kept(login), kept(failed)), (MOST, 1));
        assert!(limits.take(failed, "alice").is_err());
        assert!(limits.take(login, "1.2.3.4").is_err());
        tokio::time::advance(Duration::from_secs(3)).await;
        limits.take(login, "last").unwrap();
        assert_eq!(kept(login), 2);
    }
}
