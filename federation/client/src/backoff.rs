//! Servers that don't answer are left alone for a while: from two seconds, doubling, to an hour.
//!
//! What is known of them survives a restart, so that one doesn't begin by asking a thousand dead
//! servers; each wait is spread, so that those who come back together aren't all asked together.
//! A request that somebody waits for may try once within a wait: it costs one connection, and says
//! sooner that the server is back. Its failure doesn't prolong the wait. What a policy server is asked goes at any time.

use std::collections::BTreeMap;

use comity_protocol::id::{OwnedServerName, ServerName};
use comity_runtime::Runtime;
use comity_storage::{CommitError, Home, Key, Pages, ReadError, Tenant};
use parking_lot::Mutex;

use crate::tables::{BackOffs, Failing, ServerKey};

/// The first wait, and the longest, in milliseconds, before jitter.
const FIRST_MS: u64 = 2_000;
const LONGEST_MS: u64 = 60 * 60 * 1000;
/// Who wasn't asked for so long after a wait is forgotten: of names that could be servers there is no end.
const UNWANTED_MS: u64 = 30 * 24 * 60 * 60 * 1000;
/// Servers whose standing is kept in memory; beyond, all are read anew.
const KEPT: usize = 20_000;

/// Who is not to be asked before when. Cheap to share behind an `Arc`.
pub struct BackOff {
    tenant: Tenant,
    runtime: Runtime,
    known: Mutex<BTreeMap<OwnedServerName, Standing>>,
}

#[derive(Clone, Copy, Default)]
struct Standing {
    failing: Option<Failing>,
    /// Whether someone's request has tried within this wait.
    tried: bool,
}

impl BackOff {
    pub(crate) fn new(tenant: Tenant) -> Self {
        let runtime = tenant.runtime().clone();
        Self {
            tenant,
            runtime,
            known: Mutex::default(),
        }
    }

    /// When a server may be asked again, in milliseconds since 1970; `None` for one that answers, or
    /// whose wait is over.
    ///
    /// # Errors
    /// The store can't be read.
    pub async fn until(&self, server: &ServerName) -> Result<Option<u64>, ReadError> {
        let failing = self.standing(server).await?.failing;
        let retry = failing.map(|failing| failing.retry_ts);
        Ok(retry.filter(|retry| *retry > self.now()))
    }

    /// Since when a server hasn't answered, in milliseconds since 1970.
    ///
    /// # Errors
    /// The store can't be read.
    pub async fn failing_since(&self, server: &ServerName) -> Result<Option<u64>, ReadError> {
        let failing = self.standing(server).await?.failing;
        Ok(failing.map(|failing| failing.since_ts))
    }

    /// For how long a server hasn't answered, in milliseconds; 0 for one that answers.
    ///
    /// # Errors
    /// The store can't be read.
    pub async fn silent_ms(&self, server: &ServerName) -> Result<u64, ReadError> {
        let since = self.failing_since(server).await?;
        Ok(since.map_or(0, |since| self.now().saturating_sub(since)))
    }

    /// Whether a request may go now: `urgent` ones also once within a wait.
    pub(crate) async fn admits(
        &self,
        server: &ServerName,
        urgent: bool,
    ) -> Result<bool, ReadError> {
        if self.until(server).await?.is_none() {
            return Ok(true);
        }
        let mut known = self.known.lock();
        let standing = known.entry(server.to_owned()).or_default();
        let admitted = urgent && !standing.tried;
        standing.tried |= urgent;
        Ok(admitted)
    }

    /// The server answered, or spoke to us: it may be asked. Says whether it had failed before.
    ///
    /// # Errors
    /// The store can't be read or written; in memory the server is well again.
    pub async fn answered(&self, server: &ServerName) -> Result<bool, CommitError> {
        let failed = self.standing(server).await?.failing.is_some();
        if failed {
            self.remember(server, Standing::default());
            self.write(server, None).await?;
        }
        Ok(failed)
    }

    /// The server gave no answer, or shuts us out. Within a wait that changes nothing.
    ///
    /// # Errors
    /// The store can't be read or written; in memory the wait has begun.
    pub async fn failed(&self, server: &ServerName) -> Result<(), CommitError> {
        let before = self.standing(server).await?.failing;
        let now = self.now();
        if before.is_some_and(|before| before.retry_ts > now) {
            return Ok(());
        }
        let interval_ms = before.map_or(FIRST_MS, |before| {
            before.interval_ms.saturating_mul(2).min(LONGEST_MS)
        });
        let jitter = self.runtime.random().below(interval_ms);
        let failing = Failing {
            since_ts: before.map_or(now, |before| before.since_ts),
            retry_ts: now + interval_ms / 2 + jitter,
            interval_ms,
        };
        let standing = Standing {
            failing: Some(failing),
            tried: false,
        };
        self.remember(server, standing);
        self.write(server, Some(failing)).await
    }

    /// Forgets those whom nobody has wanted to ask for a month. To be called now and then. Whoever is owed something is asked as soon
    /// as its wait is over, so it stays.
    ///
    /// # Errors
    /// The store's; the next call goes on.
    pub async fn tend(&self) -> Result<(), CommitError> {
        let long_ago = self.now().saturating_sub(UNWANTED_MS);
        let is_unwanted = |failing: &Failing| failing.retry_ts < long_ago;
        let is_wanted = |standing: &Standing| !standing.failing.as_ref().is_some_and(is_unwanted);
        self.known.lock().retain(|_, standing| is_wanted(standing));
        let mut pages = Pages::<BackOffs>::all();
        while let Some(mut rows) = pages.next(&self.tenant.reader()).await? {
            rows.retain(|(_, row)| is_unwanted(&row.value));
            for writer in self.tenant.writers() {
                let mut batch = writer.batch();
                let ours = rows.iter().filter(|(key, _)| writer.owns(key.home()));
                let mut any = false;
                for (key, _) in ours {
                    // One that failed again meanwhile is asked once more after a restart.
                    batch.delete::<BackOffs>(key);
                    any = true;
                }
                if any {
                    writer.commit(batch).await?;
                }
            }
        }
        Ok(())
    }

    async fn standing(&self, server: &ServerName) -> Result<Standing, ReadError> {
        if let Some(standing) = self.known.lock().get(server) {
            return Ok(*standing);
        }
        let key = ServerKey(server.to_string());
        let writer = self.tenant.lane(key_home(server));
        let row = writer.reader().get::<BackOffs>(&key).await?;
        let standing = Standing {
            failing: row.map(|row| row.value),
            tried: false,
        };
        // Whoever was quicker knows better.
        let mut known = self.known.lock();
        if known.len() >= KEPT {
            known.clear();
        }
        Ok(*known.entry(server.to_owned()).or_insert(standing))
    }

    fn remember(&self, server: &ServerName, standing: Standing) {
        self.known.lock().insert(server.to_owned(), standing);
    }

    async fn write(
        &self,
        server: &ServerName,
        failing: Option<Failing>,
    ) -> Result<(), CommitError> {
        let key = ServerKey(server.to_string());
        let writer = self.tenant.lane(key_home(server));
        let mut batch = writer.batch();
        match failing {
            Some(failing) => batch.put::<BackOffs>(&key, &failing),
            None => batch.delete::<BackOffs>(&key),
        };
        // Whether it is on the disk yet is nothing to wait for: at worst a server is asked once more.
        writer.append(batch).await.map(drop)
    }

    fn now(&self) -> u64 {
        self.runtime.clock().now_ms()
    }
}

fn key_home(server: &ServerName) -> Home<'_> {
    Home::Server(server.as_str())
}
