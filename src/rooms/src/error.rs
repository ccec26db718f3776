//! Why a room operation can't be done, by what the asker must be told.

use comity_protocol::{
    auth::Rejection,
    event::{BuildError, FormatError},
};
use comity_storage::{CommitError, Damaged, ReadError};

use crate::state::TrieError;

/// A room operation failed.
#[derive(Debug, thiserror::Error)]
pub enum RoomError {
    /// There is no such room here, or the asker may not know of it.
    #[error("the room is not known here")]
    UnknownRoom,
    /// There is no such event in the room, or the asker may not see it.
    #[error("the event is not known here")]
    UnknownEvent,
    /// The room's rules forbid the event.
    #[error("not allowed: {0}")]
    Rejected(#[from] Rejection),
    /// Something other than the rules forbids it; the text is for the client.
    #[error("{0}")]
    Forbidden(&'static str),
    /// What was asked for is malformed; the text is for the client.
    #[error("{0}")]
    Invalid(&'static str),
    /// What was asked for is no event of the room's version.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// The name is taken.
    #[error("{0}")]
    Taken(&'static str),
    /// A stored row can't be read.
    #[error("a stored row is damaged: {0}")]
    Damaged(String),
    /// The store could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The change could not be committed.
    #[error(transparent)]
    Commit(#[from] CommitError),
}

impl From<TrieError<ReadError>> for RoomError {
    fn from(error: TrieError<ReadError>) -> Self {
        match error {
            TrieError::Source(error) => Self::Read(error),
            other => Self::Damaged(other.to_string()),
        }
    }
}

impl From<FormatError> for RoomError {
    fn from(error: FormatError) -> Self {
        Self::Build(error.into())
    }
}

impl From<Damaged> for RoomError {
    fn from(error: Damaged) -> Self {
        Self::Read(error.into())
    }
}
