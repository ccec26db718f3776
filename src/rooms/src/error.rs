//! Why a room operation can't be done, by what the asker must be told.

use comity_protocol::{
    auth::Rejection,
    event::{BuildError, FormatError},
    room_version::RoomVersion,
    sign::SignatureError,
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
    /// A required part is missing or of the wrong shape (`M_BAD_JSON`); the text is for the client.
    #[error("{0}")]
    BadJson(&'static str),
    /// The version isn't known here (`M_UNSUPPORTED_ROOM_VERSION`).
    #[error("the room version is not supported")]
    UnsupportedVersion,
    /// The room is of a version that the asking server doesn't know
    /// (`M_INCOMPATIBLE_ROOM_VERSION`).
    #[error("the room is of version {}, which the asker does not support", .0.as_str())]
    IncompatibleVersion(RoomVersion),
    /// The servers that must sign an event haven't, as far as can be checked.
    #[error("the event's signatures can't be accepted: {0}")]
    Signature(#[from] SignatureError),
    /// The state a new room is to begin with is not allowed by its own rules
    /// (`M_INVALID_ROOM_STATE`).
    #[error("the room's state would not be valid: {0}")]
    InvalidState(Rejection),
    /// Something only another server can do, and other servers aren't asked.
    #[error("{0}")]
    OtherServer(&'static str),
    /// The room isn't open to guests (`M_GUEST_ACCESS_FORBIDDEN`).
    #[error("guests may not join this room")]
    GuestAccess,
    /// Whether the user fulfils the room's conditions can't be told here
    /// (`M_UNABLE_TO_AUTHORISE_JOIN` to servers, `M_FORBIDDEN` to clients).
    #[error("this server can't tell whether the user may join")]
    UnableToAuthoriseJoin,
    /// The user may join, and nobody of this server can let them in (`M_UNABLE_TO_GRANT_JOIN` to
    /// servers, `M_FORBIDDEN` to clients).
    #[error("no user of this server may invite to the room")]
    UnableToGrantJoin,
    /// The user, whose server was asked, doesn't take the invite (`M_INVITE_BLOCKED`).
    #[error("the user doesn't take the invite")]
    InviteBlocked,
    /// Another server wants to be asked later (`M_LIMIT_EXCEEDED`).
    #[error("the other server has been asked too often")]
    LimitExceeded {
        /// In so many milliseconds.
        retry_after_ms: u64,
    },
    /// The room's policy server doesn't recommend the event, in its own words (`M_FORBIDDEN`).
    #[error("the room's policy server refuses the event: {0}")]
    NotRecommended(String),
    /// The room's policy server can't be asked now, and nothing is said without its word (`M_FORBIDDEN`).
    #[error("the room's policy server could not be reached")]
    PolicyServerSilent,
    /// A room one is still in can't be forgotten (`M_UNKNOWN`).
    #[error("the user has not left the room")]
    NotLeft,
    /// There is no such alias (`M_NOT_FOUND`).
    #[error("the alias is not known here")]
    UnknownAlias,
    /// An alias leads nowhere, or to another room (`M_BAD_ALIAS`).
    #[error("the alias does not lead to this room")]
    BadAlias,
    /// The sender has made the same annotation before (`M_DUPLICATE_ANNOTATION`).
    #[error("the event is annotated like that already")]
    DuplicateAnnotation,
    /// What was asked for is no event of the room's version.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// The name is taken (`M_ROOM_IN_USE`).
    #[error("{0}")]
    Taken(&'static str),
    /// What it takes isn't known yet: the room's state is still being completed. It can be asked for
    /// again (`M_UNKNOWN`, 503).
    #[error("the room's state is still being completed")]
    Incomplete,
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
