//! What can keep an account operation from happening, by what the client is to be told.

use comity_runtime::PoolError;
use comity_storage::{CommitError, ReadError};

/// Why an operation on accounts was refused or failed. The client API gives each its Matrix error code.
#[derive(Debug, Clone, thiserror::Error)]
pub enum AccountError {
    /// The localpart breaks the rules (`M_INVALID_USERNAME`).
    #[error("{0}")]
    InvalidUsername(&'static str),
    /// The user id is taken (`M_USER_IN_USE`).
    #[error("User ID already taken.")]
    UserInUse,
    /// Registration is closed, or not for guests (`M_FORBIDDEN`).
    #[error("{0}")]
    RegistrationRefused(&'static str),
    /// Wrong credentials: the same for a wrong password and an unknown user (`M_FORBIDDEN`).
    #[error("Invalid username or password.")]
    WrongCredentials,
    /// The request may not do this (`M_FORBIDDEN`).
    #[error("{0}")]
    Forbidden(&'static str),
    /// A value in the request can't be used (`M_INVALID_PARAM`).
    #[error("{0}")]
    InvalidParam(&'static str),
    /// A value is larger than it may be (`M_TOO_LARGE`).
    #[error("{0}")]
    TooLarge(&'static str),
    /// A profile field's name is longer than it may be (`M_KEY_TOO_LARGE`).
    #[error("The field name is too long.")]
    KeyTooLarge,
    /// The profile as a whole would be larger than it may be (`M_PROFILE_TOO_LARGE`).
    #[error("The profile is too large.")]
    ProfileTooLarge,
    /// What was asked for isn't there (`M_NOT_FOUND`).
    #[error("{0} not found.")]
    NotFound(&'static str),
    /// The token is not, or no longer, good (`M_UNKNOWN_TOKEN`, 401).
    #[error("Unknown or expired token.")]
    UnknownToken {
        /// Whether the device is still there and only has to sign in again or refresh.
        soft_logout: bool,
    },
    /// The account is locked (`M_USER_LOCKED`, 401, soft logout).
    #[error("This account is locked.")]
    Locked,
    /// The account is gone (`M_USER_DEACTIVATED`).
    #[error("This account has been deactivated.")]
    Deactivated,
    /// Too many requests (`M_LIMIT_EXCEEDED`, 429).
    #[error("Too many requests.")]
    LimitExceeded {
        /// How long to wait.
        retry_after_ms: u64,
    },
    /// The user-interactive session is unknown, over, or was begun for something else.
    #[error("{0}")]
    InteractiveAuth(&'static str),
    /// The server has more of this work than it may take on (503).
    #[error(transparent)]
    Busy(#[from] PoolError),
    /// The store could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The change could not be made.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// A fault of the program or its set-up; the text is for the operator.
    #[error("internal error: {0}")]
    Internal(&'static str),
}
