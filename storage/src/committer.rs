//! The committer: gives positions, merges what is there into groups, makes them durable, publishes.
//!
//! A request is checked alone, against the store and what was appended before it, and gets its
//! position at once. Then two stages run side by side: one group is being *written* (readable,
//! not durable) while an earlier one is being *synced*. There is no timer: a stage starts when the
//! last one ends, with whatever has come in the meantime. Heads are published after the sync, then
//! the waiting writers are answered.
//!
//! When a write fails, each lane in the group meets its own fate (`recovery`): one that is ours
//! and has nothing of the group loses what it appended, one that has another owner is closed, and
//! one of which nothing can be learned is in doubt until the engine answers again.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    pin::Pin,
    sync::Arc,
};

use bytes::Bytes;
use comity_runtime::Runtime;
use tokio::sync::{mpsc, oneshot};

use crate::{
    batch::Batch,
    engine::{Engine, RowKey, Write},
    error::CommitError,
    group::{Commit, LaneId, lanes_of, merge},
    heads::Pos,
    lane::{LaneShared, Standing},
    log::Logged,
    recovery::{self, Fate},
    store::OnFatal,
};

/// Requests taken into one group at the most.
const GROUP: usize = 256;
/// Bytes of rows in a group, beyond which it takes no further request.
const GROUP_BYTES: usize = 4 << 20;
/// Requests staged and not yet written at the most; beyond, writers wait in their queue.
const STAGED: usize = 1024;
/// Bytes of rows staged at the most, but for the last group taken.
const STAGED_BYTES: usize = 16 << 20;
/// Requests that may wait in the queue.
pub(crate) const QUEUE: usize = 1024;

/// A batch on its way.
pub(crate) struct Request {
    pub lane: Arc<LaneShared>,
    pub batch: Batch,
    /// Whether the lane takes no more after it.
    pub last: bool,
    pub appended: oneshot::Sender<Result<Pos, CommitError>>,
    pub durable: oneshot::Sender<Result<Pos, CommitError>>,
}

impl Request {
    fn refuse(self, why: CommitError) {
        drop(self.appended.send(Err(why)));
    }
}

type Stage = Pin<Box<dyn Future<Output = Result<(), CommitError>> + Send>>;

/// Runs until every writer is gone and all is answered.
pub(crate) struct Committer {
    engine: Engine,
    /// Whether to sync (D1) before publishing.
    sync: bool,
    runtime: Runtime,
    requests: mpsc::Receiver<Request>,
    on_fatal: OnFatal,
    /// Staged, in order, and what they weigh.
    staged: Vec<Commit>,
    staged_bytes: usize,
    writing: Option<(Stage, Vec<Commit>, Arc<[Write]>)>,
    /// Written, waiting for the next sync.
    written: Vec<Commit>,
    syncing: Option<(Stage, Vec<Commit>)>,
    /// Why nothing can be committed any more: what is durable can't be said.
    broken: Option<CommitError>,
}

impl Committer {
    pub(crate) fn new(
        engine: Engine,
        sync: bool,
        runtime: Runtime,
        requests: mpsc::Receiver<Request>,
        on_fatal: OnFatal,
    ) -> Self {
        Self {
            engine,
            sync,
            runtime,
            requests,
            on_fatal,
            staged: Vec::new(),
            staged_bytes: 0,
            writing: None,
            written: Vec::new(),
            syncing: None,
            broken: None,
        }
    }

    pub(crate) async fn run(mut self) {
        let mut open = true;
        let mut arrived = Vec::with_capacity(GROUP);
        loop {
            self.start_stages();
            if !open && self.writing.is_none() && self.syncing.is_none() {
                return;
            }
            let room = self.staged.len() < STAGED && self.staged_bytes < STAGED_BYTES;
            tokio::select! {
                biased;
                outcome = stage(self.syncing.as_mut().map(|(stage, _)| stage)) => self.synced(outcome),
                outcome = stage(self.writing.as_mut().map(|(stage, ..)| stage)) => self.wrote(outcome).await,
                n = self.requests.recv_many(&mut arrived, GROUP), if open && room => {
                    open = n > 0;
                    self.take(&mut arrived).await;
                }
            }
        }
    }

    fn start_stages(&mut self) {
        if self.writing.is_none() && !self.staged.is_empty() {
            let mut group = self.next_group();
            let writes = merge(&mut group).into();
            self.write(group, writes);
        }
        if self.syncing.is_none() && !self.written.is_empty() {
            let group = std::mem::take(&mut self.written);
            let engine = self.sync.then(|| self.engine.clone());
            let stage: Stage = Box::pin(async move {
                match engine {
                    Some(engine) => engine.sync().await,
                    None => Ok(()),
                }
            });
            self.syncing = Some((stage, group));
        }
    }

    fn next_group(&mut self) -> Vec<Commit> {
        let mut bytes = 0;
        let mut within = |commit: &Commit| {
            let room = bytes < GROUP_BYTES;
            bytes += commit.bytes;
            room
        };
        let count = self.staged.iter().take(GROUP).take_while(|c| within(c));
        let count = count.count();
        let group: Vec<Commit> = self.staged.drain(..count).collect();
        self.staged_bytes -= group.iter().map(|c| c.bytes).sum::<usize>();
        group
    }

    fn write(&mut self, group: Vec<Commit>, writes: Arc<[Write]>) {
        let (engine, sent) = (self.engine.clone(), writes.clone());
        let stage: Stage = Box::pin(async move { engine.apply(sent).await });
        self.writing = Some((stage, group, writes));
    }

    /// Checks each request against what came before it, one round trip for all their conditions.
    async fn take(&mut self, arrived: &mut Vec<Request>) {
        self.clear_doubts(arrived).await;
        let unknown: Vec<RowKey> = arrived
            .iter()
            .flat_map(|r| r.batch.conditions.iter().map(|(row, ..)| (&r.lane, row)))
            .filter(|(lane, row)| lane.appended_value(row.family, &row.key).is_none())
            .map(|(_, row)| row.clone())
            .collect();
        let stored = if unknown.is_empty() {
            Ok(Vec::new())
        } else {
            self.engine.get_many(&unknown).await
        };
        let stored: BTreeMap<RowKey, Option<Bytes>> = match stored {
            Ok(values) => unknown.into_iter().zip(values).collect(),
            Err(error) => {
                arrived
                    .drain(..)
                    .for_each(|request| request.refuse(error.clone().into()));
                return;
            }
        };
        for request in arrived.drain(..) {
            // Who is gone can't keep others from reading without it: it was never asked for.
            if request.appended.is_closed() {
                continue;
            }
            match self.check(&request, &stored) {
                Ok(()) => {
                    let commit = Commit::append(request);
                    self.staged_bytes += commit.bytes;
                    self.staged.push(commit);
                }
                Err(error) => request.refuse(error),
            }
        }
    }

    fn check(
        &self,
        request: &Request,
        stored: &BTreeMap<RowKey, Option<Bytes>>,
    ) -> Result<(), CommitError> {
        if let Some(why) = &self.broken {
            return Err(why.clone());
        }
        let state = request.lane.state.lock();
        match &state.standing {
            Standing::Open => {}
            Standing::Doubt(_) => return Err(CommitError::NotApplied("the lane recovers".into())),
            Standing::Closed(why) => return Err(why.clone()),
        }
        if request
            .batch
            .read_under
            .is_some_and(|read| read != state.losses)
        {
            let why = "what it was built upon was lost";
            return Err(CommitError::NotApplied(why.into()));
        }
        drop(state);
        for (row, condition, table) in &request.batch.conditions {
            let appended = request.lane.appended_value(row.family, &row.key);
            let value = appended.unwrap_or_else(|| stored.get(row).cloned().flatten());
            if !condition.holds(value.as_deref()) {
                return Err(CommitError::Conflict(table));
            }
        }
        Ok(())
    }

    /// Finds out where the lanes in doubt stand, once a lane.
    async fn clear_doubts(&mut self, arrived: &[Request]) {
        let lanes: BTreeMap<LaneId, &Arc<LaneShared>> = arrived
            .iter()
            .filter(|r| matches!(r.lane.state.lock().standing, Standing::Doubt(_)))
            .map(|r| ((r.lane.shared.tenant, r.lane.lane), &r.lane))
            .collect();
        for lane in lanes.into_values() {
            if let Err(error) = recovery::reopen(&self.engine, lane).await {
                if matches!(error, CommitError::Fenced) {
                    (self.on_fatal)(&error);
                }
                tracing::warn!(%error, lane = lane.lane.0, "a lane is still in doubt");
            }
        }
    }

    async fn wrote(&mut self, outcome: Result<(), CommitError>) {
        let Some((_, group, writes)) = self.writing.take() else {
            return;
        };
        let error = match outcome {
            Ok(()) => return self.applied(group),
            Err(error) => error,
        };
        let fates = match &error {
            CommitError::Unknown(_) if self.engine.failure_is_fatal() => {
                return self.fatal(error, group);
            }
            CommitError::Unknown(_) => {
                recovery::settle(&self.engine, &self.runtime, &lanes_of(&group)).await
            }
            CommitError::Fenced => recovery::fenced(&self.engine, &lanes_of(&group)).await,
            _ => BTreeMap::new(),
        };
        let fate = |id: &LaneId| fates.get(id).copied().unwrap_or(Fate::Lost);
        let (applied, rest): (Vec<_>, Vec<_>) = group
            .into_iter()
            .partition(|c| fate(&c.lane_id()) == Fate::Applied);
        let (again, failed): (Vec<_>, Vec<_>) = rest
            .into_iter()
            .partition(|c| fate(&c.lane_id()) == Fate::Again);
        self.applied(applied);
        self.fail(failed, &error, fate);
        if !again.is_empty() {
            let writes = writes
                .iter()
                .filter(|w| fate(&(w.fence.tenant, w.fence.lane)) == Fate::Again);
            let writes = writes.cloned().collect();
            self.write(again, writes);
        }
    }

    fn applied(&mut self, group: Vec<Commit>) {
        lanes_of(&group)
            .values()
            .for_each(|(lane, last)| lane.wrote(*last));
        self.written.extend(group);
    }

    /// The commits are lost, and with them all that their lanes appended after.
    fn fail(&mut self, failed: Vec<Commit>, error: &CommitError, fate: impl Fn(&LaneId) -> Fate) {
        let lanes = lanes_of(&failed);
        let is_lost = |commit: &Commit| lanes.contains_key(&commit.lane_id());
        let staged = std::mem::take(&mut self.staged);
        let (lost, kept): (Vec<_>, Vec<_>) = staged.into_iter().partition(is_lost);
        self.staged_bytes = kept.iter().map(|c| c.bytes).sum();
        self.staged = kept;
        let why = |id: &LaneId| match fate(id) {
            Fate::Fenced => CommitError::Fenced,
            Fate::Unknown => CommitError::Unknown(error.to_string()),
            _ => CommitError::NotApplied(error.to_string()),
        };
        for (id, (lane, _)) in &lanes {
            lane.drop_appended();
            if fate(id) == Fate::Fenced {
                lane.close(CommitError::Fenced);
                (self.on_fatal)(&CommitError::Fenced);
            }
        }
        // Of a lane in doubt only the group itself may have been written.
        let sent: BTreeSet<(LaneId, Pos)> = failed.iter().map(|c| (c.lane_id(), c.pos)).collect();
        for commit in failed.into_iter().chain(lost) {
            let id = commit.lane_id();
            let outcome = match why(&id) {
                CommitError::Unknown(why) if !sent.contains(&(id, commit.pos)) => {
                    CommitError::NotApplied(why)
                }
                why => why,
            };
            commit.answer(Err(outcome));
        }
    }

    /// What is durable can no longer be said, and readers may already find the rows. In the server
    /// `on_fatal` does not return.
    fn fatal(&mut self, error: CommitError, group: Vec<Commit>) {
        (self.on_fatal)(&error);
        let syncing = self.syncing.take().map(|(_, group)| group);
        let writing = self.writing.take().map(|(_, group, _)| group);
        let waiting = [
            std::mem::take(&mut self.written),
            std::mem::take(&mut self.staged),
        ];
        self.staged_bytes = 0;
        let groups = [Some(group), syncing, writing].into_iter().flatten();
        for commit in groups.chain(waiting).flatten() {
            commit.lane.close(error.clone());
            commit.answer(Err(error.clone()));
        }
        self.broken = Some(error);
    }

    fn synced(&mut self, outcome: Result<(), CommitError>) {
        let Some((_, group)) = self.syncing.take() else {
            return;
        };
        if let Err(error) = outcome {
            return self.fatal(error, group);
        }
        let lanes = lanes_of(&group);
        let mut answers = Vec::with_capacity(group.len());
        for commit in group {
            let Commit {
                lane,
                pos,
                entry,
                durable,
                ..
            } = commit;
            let logged = Logged {
                lane: lane.lane,
                pos,
                records: entry.records,
                owed: entry.owed,
            };
            lane.shared.remember(Arc::new(logged));
            answers.push((durable, pos));
        }
        // A tenant's lanes come together in the map: one publication, one wake-up a tenant.
        let lanes: Vec<_> = lanes.into_values().collect();
        for tenant in lanes.chunk_by(|(a, _), (b, _)| Arc::ptr_eq(&a.shared, &b.shared)) {
            if let Some((lane, _)) = tenant.first() {
                let heads = tenant.iter().map(|(lane, last)| (lane.lane, *last));
                lane.shared.publish(heads);
            }
        }
        answers
            .into_iter()
            .for_each(|(durable, pos)| drop(durable.send(Ok(pos))));
    }
}

/// The outcome of a stage, never where none is running.
async fn stage(running: Option<&mut Stage>) -> Result<(), CommitError> {
    match running {
        Some(stage) => stage.await,
        None => std::future::pending().await,
    }
}
