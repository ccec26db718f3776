//! Files that have no name yet: written, hashed and synced before they become blobs.

use std::{
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use futures_util::StreamExt;
use sha2::{Digest, Sha256};
use tokio::{fs::File, io::AsyncWriteExt};

use crate::{MediaError, Pieces, kind::HEAD, tables::Hash};

/// A file without a name, gone when this is.
pub(crate) struct Staged {
    path: PathBuf,
    name: String,
    pub hash: Hash,
    pub size: u64,
    /// Its first bytes.
    pub head: Vec<u8>,
}

impl Staged {
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What it is called where it lies.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        // It may have its name by now.
        drop(std::fs::remove_file(&self.path));
    }
}

/// A staged file being written.
pub(crate) struct Staging {
    file: std::fs::File,
    hash: Sha256,
    staged: Staged,
}

impl Staging {
    pub fn create(path: PathBuf, name: String) -> io::Result<Self> {
        let file = std::fs::File::options()
            .write(true)
            .create_new(true)
            .open(&path)?;
        Ok(Self {
            file,
            hash: Sha256::new(),
            staged: Staged {
                path,
                name,
                hash: Hash::default(),
                size: 0,
                head: Vec::new(),
            },
        })
    }

    fn note(&mut self, bytes: &[u8]) {
        let missing = HEAD.saturating_sub(self.staged.head.len());
        self.staged.head.extend(bytes.iter().take(missing));
        self.staged.size += bytes.len() as u64;
        self.hash.update(bytes);
    }

    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.note(bytes);
        self.file.write_all(bytes)
    }

    pub fn copy(&mut self, from: &mut impl Read) -> io::Result<()> {
        let mut buffer = vec![0; 64 << 10];
        loop {
            let read = from.read(&mut buffer)?;
            match buffer.get(..read) {
                None | Some([]) => return Ok(()),
                Some(bytes) => self.write(bytes)?,
            }
        }
    }

    /// Writes a body of at most `most` bytes, and syncs it.
    pub async fn fill(mut self, mut body: Pieces, most: u64) -> Result<Staged, MediaError> {
        let mut file = File::from_std(self.file.try_clone()?);
        while let Some(piece) = body.next().await {
            let piece = piece.map_err(|_| MediaError::Broken)?;
            self.note(&piece);
            if self.staged.size > most {
                return Err(MediaError::TooLarge);
            }
            file.write_all(&piece).await?;
        }
        file.flush().await?;
        file.sync_all().await?;
        Ok(self.done())
    }

    pub fn finish(self) -> io::Result<Staged> {
        self.file.sync_all()?;
        Ok(self.done())
    }

    fn done(mut self) -> Staged {
        self.staged.hash = self.hash.finalize().into();
        self.staged
    }
}
