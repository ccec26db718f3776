//! What one lane owes another, applied there exactly once and in order.
//!
//! The debt is part of the source's log. The target's owner follows the other lanes' logs, lets
//! the capability that knows the debt's kind write what it calls for into a batch, adds its new
//! cursor for that source, and commits the two together. Kinds without an applier are stepped over
//! with the cursor: a build that knows the kind wrote it, and one that doesn't must not stall.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use async_trait::async_trait;
use comity_runtime::{Runtime, watch};

use crate::{
    batch::{Batch, Expect},
    error::CommitError,
    follow::Follower,
    heads::{Heads, Pos},
    key::Lane,
    lane::LaneWriter,
    log::Owed,
    read::Reader,
    store::{Shared, Tenant},
    system::{Applied, Cursors, Route},
};

/// How long to wait after a failure before the same debt is tried again: at first, and at most.
const RETRY: Duration = Duration::from_millis(100);
const RETRY_MOST: Duration = Duration::from_secs(5);
/// Positions that a cursor may stay behind what was read, where nothing was owed.
const STEP: u64 = 4096;

/// Turns debts into rows of the lane that is owed.
#[async_trait]
pub trait Apply: Send + Sync {
    /// The kind of debt it knows.
    fn kind(&self) -> u16;
    /// Adds what these debts, all that one commit owes of the kind, call for to the batch. `reader` sees what the lane has
    /// appended.
    async fn apply(
        &self,
        reader: &Reader,
        owed: &[&Owed],
        batch: &mut Batch,
    ) -> Result<(), CommitError>;
}

/// Appliers by kind.
pub(crate) struct Appliers(BTreeMap<u16, Arc<dyn Apply>>);

impl Appliers {
    pub(crate) fn new(appliers: &[Arc<dyn Apply>]) -> Self {
        Self(
            appliers
                .iter()
                .map(|applier| (applier.kind(), applier.clone()))
                .collect(),
        )
    }
}

/// Starts an applier for each lane of the tenant, if there is anything that could be owed.
pub(crate) fn start(tenant: &Tenant, appliers: Arc<Appliers>, runtime: &Runtime) {
    if appliers.0.is_empty() {
        return;
    }
    let lanes = usize::from(tenant.lanes().count());
    let applied = vec![Heads::zero(tenant.lanes()); lanes];
    tenant.shared().applied().send_replace(applied);
    for writer in tenant.writers() {
        let outbox = Outbox {
            shared: tenant.shared().clone(),
            writer: writer.clone(),
            appliers: appliers.clone(),
        };
        drop(runtime.spawn("outbox", outbox.run(tenant.alive())));
    }
}

/// The debts to one lane.
struct Outbox {
    shared: Arc<Shared>,
    writer: LaneWriter,
    appliers: Arc<Appliers>,
}

impl Outbox {
    /// Runs until the tenant is closed or dropped.
    async fn run(self, mut alive: watch::Receiver<()>) {
        let mut pause = RETRY;
        loop {
            let began = self.reached();
            let outcome = tokio::select! {
                biased;
                _ = alive.changed() => return,
                outcome = self.follow() => outcome,
            };
            match outcome {
                Err(CommitError::Fenced) => return,
                Err(error) => {
                    let lane = self.writer.lane().0;
                    tracing::warn!(%error, lane, "what is owed to a lane could not be applied yet");
                }
                Ok(()) => {}
            }
            pause = if self.reached() == began {
                (pause * 2).min(RETRY_MOST)
            } else {
                RETRY
            };
            tokio::select! {
                biased;
                _ = alive.changed() => return,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Applies from the stored cursors on; ends with the first failure.
    async fn follow(&self) -> Result<(), CommitError> {
        let lanes = self.shared.lanes;
        let routes: Vec<Route> = lanes.all().map(|source| self.route(source)).collect();
        let rows = self.writer.reader().get_many::<Cursors>(&routes).await?;
        let mut cursors = BTreeMap::new();
        let mut from = Heads::zero(lanes);
        for (source, row) in lanes.all().zip(rows) {
            let pos = row.as_ref().map_or(0, |row| row.value.pos);
            cursors.insert(source, row.map(|row| row.pos));
            from = from.with(source, pos);
        }
        let mut follower = Follower::new(self.shared.clone(), from.clone());
        let mut saved = from;
        loop {
            let mut on_the_way = Vec::new();
            for logged in follower.next().await? {
                let mut ours: BTreeMap<u16, Vec<&Owed>> = BTreeMap::new();
                for owed in &logged.owed {
                    if self.writer.owns(owed.target.home()) {
                        ours.entry(owed.kind).or_default().push(owed);
                    }
                }
                if ours.is_empty() {
                    continue;
                }
                let mut batch = self.writer.batch();
                for (kind, owed) in ours {
                    if let Some(applier) = self.appliers.0.get(&kind) {
                        let reader = self.writer.reader();
                        applier.apply(&reader, &owed, &mut batch).await?;
                    }
                }
                self.move_cursor(&mut batch, &cursors, logged.lane, logged.pos);
                // The next one is decided on what is appended, not on what is durable.
                let appended = self.writer.append(batch).await?;
                cursors.insert(logged.lane, Some(appended.pos));
                saved = saved.with(logged.lane, logged.pos);
                on_the_way.push(appended);
            }
            for appended in on_the_way {
                appended.durable().await?;
            }
            let asked = self.shared.settling.lock().remove(&self.writer.lane());
            if asked || distance(&saved, follower.cursor()) > STEP {
                // A long stretch that owed this lane nothing is not to be read again; nor is it kept for this lane's sake when the
                // logs are pruned.
                let mut batch = self.writer.batch();
                for source in lanes.all() {
                    self.move_cursor(&mut batch, &cursors, source, follower.cursor().get(source));
                }
                let at = self.writer.commit(batch).await?;
                cursors.values_mut().for_each(|cursor| *cursor = Some(at));
                saved = follower.cursor().clone();
            }
            self.shared.applied().send_modify(|applied| {
                if let Some(heads) = applied.get_mut(usize::from(self.writer.lane().0)) {
                    *heads = follower.cursor().clone();
                }
            });
        }
    }

    fn move_cursor(
        &self,
        batch: &mut Batch,
        cursors: &BTreeMap<Lane, Option<Pos>>,
        source: Lane,
        pos: Pos,
    ) {
        let route = self.route(source);
        let cursor = cursors.get(&source).copied().flatten();
        batch.expect::<Cursors>(&route, cursor.map_or(Expect::Absent, Expect::At));
        batch.put::<Cursors>(&route, &Applied { pos });
    }

    fn route(&self, source: Lane) -> Route {
        Route {
            target: self.writer.lane(),
            source,
        }
    }

    fn reached(&self) -> Option<Heads> {
        let applied = self.shared.applied().borrow();
        applied.get(usize::from(self.writer.lane().0)).cloned()
    }
}

/// How many positions `to` is ahead, all lanes together.
fn distance(from: &Heads, to: &Heads) -> u64 {
    let ahead = from.positions().iter().zip(to.positions());
    ahead.map(|(from, to)| to.saturating_sub(*from)).sum()
}
