//! Blobs: files named by the SHA-256 of what is in them, on this disk or in a bucket.
//!
//! A blob is written to a staging file first, synced, and then moved to its name, or sent to the bucket, so there is never a part of
//! one under a name.
//! Who reads a whole blob never sees a byte too many of one that is damaged: the last piece is held back until the name is
//! found to be right.

use std::{
    collections::BTreeMap,
    io,
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use comity_runtime::Runtime;
use futures_util::{Stream, StreamExt, stream, stream::BoxStream};
use object_store::{
    GetOptions, ObjectStore, ObjectStoreExt,
    local::LocalFileSystem,
    memory::InMemory,
    path::{Path as Name, PathPart},
};
use sha2::{Digest, Sha256};
use tokio::sync::{Mutex, MutexGuard};
use url::Url;

use crate::{
    MediaError,
    bucket::{self, Bucket, Served},
    staging::{Staged, Staging},
    tables::Hash,
};

/// Pieces of a body, or of a blob. An error cuts it short.
pub type Pieces = BoxStream<'static, io::Result<Bytes>>;

/// Where files lie that have no name yet.
const STAGING: &str = "staging";
/// Blobs that are put and taken away under one lock.
const LOCKS: usize = 64;

/// The blobs of one tenant.
pub(crate) struct Blobs {
    folder: PathBuf,
    store: Arc<dyn ObjectStore>,
    /// Where they are, if not below `folder`.
    bucket: Option<Bucket>,
    locks: Vec<Mutex<()>>,
}

impl Blobs {
    /// Blobs in a folder, which is made, or in a bucket on their way through it; what was staged by a run before goes.
    pub fn open(folder: &Path, bucket: Option<Bucket>) -> Result<Self, MediaError> {
        let staging = folder.join(STAGING);
        if staging.exists() {
            std::fs::remove_dir_all(&staging)?;
        }
        std::fs::create_dir_all(&staging)?;
        let store: Arc<dyn ObjectStore> = match &bucket {
            Some(bucket) => bucket.store(),
            None => Arc::new(LocalFileSystem::new_with_prefix(folder)?.with_fsync(true)),
        };
        Ok(Self {
            folder: folder.to_owned(),
            store,
            bucket,
            locks: (0..LOCKS).map(|_| Mutex::default()).collect(),
        })
    }

    /// Blobs that are only looked at: nothing is made and nothing goes. Where there is no folder there are none.
    pub fn look(folder: &Path, bucket: Option<Bucket>) -> Result<Self, MediaError> {
        let store: Arc<dyn ObjectStore> = match &bucket {
            Some(bucket) => bucket.store(),
            None if folder.exists() => Arc::new(LocalFileSystem::new_with_prefix(folder)?),
            None => Arc::new(InMemory::new()),
        };
        Ok(Self {
            folder: folder.to_owned(),
            store,
            bucket,
            locks: Vec::new(),
        })
    }

    /// Whether a bucket can be used, if they are in one.
    pub async fn try_out(&self, runtime: &Runtime) -> Result<(), String> {
        match &self.bucket {
            Some(bucket) => bucket.try_out(runtime).await,
            None => Ok(()),
        }
    }

    /// The blobs whose hash begins with this byte: their names, in hexadecimal, and sizes in bytes.
    pub async fn list(&self, first: u8) -> Result<BTreeMap<String, u64>, MediaError> {
        let digits = hex(&[first]);
        let mut found = BTreeMap::new();
        let mut listed = self.store.list(Some(&self.below_blobs([&digits])));
        while let Some(blob) = listed.next().await {
            let blob = match blob {
                Ok(blob) => blob,
                Err(object_store::Error::NotFound { .. }) => break,
                Err(error) => return Err(self.failed(error)),
            };
            let file = blob.location.filename().unwrap_or_default();
            found.insert(format!("{digits}{file}"), blob.size);
        }
        Ok(found)
    }

    /// Writes a body of at most `most` bytes to a staging file of this name and syncs it.
    pub async fn stage(&self, name: &str, body: Pieces, most: u64) -> Result<Staged, MediaError> {
        let staging = Staging::create(self.staging(name), name.to_owned())?;
        staging.fill(body, most).await
    }

    /// Where a staged file of this name lies.
    pub fn staging(&self, name: &str) -> PathBuf {
        self.folder.join(STAGING).join(name)
    }

    /// Nobody else puts or takes away this blob while the guard is held.
    pub async fn lock(&self, hash: &Hash) -> Option<MutexGuard<'_, ()>> {
        let at = hash.first().map_or(0, |byte| usize::from(*byte) % LOCKS);
        match self.locks.get(at) {
            Some(lock) => Some(lock.lock().await),
            None => None,
        }
    }

    /// Makes a blob of a staged file. It is durable.
    pub async fn put(&self, staged: &Staged) -> Result<(), MediaError> {
        let name = self.name_of(&staged.hash);
        match &self.bucket {
            Some(bucket) => bucket.upload(staged, &name).await,
            None => {
                let from = Name::from_iter([STAGING, staged.name()]);
                Ok(self.store.rename(&from, &name).await?)
            }
        }
    }

    /// Where a blob can be read by whoever is told, for a while.
    pub fn link(&self, hash: &Hash, served: Served<'_>, now_ms: u64) -> Option<Url> {
        let bucket = self.bucket.as_ref()?;
        bucket.link(&self.name_of(hash), served, now_ms)
    }

    /// Takes a blob away. Who reads it goes on.
    pub async fn delete(&self, hash: &Hash) -> Result<(), MediaError> {
        match self.store.delete(&self.name_of(hash)).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(self.failed(error)),
        }
    }

    fn failed(&self, error: object_store::Error) -> MediaError {
        match self.bucket {
            Some(_) => bucket::failed(error),
            None => error.into(),
        }
    }

    /// A blob of `size` bytes, or a part of it.
    pub async fn read(
        &self,
        hash: &Hash,
        size: u64,
        part: Option<Range<u64>>,
    ) -> Result<Pieces, MediaError> {
        let whole = part.is_none();
        let options = GetOptions {
            range: part.map(Into::into),
            ..GetOptions::default()
        };
        let found = self.store.get_opts(&self.name_of(hash), options).await;
        let found = found.map_err(|error| self.failed(error))?;
        let pieces = found.into_stream().map(|piece| {
            piece.map_err(|error| {
                tracing::error!(%error, "a blob can't be read");
                io::Error::other("a blob can't be read")
            })
        });
        Ok(if whole {
            verified(pieces.boxed(), *hash, size)
        } else {
            pieces.boxed()
        })
    }

    /// `blobs/ab/cdef…`: two digits a folder, so that none grows without bound.
    fn name_of(&self, hash: &Hash) -> Name {
        let hex = hex(hash);
        let (folder, file) = hex.split_at(2);
        self.below_blobs([folder, file])
    }

    fn below_blobs<const N: usize>(&self, parts: [&str; N]) -> Name {
        let prefix = self.bucket.iter().flat_map(Bucket::prefix);
        let blobs = prefix.chain([PathPart::from("blobs")]);
        blobs.chain(parts.map(PathPart::from)).collect()
    }
}

/// In lower-case hexadecimal.
pub(crate) fn hex(hash: &[u8]) -> String {
    use std::fmt::Write;
    hash.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}"); // a String takes everything
        text
    })
}

/// Lets a piece go when the next has come, and the last when all of them are what the name says.
fn verified(pieces: Pieces, expected: Hash, size: u64) -> Pieces {
    struct Read {
        pieces: Pieces,
        hash: Sha256,
        left: u64,
        held: Option<Bytes>,
        done: bool,
    }
    let read = Read {
        pieces,
        hash: Sha256::new(),
        left: size,
        held: None,
        done: false,
    };
    let next = move |mut read: Read| async move {
        loop {
            if read.done {
                return Ok(None);
            }
            match read.pieces.next().await.transpose()? {
                Some(piece) => {
                    let length = piece.len() as u64;
                    read.left = read.left.checked_sub(length).ok_or_else(damaged)?;
                    read.hash.update(&piece);
                    if let Some(piece) = read.held.replace(piece) {
                        return Ok(Some((piece, read)));
                    }
                }
                None => {
                    let found: Hash = std::mem::take(&mut read.hash).finalize().into();
                    if found != expected {
                        return Err(damaged());
                    }
                    read.done = true;
                    if let Some(piece) = read.held.take() {
                        return Ok(Some((piece, read)));
                    }
                }
            }
        }
    };
    stream::try_unfold(read, next).boxed()
}

fn damaged() -> io::Error {
    tracing::error!("a blob is damaged: its bytes are not what its name says");
    io::Error::other("a blob is damaged")
}

/// A body that is in memory already.
pub fn whole(bytes: Bytes) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
    stream::iter([Ok(bytes)])
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read(blobs: &Blobs, hash: &Hash, size: u64) -> io::Result<Vec<u8>> {
        let mut pieces = blobs.read(hash, size, None).await.unwrap();
        let mut all = Vec::new();
        while let Some(piece) = pieces.next().await.transpose()? {
            all.extend_from_slice(&piece);
        }
        Ok(all)
    }

    /// Faults, bit flips: no wrong byte of media is served as if it were right.
    #[tokio::test]
    async fn a_damaged_blob_is_never_served_whole() {
        let folder = tempfile::tempdir().unwrap();
        let blobs = Blobs::open(folder.path(), None).unwrap();
        let content = Bytes::from(vec![7; 100_000]);
        let body = whole(content.clone()).boxed();
        let staged = blobs.stage("x", body, 100_000).await.unwrap();
        blobs.put(&staged).await.unwrap();
        let (hash, size) = (staged.hash, staged.size);
        drop(staged);
        assert_eq!(read(&blobs, &hash, size).await.unwrap(), content);
        let file = folder.path().join(blobs.name_of(&hash).to_string());
        for damage in [
            |bytes: &mut Vec<u8>| bytes[50_000] ^= 1,
            |bytes: &mut Vec<u8>| bytes[99_999] ^= 1,
            |bytes: &mut Vec<u8>| bytes.truncate(99_999),
            |bytes: &mut Vec<u8>| bytes.push(7),
        ] {
            let mut bytes = content.to_vec();
            damage(&mut bytes);
            std::fs::write(&file, bytes).unwrap();
            assert!(read(&blobs, &hash, size).await.is_err());
        }
    }

    /// H6, law 11: a body is cut at its bound, and what was staged of it goes.
    #[tokio::test]
    async fn what_is_too_long_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let blobs = Blobs::open(folder.path(), None).unwrap();
        let endless = stream::repeat_with(|| Ok(Bytes::from_static(&[0; 1000]))).boxed();
        let refused = blobs.stage("x", endless, 10_500).await;
        assert!(matches!(refused, Err(MediaError::TooLarge)));
        let staging = std::fs::read_dir(folder.path().join(STAGING)).unwrap();
        assert_eq!(staging.count(), 0);
    }
}
