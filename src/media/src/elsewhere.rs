//! The one trait by which media asks the world outside; the composition puts federation and the web behind it.

use std::time::Duration;

use async_trait::async_trait;

use crate::{Described, Mxc, Pieces};

/// What other servers have.
#[async_trait]
pub trait Elsewhere: Send + Sync + 'static {
    /// A file of another server, of at most `most` bytes. That server may `wait` so long for it to be uploaded.
    ///
    /// # Errors
    /// [`NotFetched`].
    async fn media(&self, mxc: &Mxc, wait: Duration, most: u64) -> Result<Fetched, NotFetched>;

    /// What an address of the web names, a page or a file of at most so many bytes.
    ///
    /// # Errors
    /// [`NotFetched`].
    async fn page(&self, address: &str, most: u64) -> Result<Page, NotFetched>;
}

/// A page or a file of the web.
pub struct Page {
    /// Where it was found at last.
    pub address: String,
    /// It.
    pub file: Fetched,
}

/// A file on its way here.
pub struct Fetched {
    /// What is said of it.
    pub described: Described,
    /// Its bytes.
    pub body: Pieces,
}

/// Why a file isn't on its way here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotFetched {
    /// Its server doesn't have it.
    #[error("There is no such media")]
    NotFound,
    /// Its server waits for it.
    #[error("The media has not been uploaded yet")]
    NotYetUploaded,
    /// Longer than is taken.
    #[error("The file is too large")]
    TooLarge,
    /// Its server can't be reached, or makes no sense. For the operator.
    #[error("{0}")]
    Unreachable(String),
}
