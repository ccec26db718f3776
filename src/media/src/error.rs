//! What can go wrong with media, by what its asker is told.

use std::io::ErrorKind;

use comity_storage::{CommitError, ReadError};

use crate::NotFetched;

/// Why there is no media, or no more of it.
#[derive(Debug, thiserror::Error)]
pub enum MediaError {
    /// There is none, or none any more.
    #[error("There is no such media")]
    NotFound,
    /// Its id was given and nothing uploaded within the time that its asker would wait.
    #[error("The media has not been uploaded yet")]
    NotYetUploaded,
    /// It has content, which stays.
    #[error("The media has been uploaded already")]
    CannotOverwrite,
    /// Another user's id was given for it.
    #[error("This media id was given to another user")]
    NotYours,
    /// Longer than is taken.
    #[error("The file is too large")]
    TooLarge,
    /// The user has uploaded as much as they may.
    #[error("You have uploaded as much as you may")]
    Quota,
    /// The user has as many ids without content as they may.
    #[error("You have too many uploads that have not begun")]
    TooManyPending,
    /// A thumbnail without pixels.
    #[error("A thumbnail has a width and a height")]
    NoSize,
    /// No picture, or none that can be read.
    #[error("There can be no thumbnail of this")]
    NoPicture,
    /// A picture of more pixels than are decoded.
    #[error("The picture is too large for a thumbnail")]
    PictureTooLarge,
    /// As many as may wait are waiting.
    #[error("too many pictures wait to be made smaller")]
    Busy,
    /// Pages aren't previewed here.
    #[error("URL previews are switched off")]
    NoPreviews,
    /// No page that can be had. Why is for the operator: users learn nothing of the network that the server is in.
    #[error("There is no page at this address")]
    NoPage(NotFetched),
    /// No address of a page.
    #[error("There can be no page at this address")]
    BadAddress,
    /// A user has fetched as much of other servers' media as they may for now.
    #[error("You have asked for too much of other servers' media")]
    FetchedTooMuch {
        /// When to try again.
        retry_after_ms: u64,
    },
    /// Another server doesn't give it.
    #[error(transparent)]
    NotFetched(#[from] NotFetched),
    /// What was sent didn't arrive whole.
    #[error("The upload broke off")]
    Broken,
    /// The disk is full.
    #[error("there is no room left for media")]
    Full,
    /// A blob or a staged file can't be read or written.
    #[error("a blob: {0}")]
    Blob(String),
    /// The service that keeps the blobs doesn't answer, or not well.
    #[error("Files can't be reached right now, try again later")]
    Bucket(String),
    /// No bucket can be of this name, or at this address.
    #[error("the bucket's name, region or endpoint is none")]
    NoBucket,
    /// The process is ending.
    #[error("the server is stopping")]
    Stopped,
    /// The store can't be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The store can't be written.
    #[error(transparent)]
    Commit(#[from] CommitError),
}

impl From<object_store::Error> for MediaError {
    fn from(error: object_store::Error) -> Self {
        Self::Blob(error.to_string())
    }
}

impl From<std::io::Error> for MediaError {
    fn from(error: std::io::Error) -> Self {
        match error.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Self::Full,
            _ => Self::Blob(error.to_string()),
        }
    }
}
