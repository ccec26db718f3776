//! What can keep an operation on keys from happening, by what the client is to be told.

use comity_accounts::AccountError;
use comity_storage::{CommitError, ReadError};

/// Why an operation on keys was refused or failed. Says nothing of the keys.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// An object is not of the specified form (`M_BAD_JSON`).
    #[error("{0}")]
    BadJson(&'static str),
    /// A value can't be used (`M_INVALID_PARAM`).
    #[error("{0}")]
    Invalid(&'static str),
    /// Something that is needed isn't there (`M_MISSING_PARAM`).
    #[error("{0}")]
    Missing(&'static str),
    /// A signature is wrong, or by the wrong key (`M_INVALID_SIGNATURE`).
    #[error("{0}")]
    InvalidSignature(&'static str),
    /// This may not be done (`M_FORBIDDEN`).
    #[error("{0}")]
    Forbidden(&'static str),
    /// There is no such key (`M_NOT_FOUND`).
    #[error("{0}")]
    NotFound(&'static str),
    /// More, or larger, than is kept (`M_TOO_LARGE`).
    #[error("{0}")]
    TooLarge(&'static str),
    /// The accounts could not be asked.
    #[error(transparent)]
    Account(#[from] AccountError),
    /// The store could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The change could not be made.
    #[error(transparent)]
    Commit(#[from] CommitError),
}
