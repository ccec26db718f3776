//! What can go wrong with a store, by what the caller must do about it.

use crate::{key::Lane, table::Damaged};

/// A read failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ReadError {
    /// The bytes are not a row of this table.
    #[error(transparent)]
    Damaged(#[from] Damaged),
    /// The engine could not answer.
    #[error("the store could not be read: {0}")]
    Engine(String),
}

/// A commit did not happen, or may not have.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CommitError {
    /// A condition no longer held; nothing was written. Read again and decide anew.
    #[error("a condition of the commit no longer holds ({0})")]
    Conflict(&'static str),
    /// Another owner has the lane. This one must not write or answer any more.
    #[error("the lane has another owner")]
    Fenced,
    /// Nothing was written; what was chained on it is dropped too. Its position is not given
    /// again as long as this owner has the lane.
    #[error("the commit was not applied: {0}")]
    NotApplied(String),
    /// It can't be known whether it was written. The client may ask again by its transaction id.
    #[error("the outcome of the commit is unknown: {0}")]
    Unknown(String),
    /// A row was put into a batch of another lane: a fault of the program.
    #[error("a row of lane {row:?} in a batch of lane {batch:?}")]
    WrongLane {
        /// The lane the row belongs to.
        row: Lane,
        /// The lane of the batch.
        batch: Lane,
    },
    /// A batch of one tenant given to another's lane: a fault of the program.
    #[error("a batch of another tenant")]
    WrongTenant,
    /// A condition on the position of a row that carries none: a fault of the program.
    #[error("rows of {0} carry no position to expect")]
    Unstamped(&'static str),
    /// A key longer than engines take: a fault of the program.
    #[error("a key of {0} bytes")]
    KeyTooLong(usize),
    /// What the decision needed could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// A store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The engine refused: the message says why and what to do.
    #[error("{0}")]
    Engine(String),
    /// A row needed at start can't be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The store was written by a newer build.
    #[error("the store's format is {found}, this build knows up to {known}: run a newer build")]
    TooNew {
        /// The store's.
        found: u8,
        /// Ours.
        known: u8,
    },
    /// The store has another number of lanes.
    #[error("the store has {found} lanes, the configuration says {asked}")]
    Lanes {
        /// The store's.
        found: u8,
        /// The configuration's.
        asked: u8,
    },
    /// What was said to be put back from a backup isn't there.
    #[error("the store is empty: put the backup back first")]
    Empty,
    /// Taking the lane failed.
    #[error(transparent)]
    Commit(#[from] CommitError),
}
