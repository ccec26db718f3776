//! Rate limits: a token bucket for each kind of request and who makes it.

use std::{collections::HashMap, time::Duration};

use comity_runtime::Runtime;
use parking_lot::Mutex;

use crate::error::AccountError;

/// Buckets kept. More at once than this are an attack, and what it costs is that some start anew.
const MOST: usize = 100_000;

/// What is limited. Each has its own rate and is counted by the key that fits it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Limit {
    /// Failed password checks, by account.
    FailedLoginByAccount,
    /// Logins tried, by address.
    LoginByAddress,
    /// Accounts made, by address.
    Registration,
    /// Events sent, by user.
    Send,
    /// Rooms joined or made, by user.
    Join,
    /// Invitations, by sender.
    InviteBySender,
    /// Invitations, by who receives them.
    InviteByReceiver,
    /// Changes of one's account that fan out: profile, presence, account data; by user.
    AccountChange,
    /// Searches of users and rooms, by user.
    Directory,
    /// Reports to the administrators, by user.
    Report,
}

impl Limit {
    /// So many at once, and one more each so often.
    const fn rate(self) -> (u32, Duration) {
        match self {
            // The sixth wrong password is refused (G9).
            Self::FailedLoginByAccount => (5, Duration::from_secs(12)),
            Self::LoginByAddress => (30, Duration::from_secs(2)),
            Self::Registration => (10, Duration::from_secs(6)),
            Self::Send => (100, Duration::from_millis(100)),
            Self::Join => (30, Duration::from_secs(1)),
            Self::InviteBySender => (30, Duration::from_secs(3)),
            Self::InviteByReceiver => (30, Duration::from_secs(10)),
            Self::AccountChange => (50, Duration::from_millis(500)),
            Self::Directory => (30, Duration::from_millis(500)),
            Self::Report => (5, Duration::from_secs(30)),
        }
    }
}

/// When a bucket would be full again, on the monotonic clock: all there is to know of it.
type FullAt = Duration;

/// The buckets. With limits off it lets everything through.
#[derive(Debug)]
pub struct Limits {
    runtime: Runtime,
    enabled: bool,
    buckets: Mutex<HashMap<(Limit, String), FullAt>>,
}

impl Limits {
    /// No bucket yet.
    pub fn new(runtime: &Runtime, enabled: bool) -> Self {
        Self {
            runtime: runtime.clone(),
            enabled,
            buckets: Mutex::default(),
        }
    }

    /// Takes one from the bucket.
    ///
    /// # Errors
    /// [`AccountError::LimitExceeded`] if it is empty.
    pub fn take(&self, limit: Limit, key: &str) -> Result<(), AccountError> {
        self.ask(limit, key, true)
    }

    /// As [`Limits::take`], but takes nothing: for what only counts if it then fails.
    ///
    /// # Errors
    /// [`AccountError::LimitExceeded`] if the bucket is empty.
    pub fn check(&self, limit: Limit, key: &str) -> Result<(), AccountError> {
        self.ask(limit, key, false)
    }

    fn ask(&self, limit: Limit, key: &str, take: bool) -> Result<(), AccountError> {
        if !self.enabled {
            return Ok(());
        }
        let now = self.runtime.clock().monotonic();
        let (burst, every) = limit.rate();
        let mut buckets = self.buckets.lock();
        if buckets.len() >= MOST {
            buckets.retain(|_, full_at| *full_at > now);
            if buckets.len() >= MOST {
                buckets.clear();
            }
        }
        let key = (limit, key.to_owned());
        let full_at = buckets.get(&key).copied().unwrap_or(now).max(now);
        let after = full_at + every;
        // The bucket holds `burst`: it may be at most that many refills from full.
        let allowed = now + every * burst;
        if after > allowed {
            let wait = after - allowed;
            return Err(AccountError::LimitExceeded {
                retry_after_ms: u64::try_from(wait.as_millis()).unwrap_or(u64::MAX).max(1),
            });
        }
        if take {
            buckets.insert(key, after);
        }
        Ok(())
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
            limits.check(limit, "alice").unwrap();
            limits.take(limit, "alice").unwrap();
        }
        let refused = limits.check(limit, "alice").unwrap_err();
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
    }

    #[tokio::test(start_paused = true)]
    async fn limits_can_be_off() {
        let limits = Limits::new(&Runtime::simulated(1), false);
        for _ in 0..1_000 {
            limits.take(Limit::Report, "alice").unwrap();
        }
    }

    /// Law 11: as many buckets as stated, whoever asks.
    #[tokio::test(start_paused = true)]
    async fn buckets_are_bounded() {
        let limits = Limits::new(&Runtime::simulated(1), true);
        for n in 0..=MOST {
            limits.take(Limit::LoginByAddress, &n.to_string()).unwrap();
        }
        assert!(limits.buckets.lock().len() <= MOST);
    }
}
