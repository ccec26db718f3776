//! Batches with their positions, and how those of a group become one write a lane.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use tokio::sync::oneshot;

use crate::{
    batch::Batch,
    claim::row_of,
    committer::Request,
    engine::{Condition, Op, RowKey, Write},
    error::CommitError,
    heads::Pos,
    key::{At, Lane, TenantId},
    lane::{LaneShared, Standing},
    log::{Entry, LogKey, LogTable},
    system::{Head, LaneHeads, LaneKey},
    table,
};

/// A lane of a tenant.
pub(crate) type LaneId = (TenantId, Lane);

/// A batch with its position.
pub(crate) struct Commit {
    pub lane: Arc<LaneShared>,
    pub pos: Pos,
    conditions: Vec<(RowKey, Condition)>,
    ops: Vec<Op>,
    pub entry: Entry,
    /// What its rows weigh in memory.
    pub bytes: usize,
    pub durable: oneshot::Sender<Result<Pos, CommitError>>,
}

impl Commit {
    /// Gives the request its position and lays its rows over the store.
    pub fn append(request: Request) -> Self {
        let Request {
            lane,
            mut batch,
            last,
            appended,
            durable,
        } = request;
        let (pos, after) = {
            let mut state = lane.state.lock();
            let (pos, after) = (state.next, state.appended);
            state.next += 1;
            state.appended = pos;
            if last {
                state.standing =
                    Standing::Closed(CommitError::NotApplied("the store is closed".into()));
            }
            (pos, after)
        };
        batch.entry.after = after;
        let (ops, conditions, entry) = place(batch, lane.lane, pos);
        lane.overlay.write().lay(pos, &ops);
        lane.shared.count_written(ops.len());
        if appended.send(Ok(pos)).is_err() {
            // Who waited went away just now: whoever came next may have read without it.
            lane.state.lock().losses += 1;
        }
        Self {
            bytes: ops.iter().map(weight).sum(),
            lane,
            pos,
            conditions,
            ops,
            entry,
            durable,
        }
    }

    pub fn lane_id(&self) -> LaneId {
        (self.lane.shared.tenant, self.lane.lane)
    }

    /// Answers whoever waits, if anyone still does.
    pub fn answer(self, outcome: Result<Pos, CommitError>) {
        drop(self.durable.send(outcome));
    }
}

type Placed = (Vec<Op>, Vec<(RowKey, Condition)>, Entry);

/// The batch's rows and its log row at the position.
fn place(mut batch: Batch, lane: Lane, pos: Pos) -> Placed {
    let entry = std::mem::take(&mut batch.entry);
    let key = LogKey {
        lane,
        pos: At::Is(pos),
    };
    batch.put::<LogTable>(&key, &entry);
    let ops = batch.ops.into_iter().map(|op| op.at(pos)).collect();
    let conditions = batch.conditions.into_iter();
    let conditions = conditions.map(|(row, condition, _)| (row, condition));
    (ops, conditions.collect(), entry)
}

fn weight(op: &Op) -> usize {
    match op {
        Op::Put(row, value) => row.key.len() + value.len(),
        Op::Delete(row) => row.key.len(),
        Op::DeleteRange(row, to) => row.key.len() + to.len(),
    }
}

/// The lanes of a group with their last positions in it.
pub(crate) fn lanes_of(group: &[Commit]) -> BTreeMap<LaneId, (Arc<LaneShared>, Pos)> {
    group
        .iter()
        .map(|c| (c.lane_id(), (c.lane.clone(), c.pos)))
        .collect()
}

/// What an earlier commit of a group has written.
#[derive(Default)]
struct Touched {
    rows: HashSet<RowKey>,
    ranges: Vec<(RowKey, bytes::Bytes)>,
}

impl Touched {
    fn holds(&self, row: &RowKey) -> bool {
        self.rows.contains(row)
            || self
                .ranges
                .iter()
                .any(|(from, to)| from.family == row.family && from.key <= row.key && row.key < *to)
    }

    fn add(&mut self, op: &Op) {
        match op {
            Op::Put(row, _) | Op::Delete(row) => drop(self.rows.insert(row.clone())),
            Op::DeleteRange(row, to) => self.ranges.push((row.clone(), to.clone())),
        }
    }
}

/// One write a lane, its head row last. A condition on a row that an earlier commit of the write
/// has written was checked against that when it was appended, and is not the engine's to check.
pub(crate) fn merge(group: &mut [Commit]) -> Vec<Write> {
    let mut writes: BTreeMap<LaneId, (Write, Touched, u64)> = BTreeMap::new();
    for commit in group {
        let (write, touched, _) = writes.entry(commit.lane_id()).or_insert_with(|| {
            let claim = commit.lane.claim();
            let write = Write {
                fence: claim.fence,
                first: commit.pos,
                last: commit.pos,
                conditions: Vec::new(),
                ops: Vec::new(),
            };
            (write, Touched::default(), claim.epoch)
        });
        write.last = commit.pos;
        let conditions = commit.conditions.drain(..);
        write
            .conditions
            .extend(conditions.filter(|(row, _)| !touched.holds(row)));
        for op in commit.ops.drain(..) {
            touched.add(&op);
            write.ops.push(op);
        }
    }
    writes
        .into_iter()
        .map(|((tenant, lane), (mut write, _, epoch))| {
            let pos = write.last;
            let head = table::write_value::<LaneHeads>(&Head { pos, epoch });
            let row = row_of::<LaneHeads>(tenant, &LaneKey(lane));
            write.ops.push(Op::Put(row, head.into()));
            write
        })
        .collect()
}
