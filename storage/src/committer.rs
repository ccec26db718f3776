//! The committer: gives positions, merges what is there into groups, makes them durable, publishes.
//!
//! A request is checked alone, against the store and what was appended before it, and gets its
//! position at once. Then two stages run side by side: one group is being *written* (readable,
//! not durable) while an earlier one is being *synced*. There is no timer: a stage starts when the
//! last one ends, with whatever has come in the meantime. Heads are published after the sync, then
//! the waiting writers are answered.

use std::{
    collections::{BTreeMap, HashSet},
    future::Future,
    pin::Pin,
    sync::Arc,
};

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use crate::{
    batch::Batch,
    engine::{Condition, Engine, Op, RowKey, Write},
    error::{CommitError, ReadError},
    heads::Pos,
    key::{At, Key, Lane, TenantId},
    lane::LaneShared,
    log::{Entry, LogKey, LogTable, Logged},
    store::OnFatal,
    system::{Head, LaneHeads, LaneKey},
    table::{self, Table},
};

/// Requests taken into one group at the most.
const GROUP: usize = 256;
/// Requests staged and not yet written at the most; beyond, writers wait in their queue.
const STAGED: usize = 1024;
/// Requests that may wait in the queue.
pub(crate) const QUEUE: usize = 1024;

/// A batch on its way.
pub(crate) struct Request {
    pub lane: Arc<LaneShared>,
    pub batch: Batch,
    pub appended: oneshot::Sender<Result<Pos, CommitError>>,
    pub durable: oneshot::Sender<Result<Pos, CommitError>>,
}

/// A batch with its position.
struct Commit {
    lane: Arc<LaneShared>,
    pos: Pos,
    conditions: Vec<(RowKey, Condition)>,
    ops: Vec<Op>,
    entry: Entry,
    durable: oneshot::Sender<Result<Pos, CommitError>>,
}

type Stage = Pin<Box<dyn Future<Output = Result<(), CommitError>> + Send>>;

/// Runs until every writer is gone and all is answered.
pub(crate) struct Committer {
    engine: Engine,
    requests: mpsc::Receiver<Request>,
    on_fatal: OnFatal,
    /// Staged, in order.
    staged: Vec<Commit>,
    writing: Option<(Stage, Vec<Commit>)>,
    /// Written, waiting for the next sync.
    written: Vec<Commit>,
    syncing: Option<(Stage, Vec<Commit>)>,
}

impl Committer {
    pub(crate) fn new(
        engine: Engine,
        requests: mpsc::Receiver<Request>,
        on_fatal: OnFatal,
    ) -> Self {
        let (staged, written) = (Vec::new(), Vec::new());
        Self {
            engine,
            requests,
            on_fatal,
            staged,
            writing: None,
            written,
            syncing: None,
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
            tokio::select! {
                biased;
                outcome = stage(&mut self.syncing) => self.synced(outcome),
                outcome = stage(&mut self.writing) => self.wrote(outcome).await,
                n = self.requests.recv_many(&mut arrived, GROUP), if open && self.staged.len() < STAGED => {
                    open = n > 0;
                    self.take(&mut arrived).await;
                }
            }
        }
    }

    fn start_stages(&mut self) {
        if self.writing.is_none() && !self.staged.is_empty() {
            let rest = self.staged.split_off(self.staged.len().min(GROUP));
            let mut group = std::mem::replace(&mut self.staged, rest);
            let writes = merge(&mut group);
            let engine = self.engine.clone();
            self.writing = Some((Box::pin(async move { engine.apply(writes).await }), group));
        }
        if self.syncing.is_none() && !self.written.is_empty() {
            let engine = self.engine.clone();
            self.syncing = Some((
                Box::pin(async move { engine.sync().await }),
                std::mem::take(&mut self.written),
            ));
        }
    }

    /// Checks each request against what came before it, one round trip for all their conditions.
    async fn take(&mut self, arrived: &mut Vec<Request>) {
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
                    .for_each(|r| drop(r.appended.send(Err(error.clone().into()))));
                return;
            }
        };
        for request in arrived.drain(..) {
            match check(&request, &stored) {
                Ok(()) => self.staged.push(append(request)),
                Err(error) => drop(request.appended.send(Err(error))),
            }
        }
    }

    async fn wrote(&mut self, outcome: Result<(), CommitError>) {
        let Some((_, group)) = self.writing.take() else {
            return;
        };
        let outcome = match outcome {
            Err(CommitError::Unknown(why)) if !self.engine.failure_is_fatal() => {
                Self::reread(self.engine.clone(), &group, why).await
            }
            other => other,
        };
        match outcome {
            Ok(()) => {
                lanes_of(&group)
                    .values()
                    .for_each(|(lane, last)| lane.wrote(*last));
                self.written.extend(group);
            }
            Err(error) => {
                if self.engine.failure_is_fatal() {
                    (self.on_fatal)(&error);
                }
                self.fail(group, &error);
            }
        }
    }

    /// After an unknown outcome the head row says whether the group is there: only we could have
    /// written that position under our epoch.
    async fn reread(engine: Engine, group: &[Commit], why: String) -> Result<(), CommitError> {
        let lanes = lanes_of(group);
        let rows: Vec<RowKey> = lanes.values().map(|(lane, _)| head_row(lane)).collect();
        let values = engine
            .get_many(&rows)
            .await
            .map_err(|_| CommitError::Unknown(why.clone()))?;
        for (value, (lane, last)) in values.into_iter().zip(lanes.values()) {
            let head = value
                .map(|v| table::read_value::<LaneHeads>(&v))
                .transpose()
                .map_err(ReadError::from)?;
            match head.map(|row| row.value) {
                Some(Head { pos, epoch }) if epoch == lane.epoch && pos == *last => {}
                _ => return Err(CommitError::NotApplied(why)),
            }
        }
        Ok(())
    }

    /// The group is lost, and with it all that its lanes appended after it.
    fn fail(&mut self, group: Vec<Commit>, error: &CommitError) {
        let lanes = lanes_of(&group);
        let is_lost = |c: &Commit| lanes.contains_key(&(c.lane.shared.tenant, c.lane.lane));
        let (lost, kept): (Vec<_>, Vec<_>) = std::mem::take(&mut self.staged)
            .into_iter()
            .partition(is_lost);
        self.staged = kept;
        for (lane, _) in lanes.values() {
            lane.drop_appended();
            if !matches!(error, CommitError::NotApplied(_)) {
                lane.stop(error.clone());
            }
        }
        group
            .into_iter()
            .chain(lost)
            .for_each(|c| drop(c.durable.send(Err(error.clone()))));
    }

    fn synced(&mut self, outcome: Result<(), CommitError>) {
        let Some((_, group)) = self.syncing.take() else {
            return;
        };
        if let Err(error) = outcome {
            // What is durable can no longer be said, and readers may already find the rows.
            (self.on_fatal)(&error);
            lanes_of(&group)
                .values()
                .for_each(|(lane, _)| lane.stop(error.clone()));
            group
                .into_iter()
                .for_each(|c| drop(c.durable.send(Err(error.clone()))));
            return;
        }
        let mut answers = Vec::with_capacity(group.len());
        let mut tenants: Vec<_> = Vec::new();
        for (lane, last) in lanes_of(&group).into_values() {
            tenants.push((lane.shared.clone(), lane.lane, last));
        }
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
        tenants
            .into_iter()
            .for_each(|(shared, lane, last)| shared.publish(lane, last));
        answers
            .into_iter()
            .for_each(|(durable, pos)| drop(durable.send(Ok(pos))));
    }
}

/// The outcome of a stage, never where none is running.
async fn stage(slot: &mut Option<(Stage, Vec<Commit>)>) -> Result<(), CommitError> {
    match slot {
        Some((stage, _)) => stage.await,
        None => std::future::pending().await,
    }
}

fn lanes_of(group: &[Commit]) -> BTreeMap<(TenantId, Lane), (Arc<LaneShared>, Pos)> {
    group
        .iter()
        .map(|c| ((c.lane.shared.tenant, c.lane.lane), (c.lane.clone(), c.pos)))
        .collect()
}

fn head_row(lane: &LaneShared) -> RowKey {
    let key = LaneKey(lane.lane);
    let (bytes, _) = table::key_of::<LaneHeads>(lane.shared.tenant, &key);
    RowKey {
        family: LaneHeads::FAMILY,
        slot: key.home().slot(),
        key: bytes.into(),
    }
}

fn check(request: &Request, stored: &BTreeMap<RowKey, Option<Bytes>>) -> Result<(), CommitError> {
    if let Some(why) = &request.lane.state.lock().stopped {
        return Err(why.clone());
    }
    for (row, condition, table) in &request.batch.conditions {
        let appended = request.lane.appended_value(row.family, &row.key);
        let value = appended.unwrap_or_else(|| stored.get(row).cloned().flatten());
        if !condition.holds(value.as_deref()) {
            return Err(CommitError::Conflict(table));
        }
    }
    Ok(())
}

/// Gives the request its position and lays its rows over the store.
fn append(request: Request) -> Commit {
    let Request {
        lane,
        mut batch,
        appended,
        durable,
    } = request;
    let pos = {
        let mut state = lane.state.lock();
        state.appended += 1;
        state.appended
    };
    let entry = std::mem::take(&mut batch.entry);
    batch.put::<LogTable>(
        &LogKey {
            lane: lane.lane,
            pos: At::Is(pos),
        },
        &entry,
    );
    let ops: Vec<Op> = std::mem::take(&mut batch.ops)
        .into_iter()
        .map(|op| op.at(pos))
        .collect();
    let conditions = batch
        .conditions
        .drain(..)
        .map(|(row, condition, _)| (row, condition))
        .collect();
    let mut overlay = lane.overlay.write();
    for op in &ops {
        match op {
            Op::Put(row, value) => {
                overlay.insert((row.family, row.key.clone()), (pos, Some(value.clone())));
            }
            Op::Delete(row) => {
                overlay.insert((row.family, row.key.clone()), (pos, None));
            }
            Op::DeleteRange(from, to) => overlay
                .range_mut((from.family, from.key.clone())..(from.family, to.clone()))
                .for_each(|(_, entry)| *entry = (pos, None)),
        }
    }
    drop(overlay);
    drop(appended.send(Ok(pos)));
    Commit {
        lane,
        pos,
        conditions,
        ops,
        entry,
        durable,
    }
}

/// One write a lane. A condition on a row that an earlier commit of the write has written was
/// checked against that when it was appended, and is not the engine's to check.
fn merge(group: &mut [Commit]) -> Vec<Write> {
    let mut writes: BTreeMap<(TenantId, Lane), (Write, HashSet<RowKey>, u64)> = BTreeMap::new();
    for commit in group {
        let id = (commit.lane.shared.tenant, commit.lane.lane);
        let (write, touched, _) = writes.entry(id).or_insert_with(|| {
            let fence = commit.lane.fence.clone();
            let write = Write {
                fence,
                first: commit.pos,
                last: commit.pos,
                conditions: Vec::new(),
                ops: Vec::new(),
            };
            (write, HashSet::new(), commit.lane.epoch)
        });
        write.last = commit.pos;
        write.conditions.extend(
            commit
                .conditions
                .drain(..)
                .filter(|(row, _)| !touched.contains(row)),
        );
        for op in commit.ops.drain(..) {
            if let Op::Put(row, _) | Op::Delete(row) = &op {
                touched.insert(row.clone());
            }
            write.ops.push(op);
        }
    }
    writes
        .into_iter()
        .map(|((tenant, lane), (mut write, _, epoch))| {
            let key = LaneKey(lane);
            let (bytes, _) = table::key_of::<LaneHeads>(tenant, &key);
            let row = RowKey {
                family: LaneHeads::FAMILY,
                slot: key.home().slot(),
                key: bytes.into(),
            };
            let head = table::write_value::<LaneHeads>(&Head {
                pos: write.last,
                epoch,
            });
            write.ops.push(Op::Put(row, head.into()));
            write
        })
        .collect()
}
