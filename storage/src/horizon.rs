//! The logs' horizon: what is old enough, and behind whoever still needs it, is pruned.
//!
//! A lane's row remembers where its head stood at each pruning of the last while, so that a position's
//! age is known without a time in every log row, over restarts too. The newest commit always stays:
//! the log ends where the head is.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::{
    batch::Expect,
    error::CommitError,
    heads::{Heads, Pos},
    key::Home,
    lane::LaneWriter,
    log::LogTable,
    store::Tenant,
    system::{Cursors, Horizons, LaneKey, Route},
};

/// Marks of one lane at the most: at an hour each, three weeks.
const MARKS: usize = 512;

/// How old a lane's positions are, and from where on its log is kept.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Horizon {
    /// The log is kept beyond this position.
    pub pos: Pos,
    /// When (milliseconds since 1970) the head stood where, oldest first.
    pub marks: Vec<(u64, Pos)>,
}

impl Horizon {
    /// Marks where the head stands now, and answers the newest position that is so old.
    fn aged(&mut self, now: u64, age: Duration, head: Pos) -> Pos {
        let age = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
        let old = |ts: u64| ts.saturating_add(age) <= now;
        let last = self.marks.iter().rposition(|(ts, _)| old(*ts));
        let pos = last
            .and_then(|at| self.marks.get(at))
            .map_or(0, |(_, pos)| *pos);
        self.marks.drain(..last.map_or(0, |at| at + 1));
        // A clock that went back makes no second mark of a time to come.
        self.marks.retain(|(ts, _)| *ts < now);
        if self.marks.len() < MARKS {
            self.marks.push((now, head));
        }
        pos
    }
}

/// Somebody who follows the logs over restarts.
#[async_trait]
pub trait Consumer: Send + Sync {
    /// The positions up to which the logs are needed no more, wherever the server ends now.
    ///
    /// # Errors
    /// [`CommitError`]: nothing is pruned before it is known.
    async fn done(&self) -> Result<Heads, CommitError>;
}

impl Tenant {
    /// From now on, and as long as there is such a consumer, the logs are kept as far as it needs them.
    pub fn keep_logs_for(&self, consumer: Weak<dyn Consumer>) {
        let mut consumers = self.shared().consumers.lock();
        consumers.retain(|consumer| consumer.strong_count() > 0);
        consumers.push(consumer);
    }

    /// Prunes the lanes' logs of what is older than `age`, but nothing that a [`Consumer`] needs nor what
    /// one lane still owes another; answers the lanes' horizons. A position's age counts from the first
    /// call after it, so this is to be called now and then.
    ///
    /// # Errors
    /// [`CommitError`]; what was pruned before stays so.
    pub async fn prune_logs(&self, age: Duration) -> Result<Heads, CommitError> {
        let consumers = self.shared().consumers.lock().clone();
        let consumers: Vec<Arc<dyn Consumer>> =
            consumers.iter().filter_map(Weak::upgrade).collect();
        let mut needed = self.heads();
        for consumer in consumers {
            needed = needed.min(&consumer.done().await?);
        }
        // They hear of it by the commits below, so that the next pruning finds what they store.
        self.shared().settling.lock().extend(self.lanes().all());
        let mut horizons = Heads::zero(self.lanes());
        for writer in self.writers() {
            let horizon = self.prune_log(writer, age, &needed).await?;
            horizons = horizons.with(writer.lane(), horizon);
        }
        Ok(horizons)
    }

    async fn prune_log(
        &self,
        writer: &LaneWriter,
        age: Duration,
        needed: &Heads,
    ) -> Result<Pos, CommitError> {
        let lane = writer.lane();
        let (reader, key) = (writer.reader(), LaneKey(lane));
        let row = reader.get::<Horizons>(&key).await?;
        let expected = row
            .as_ref()
            .map_or(Expect::Absent, |row| Expect::At(row.pos));
        let mut horizon = row.map(|row| row.value).unwrap_or_default();
        let head = self.heads().get(lane);
        let aged = horizon.aged(self.runtime().clock().now_ms(), age, head);
        let mut pos = aged.min(needed.get(lane)).min(head.saturating_sub(1));
        if !self.shared().applied().borrow().is_empty() {
            let routes: Vec<Route> = self
                .lanes()
                .all()
                .map(|target| Route {
                    target,
                    source: lane,
                })
                .collect();
            for (route, row) in routes
                .iter()
                .zip(reader.get_many::<Cursors>(&routes).await?)
            {
                let applied = row.map_or(0, |row| row.value.pos);
                if route.target != lane {
                    pos = pos.min(applied);
                }
            }
        }
        horizon.pos = horizon.pos.max(pos);
        let mut batch = writer.batch();
        batch
            .expect::<Horizons>(&key, expected)
            .put::<Horizons>(&key, &horizon)
            .delete_until::<LogTable>(
                Home::Fixed(crate::key::Slot::new(lane.0)),
                |key| {
                    key.u8(lane.0);
                },
                |key| {
                    key.u64(horizon.pos.saturating_add(1));
                },
            );
        writer.commit(batch).await?;
        Ok(horizon.pos)
    }
}
