//! The engines behind one face: memory, RocksDB, PostgreSQL.
//!
//! An engine knows bytes: it reads rows, scans ranges both ways, and applies a [`Write`] whole or
//! not at all. What a row means, who may write it and when it may be seen is decided above.

use std::sync::Arc;

use bytes::Bytes;

pub mod memory;
pub mod postgres;
pub mod rocks;

pub use memory::Memory;
pub use postgres::Postgres;
pub use rocks::Rocks;

use crate::{
    error::{CommitError, ReadError},
    heads::Pos,
    key::{Lane, Slot, TenantId},
    table::Family,
};

/// The address of a row: the slot says where an engine spread over servers keeps it; family and
/// key alone are unique.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct RowKey {
    /// The family.
    pub family: Family,
    /// The home's slot.
    pub slot: Slot,
    /// Tenant, table and fields.
    pub key: Bytes,
}

/// A range of one family's keys.
#[derive(Clone, Debug)]
pub struct Scan {
    /// The family.
    pub family: Family,
    /// The slot that all the rows are in; `None` when they may be in any.
    pub slot: Option<Slot>,
    /// First key, inclusive.
    pub from: Bytes,
    /// Last key, exclusive.
    pub to: Bytes,
    /// From the end.
    pub reverse: bool,
    /// Rows at the most.
    pub limit: usize,
}

/// A change of one row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Write the value.
    Put(RowKey, Bytes),
    /// Remove the row.
    Delete(RowKey),
    /// Remove every row of the family in the slot with `from <= key < to`.
    DeleteRange(RowKey, Bytes),
}

/// A condition on a row, as the engine sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// There is no such row.
    Absent,
    /// The row carries this position.
    At(Pos),
}

impl Condition {
    /// Whether it holds of these stored bytes.
    pub fn holds(&self, stored: Option<&[u8]>) -> bool {
        match (self, stored) {
            (Self::Absent, None) => true,
            (Self::At(pos), Some(value)) => value.get(1..9) == Some(pos.to_be_bytes().as_slice()),
            _ => false,
        }
    }
}

/// The claim to a lane that each write carries: the epoch row must hold this epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fence {
    /// Whose lane.
    pub tenant: TenantId,
    /// Which lane.
    pub lane: Lane,
    /// The row that holds the epoch.
    pub row: RowKey,
    /// The epoch, as stored.
    pub epoch: Bytes,
}

/// Commits of one lane, merged: applied whole or not at all.
#[derive(Clone, Debug)]
pub struct Write {
    /// Whose claim.
    pub fence: Fence,
    /// The first position written.
    pub first: Pos,
    /// The last position written.
    pub last: Pos,
    /// What must hold of rows not written earlier in the same write.
    pub conditions: Vec<(RowKey, Condition)>,
    /// The changes, in order; the last one to a row wins.
    pub ops: Vec<Op>,
}

/// A store's engine.
#[derive(Clone, Debug)]
pub enum Engine {
    /// Ordered maps in memory, with a notion of what a crash would lose.
    Memory(Memory),
    /// A folder on this machine's disk.
    Rocks(Rocks),
    /// A PostgreSQL database.
    Postgres(Postgres),
}

impl Engine {
    /// Values of these rows, in order.
    pub async fn get_many(&self, keys: &[RowKey]) -> Result<Vec<Option<Bytes>>, ReadError> {
        match self {
            Self::Memory(engine) => engine.get_many(keys).await,
            Self::Rocks(engine) => engine.get_many(keys).await,
            Self::Postgres(engine) => engine.get_many(keys).await,
        }
    }

    /// Rows of these ranges, in order of the ranges and within each in the order asked.
    pub async fn scan_many(&self, scans: &[Scan]) -> Result<Vec<Vec<(Bytes, Bytes)>>, ReadError> {
        match self {
            Self::Memory(engine) => engine.scan_many(scans).await,
            Self::Rocks(engine) => engine.scan_many(scans).await,
            Self::Postgres(engine) => engine.scan_many(scans).await,
        }
    }

    /// Takes a lane: puts the epoch row if the stored one is `expected`. The claims of earlier
    /// owners end with it.
    pub async fn claim(
        &self,
        row: &RowKey,
        expected: Option<&Bytes>,
        epoch: &Bytes,
    ) -> Result<(), CommitError> {
        match self {
            Self::Memory(engine) => engine.claim(row, expected, epoch).await,
            Self::Rocks(engine) => engine.claim(row, expected, epoch).await,
            Self::Postgres(engine) => engine.claim(row, expected, epoch).await,
        }
    }

    /// Applies the writes: on `Ok` they can be read, and a crash may still lose them. Writes of
    /// several lanes come together only where [`Engine::groups_lanes`] says so; then all are
    /// applied or none.
    pub async fn apply(&self, writes: Arc<[Write]>) -> Result<(), CommitError> {
        match self {
            Self::Memory(engine) => engine.apply(&writes).await,
            Self::Rocks(engine) => engine.apply(writes).await,
            Self::Postgres(engine) => engine.apply(&writes).await,
        }
    }

    /// Makes all that was applied before the call durable.
    pub async fn sync(&self) -> Result<(), CommitError> {
        match self {
            Self::Memory(engine) => engine.sync().await,
            Self::Rocks(engine) => engine.sync().await,
            Self::Postgres(engine) => engine.sync().await,
        }
    }

    /// Whether one write-ahead log serves all lanes, so that their commits share a sync.
    pub fn groups_lanes(&self) -> bool {
        match self {
            Self::Memory(_) | Self::Rocks(_) => true,
            Self::Postgres(_) => false,
        }
    }

    /// Whether a failed write or sync leaves the process unable to say what is durable, so that
    /// it must end at once (law 4).
    pub fn failure_is_fatal(&self) -> bool {
        match self {
            Self::Memory(_) | Self::Postgres(_) => false,
            Self::Rocks(_) => true,
        }
    }
}
