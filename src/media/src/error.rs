//! What can go wrong with media, by what its asker is told.

use std::{error::Error, io::ErrorKind};

use comity_storage::{CommitError, ReadError};

use crate::NotFetched;

/// Why there is no media, or no more of it.
#[derive(Clone, Debug, thiserror::Error)]
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
    #[error("too much is waiting for its turn")]
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

impl MediaError {
    /// Whether it says something of who asked, and nothing of what they asked for.
    pub(crate) fn is_the_askers(&self) -> bool {
        matches!(self, Self::FetchedTooMuch { .. })
    }
}

impl From<object_store::Error> for MediaError {
    fn from(error: object_store::Error) -> Self {
        // It went between the row that names it and the blob.
        if let object_store::Error::NotFound { .. } = error {
            return Self::NotFound;
        }
        let mut cause: Option<&(dyn Error + 'static)> = Some(&error);
        let mut failed = None;
        while let Some(one) = cause {
            failed = failed.or(one.downcast_ref::<std::io::Error>());
            cause = one.source();
        }
        match failed.map(std::io::Error::kind) {
            Some(kind) if is_full(kind) => Self::Full,
            _ => Self::Blob(error.to_string()),
        }
    }
}

impl From<std::io::Error> for MediaError {
    fn from(error: std::io::Error) -> Self {
        if is_full(error.kind()) {
            Self::Full
        } else {
            Self::Blob(error.to_string())
        }
    }
}

fn is_full(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Faults, a full disk: it is told from others however deep it lies, and so is a blob that has gone.
    #[test]
    fn what_the_disk_says() {
        let of = |kind: ErrorKind| object_store::Error::Generic {
            store: "x",
            source: Box::new(object_store::Error::Generic {
                store: "y",
                source: Box::new(std::io::Error::from(kind)),
            }),
        };
        let full = MediaError::from(of(ErrorKind::StorageFull));
        assert!(matches!(full, MediaError::Full));
        let other = MediaError::from(of(ErrorKind::PermissionDenied));
        assert!(matches!(other, MediaError::Blob(_)));
        let gone = object_store::Error::NotFound {
            path: String::new(),
            source: "x".into(),
        };
        assert!(matches!(MediaError::from(gone), MediaError::NotFound));
    }
}
