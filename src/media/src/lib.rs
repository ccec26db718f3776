//! The content repository: what users upload, what other servers' users did, and what is made of it.
//!
//! ```text
//! upload ─▶ staging file (hashed, bounded) ─▶ blob, named by its hash ─▶ row: mxc:// → blob, type, name
//! ```
//!
//! [`Media`] is one tenant's; its methods stand in the file of their subject. The bytes are blobs on disk or in a bucket, each under the
//! hash of what it holds; the rows ([`tables`]) say which media there is and which blob has it. A row that names a blob is committed after
//! the blob is durable, so it never names one that isn't there.

#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing
    )
)]

mod allowance;
mod blobs;
mod bucket;
mod cache;
pub mod check;
mod elsewhere;
mod error;
mod flights;
mod kind;
pub mod metadata;
mod mxc;
mod place;
mod preview;
mod read;
mod remote;
mod removal;
mod staging;
pub mod tables;
mod thumbnail;
mod turns;
mod upload;
mod usage;

use std::{path::PathBuf, sync::Arc, time::Duration};

use comity_protocol::id::OwnedServerName;
use comity_runtime::{Pool, Runtime};
use comity_storage::Tenant;

pub use blobs::{Pieces, whole};
pub use bucket::{BucketConfig, Served, try_out};
pub use elsewhere::{Elsewhere, Fetched, NotFetched, Page};
pub use error::MediaError;
pub use kind::Kind;
pub use mxc::Mxc;
pub use preview::{Preview, Said, properties as page_properties};
pub use read::Wanted;
pub use tables::Content;
pub use thumbnail::{
    InProcess, RenderError, Rendered, Renderer, Size, Task, Unrendered, Workers, work,
};
pub use upload::{Created, Described};

/// What an operator decides about media.
#[derive(Clone, Debug)]
pub struct Config {
    /// The server name in our media's URIs.
    pub server_name: OwnedServerName,
    /// Where blobs are kept, and files on their way to be some.
    pub folder: PathBuf,
    /// Where blobs are kept instead.
    pub bucket: Option<BucketConfig>,
    /// The longest upload, in bytes.
    pub max_upload_bytes: u64,
    /// How many bytes a user may have uploaded altogether.
    pub max_user_bytes: Option<u64>,
    /// The longest file of another server, in bytes.
    pub max_remote_bytes: u64,
    /// How many bytes are kept of other servers' files, and of what was made of any.
    pub max_cache_bytes: u64,
    /// How many bytes of other servers' files a user may have fetched at once; it takes a quarter of an hour to have as many again.
    pub fetch_bucket_bytes: u64,
    /// Whether pages are previewed.
    pub previews: bool,
    /// How many ids a user may have that nothing was uploaded to yet.
    pub max_pending_uploads: usize,
    /// How long such an id waits for its upload.
    pub pending_lifetime: Duration,
}

/// One tenant's media. Cloning is one reference count.
#[derive(Clone)]
pub struct Media(Arc<Inner>);

struct Inner {
    tenant: Tenant,
    runtime: Runtime,
    config: Config,
    blobs: blobs::Blobs,
    /// Where files are read and written through by hand.
    files: Pool,
    arrivals: read::Arrivals,
    /// Whose files are on their way here.
    uploading: turns::Turns,
    /// Who changes what a user has uploaded.
    counting: turns::Turns,
    renderer: Arc<dyn Renderer>,
    fetching: remote::Fetching,
    cache: cache::Cache,
    thumbnails: thumbnail::Making,
    previews: preview::Previews,
}

/// Files that are gone through at once, and that wait for it.
const FILES: (usize, usize) = (2, 64);
/// Uploads of a user at once, and that wait for it.
const UPLOADS: (usize, usize) = (8, 92);
/// Changes of what a user has uploaded that wait for another.
const COUNTING: usize = 1_000;

impl Media {
    /// Opens a tenant's media, whose pictures `renderer` makes smaller. [`Media::resume`] is to be called before anything is uploaded.
    ///
    /// # Errors
    /// The folder can't be used; the bucket's configuration makes no sense.
    pub fn open(
        tenant: Tenant,
        config: Config,
        renderer: Arc<dyn Renderer>,
    ) -> Result<Self, MediaError> {
        let runtime = tenant.runtime().clone();
        let bucket = config.bucket.clone().map(bucket::Bucket::new);
        Ok(Self(Arc::new(Inner {
            blobs: blobs::Blobs::open(&config.folder, bucket.transpose()?)?,
            files: runtime.pool("media files", FILES.0, FILES.1),
            arrivals: read::Arrivals::default(),
            uploading: turns::Turns::new(UPLOADS.0, UPLOADS.1),
            counting: turns::Turns::new(1, COUNTING),
            renderer,
            fetching: remote::Fetching::new(&runtime, config.fetch_bucket_bytes),
            cache: cache::Cache::default(),
            thumbnails: thumbnail::Making::new(&runtime),
            previews: preview::Previews::new(&runtime),
            tenant,
            runtime,
            config,
        })))
    }

    /// The longest upload, in bytes.
    pub fn max_upload_bytes(&self) -> u64 {
        self.0.config.max_upload_bytes
    }

    fn now_ms(&self) -> u64 {
        self.0.runtime.clock().now_ms()
    }

    /// A media id nobody has guessed.
    fn new_id(&self) -> String {
        self.0.runtime.random().alphanumeric(24)
    }

    /// An id of ours, as all know it.
    fn own(&self, id: &str) -> Result<Mxc, MediaError> {
        Mxc::new(self.0.config.server_name.as_str(), id).ok_or(MediaError::NotFound)
    }
}
