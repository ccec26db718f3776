//! Which media there is, and its bytes.

use std::{ops::Range, time::Duration};

use comity_protocol::id::UserId;
use comity_storage::Key;
use tokio::{sync::Notify, time::Instant};
use url::Url;

use crate::{
    Content, Media, MediaError, Mxc, Pieces, Served,
    tables::{MediaKey, Medias},
};

/// The longest wait for media that is yet to be uploaded.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// How media is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted<'a> {
    /// How long to wait for it to be uploaded.
    pub(crate) wait: Duration,
    /// Whose turn it takes where things are done in turn: a user, a server.
    pub(crate) asker: &'a str,
    /// Whether it is fetched, if it is another server's and not here.
    pub(crate) fetch: bool,
}

impl<'a> Wanted<'a> {
    /// With this wait.
    pub fn within(wait: Duration) -> Self {
        Self {
            wait,
            asker: "",
            fetch: false,
        }
    }

    /// By this user, or server.
    #[must_use]
    pub fn by(self, asker: &'a str) -> Self {
        Self { asker, ..self }
    }

    /// Fetched from elsewhere if need be, for this user.
    #[must_use]
    pub fn fetched_for(self, user: &'a UserId) -> Self {
        Self {
            fetch: true,
            ..self.by(user.as_str())
        }
    }
}

impl Default for Wanted<'_> {
    /// <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1mediadownloadservernamemediaid>: `timeout_ms`.
    fn default() -> Self {
        Self::within(Duration::from_secs(20))
    }
}

/// Wakes who waits for an upload.
#[derive(Default)]
pub(crate) struct Arrivals(Notify);

impl Arrivals {
    pub fn tell(&self) {
        self.0.notify_waiters();
    }
}

impl Media {
    /// What a piece of media is.
    ///
    /// # Errors
    /// [`MediaError::NotFound`], [`MediaError::NotYetUploaded`]; the store's.
    pub async fn find(&self, mxc: &Mxc, wanted: Wanted<'_>) -> Result<Content, MediaError> {
        Ok(self.find_row(mxc, wanted).await?.0)
    }

    /// And the position of its row.
    pub(crate) async fn find_row(
        &self,
        mxc: &Mxc,
        wanted: Wanted<'_>,
    ) -> Result<(Content, u64), MediaError> {
        if *mxc.server() != *self.0.config.server_name {
            return self.find_remote(mxc, wanted).await;
        }
        let key = MediaKey::from(mxc);
        let until = Instant::now() + wanted.wait.min(LONGEST_WAIT);
        loop {
            // Before the row is read: an upload is seen by one or the other.
            let mut arrived = std::pin::pin!(self.0.arrivals.0.notified());
            arrived.as_mut().enable();
            let row = self.0.tenant.reader().get::<Medias>(&key).await?;
            let row = row.filter(|row| !row.value.quarantined);
            let row = row.ok_or(MediaError::NotFound)?;
            if let Some(content) = row.value.content {
                // Within a sync of the disk.
                self.0.tenant.settled(key.home(), row.pos).await;
                // A page's picture.
                if row.value.uploader.is_none() {
                    self.looked_at(&key).await?;
                }
                return Ok((content, row.pos));
            }
            if row.value.expires_ts <= self.now_ms() {
                return Err(MediaError::NotFound);
            }
            if tokio::time::timeout_at(until, arrived).await.is_err() {
                return Err(MediaError::NotYetUploaded);
            }
        }
    }

    /// Its bytes, or a part of them. What is damaged breaks off before its end.
    ///
    /// # Errors
    /// The disk's.
    pub async fn read(
        &self,
        content: &Content,
        part: Option<Range<u64>>,
    ) -> Result<Pieces, MediaError> {
        self.0.blobs.read(&content.hash, content.size, part).await
    }

    /// Where the asker of its bytes can be sent for them, if they are to be.
    pub fn link(&self, content: &Content, served: Served<'_>) -> Option<Url> {
        self.0.blobs.link(&content.hash, served, self.now_ms())
    }
}
