//! One accepted change: rows of exactly one lane, with the conditions it rests on (law 1).

use bytes::Bytes;

use crate::{
    engine::{Condition, Op, RowKey},
    error::CommitError,
    heads::Pos,
    key::{Home, Key, KeyWriter, Lane, Lanes, MAX_KEY, TenantId},
    log::{Entry, Owed, Record},
    table::{self, Table, VALUE_STAMP},
};

/// What a decision relied on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// There was no such row.
    Absent,
    /// The row carried this position ([`crate::Row::pos`]).
    At(Pos),
}

/// A change in the making. A row of another lane spoils the batch: its commit is refused.
#[derive(Debug)]
pub struct Batch {
    tenant: TenantId,
    lanes: Lanes,
    lane: Lane,
    pub(crate) ops: Vec<Staged>,
    pub(crate) conditions: Vec<(RowKey, Condition, &'static str)>,
    pub(crate) entry: Entry,
    /// The lane's count of losses that what it rests on was read under.
    pub(crate) read_under: Option<u64>,
    fault: Option<CommitError>,
}

/// An operation whose row still lacks the commit's position.
#[derive(Debug)]
pub(crate) enum Staged {
    Put {
        row: RowKey,
        key_stamp: Option<usize>,
        value: Vec<u8>,
        stamped: bool,
    },
    Delete(RowKey),
    DeleteRange(RowKey, Bytes),
}

impl Staged {
    /// The operation at that position.
    pub(crate) fn at(self, pos: Pos) -> Op {
        match self {
            Self::Put {
                mut row,
                key_stamp,
                mut value,
                stamped,
            } => {
                if let Some(at) = key_stamp {
                    let mut key = row.key.to_vec();
                    stamp(&mut key, at, pos);
                    row.key = key.into();
                }
                if stamped {
                    stamp(&mut value, VALUE_STAMP, pos);
                }
                Op::Put(row, value.into())
            }
            Self::Delete(row) => Op::Delete(row),
            Self::DeleteRange(row, to) => Op::DeleteRange(row, to),
        }
    }
}

fn stamp(bytes: &mut [u8], at: usize, pos: Pos) {
    if let Some(field) = bytes.get_mut(at..at + 8) {
        field.copy_from_slice(&pos.to_be_bytes());
    }
}

impl Batch {
    pub(crate) fn new(tenant: TenantId, lanes: Lanes, lane: Lane) -> Self {
        let (ops, conditions, entry, fault) = (Vec::new(), Vec::new(), Entry::default(), None);
        Self {
            tenant,
            lanes,
            lane,
            ops,
            conditions,
            entry,
            read_under: None,
            fault,
        }
    }

    /// Refuses the batch where the lane has lost appended commits since its [`crate::LaneWriter::losses`]
    /// were this many: what was read then may never have been.
    pub fn unless_lost_since(&mut self, losses: u64) -> &mut Self {
        self.read_under = Some(losses);
        self
    }

    /// The lane whose rows it may hold.
    pub fn lane(&self) -> Lane {
        self.lane
    }

    /// Writes a row.
    pub fn put<T: Table>(&mut self, key: &T::Key, value: &T::Value) -> &mut Self {
        if let Some((row, key_stamp)) = self.row::<T>(key) {
            let value = table::write_value::<T>(value);
            self.ops.push(Staged::Put {
                row,
                key_stamp,
                value,
                stamped: T::STAMPED,
            });
        }
        self
    }

    /// Removes a row.
    pub fn delete<T: Table>(&mut self, key: &T::Key) -> &mut Self {
        if let Some((row, _)) = self.row::<T>(key) {
            self.ops.push(Staged::Delete(row));
        }
        self
    }

    /// Removes all rows of the table whose fields begin as `prefix` writes them.
    pub fn delete_all<T: Table>(
        &mut self,
        home: Home<'_>,
        prefix: impl FnOnce(&mut KeyWriter),
    ) -> &mut Self {
        let mut from = KeyWriter::new(self.tenant, T::TAG);
        prefix(&mut from);
        let (from, _) = from.finish();
        let to = after_prefix(&from);
        if let Some(row) = self.place::<T>(home, from) {
            self.ops.push(Staged::DeleteRange(row, to));
        }
        self
    }

    /// Removes the rows of the table from where `prefix` begins up to, and without, what `until` adds to it.
    pub fn delete_until<T: Table>(
        &mut self,
        home: Home<'_>,
        prefix: impl Fn(&mut KeyWriter),
        until: impl FnOnce(&mut KeyWriter),
    ) -> &mut Self {
        let mut from = KeyWriter::new(self.tenant, T::TAG);
        prefix(&mut from);
        let mut to = from.clone();
        until(&mut to);
        let ((from, _), (to, _)) = (from.finish(), to.finish());
        if let Some(row) = self.place::<T>(home, from) {
            self.ops.push(Staged::DeleteRange(row, to.into()));
        }
        self
    }

    /// Makes the commit depend on what was read of a row. A table whose rows carry no position
    /// can only be asked for absence.
    pub fn expect<T: Table>(&mut self, key: &T::Key, expect: Expect) -> &mut Self {
        if !T::STAMPED && expect != Expect::Absent {
            self.fault.get_or_insert(CommitError::Unstamped(T::NAME));
            return self;
        }
        if let Some((row, _)) = self.row::<T>(key) {
            let condition = match expect {
                Expect::Absent => Condition::Absent,
                Expect::At(pos) => Condition::At(pos),
            };
            self.conditions.push((row, condition, T::NAME));
        }
        self
    }

    /// Tells the log, and so every consumer, what changed.
    pub fn log(&mut self, record: Record) -> &mut Self {
        self.entry.records.push(record);
        self
    }

    /// Owes another home's lane something.
    pub fn owe(&mut self, owed: Owed) -> &mut Self {
        self.entry.owed.push(owed);
        self
    }

    /// Why it can't be committed to that lane of that tenant, if so.
    pub(crate) fn refusal(&mut self, tenant: TenantId, lane: Lane) -> Option<CommitError> {
        if self.tenant != tenant {
            return Some(CommitError::WrongTenant);
        }
        if self.lane != lane {
            let (row, batch) = (self.lane, lane);
            return Some(CommitError::WrongLane { row, batch });
        }
        self.fault.take()
    }

    fn row<T: Table>(&mut self, key: &T::Key) -> Option<(RowKey, Option<usize>)> {
        let (bytes, key_stamp) = table::key_of::<T>(self.tenant, key);
        self.place::<T>(key.home(), bytes)
            .map(|row| (row, key_stamp))
    }

    fn place<T: Table>(&mut self, home: Home<'_>, key: Vec<u8>) -> Option<RowKey> {
        let slot = home.slot();
        let row = self.lanes.of(slot);
        if row != self.lane {
            self.fault.get_or_insert(CommitError::WrongLane {
                row,
                batch: self.lane,
            });
            return None;
        }
        if key.len() > MAX_KEY {
            self.fault.get_or_insert(CommitError::KeyTooLong(key.len()));
            return None;
        }
        Some(RowKey {
            family: T::FAMILY,
            slot,
            key: key.into(),
        })
    }
}

/// The first key after all that begin with `prefix`.
pub(crate) fn after_prefix(prefix: &[u8]) -> Bytes {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < 255 {
            end.push(last + 1);
            break;
        }
    }
    end.into()
}
