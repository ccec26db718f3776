//! Server-side backups of room keys: what lets a new device read old messages.
//!
//! A user has versions of a backup, of which the newest takes keys; each key is that of one megolm session of one room,
//! encrypted by the client. All that the server decides is which of two keys of a session is the better one ([`Session`]'s
//! numbers say so). All rows are in the user's lane; whatever changes a backup's keys rewrites the backup's own row under the
//! condition that nobody else did, so the count and the etag are always those of the keys that are there.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#server-side-key-backups>

#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing
    )
)]

pub mod check;
mod sessions;
pub mod tables;
mod versions;

use std::sync::Arc;

use comity_accounts::Accounts;
use comity_protocol::id::UserId;
use comity_storage::{CommitError, Home, LaneWriter, ReadError, Reader, Row, Tenant};
use serde::Serialize;

pub use sessions::{KeyData, Pages, Part, Uploaded};
pub use tables::Session;
pub use versions::Info;

use tables::{Backup, Backups, Given, UserKey, UserVersion, Versions};

/// Why a backup could not be read or changed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum BackupError {
    /// There is no such backup (`M_NOT_FOUND`).
    #[error("Unknown backup version")]
    UnknownVersion,
    /// The backup has no such key (`M_NOT_FOUND`).
    #[error("Key not found")]
    UnknownKey,
    /// Only the newest backup takes keys (`M_WRONG_ROOM_KEYS_VERSION`).
    #[error("Wrong backup version")]
    WrongVersion {
        /// The newest.
        current: String,
    },
    /// A value in the request can't be used (`M_INVALID_PARAM`).
    #[error("{0}")]
    InvalidParam(&'static str),
    /// A value is larger than it may be, or there would be too many (`M_TOO_LARGE`).
    #[error("{0}")]
    TooLarge(&'static str),
    /// The store could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The change could not be made.
    #[error(transparent)]
    Commit(#[from] CommitError),
}

/// What a backup holds after a change.
///
/// <https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3room_keyskeys>
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Stored {
    /// Another one means that the keys have changed.
    pub etag: String,
    /// How many keys there are.
    pub count: u64,
}

impl From<&Backup> for Stored {
    fn from(backup: &Backup) -> Self {
        Self {
            etag: backup.etag.to_string(),
            count: backup.count,
        }
    }
}

/// The key backups of one tenant's users. Cheap to clone.
#[derive(Clone)]
pub struct KeyBackup {
    tenant: Tenant,
}

impl KeyBackup {
    /// Those of these accounts, with which they go.
    pub fn new(accounts: &Accounts) -> Self {
        accounts.keep_with_devices(Arc::new(versions::OfAccounts));
        Self {
            tenant: accounts.tenant().clone(),
        }
    }

    fn lane(&self, user: &UserId) -> &LaneWriter {
        self.tenant.lane(Home::User(user.as_str()))
    }

    /// What an answer rests on must be durable before it is given.
    async fn settled(&self, user: &UserId, pos: u64) {
        self.tenant.settled(Home::User(user.as_str()), pos).await;
    }
}

/// A backup as its rows are now.
struct Found {
    key: UserVersion,
    row: Row<Backup>,
}

/// A version as clients write it. What isn't written as we write it is none of ours.
fn version_of(user: &UserId, text: &str) -> Option<UserVersion> {
    let version: u64 = text.parse().ok()?;
    (version.to_string() == text).then(|| UserVersion {
        user: user.to_string(),
        version,
    })
}

async fn found(reader: &Reader, user: &UserId, version: &str) -> Result<Found, BackupError> {
    let key = version_of(user, version).ok_or(BackupError::UnknownVersion)?;
    let row = reader.get::<Backups>(&key).await?;
    let row = row.ok_or(BackupError::UnknownVersion)?;
    Ok(Found { key, row })
}

async fn given(reader: &Reader, user: &UserId) -> Result<Option<Row<Given>>, ReadError> {
    let key = UserKey(user.to_string());
    reader.get::<Versions>(&key).await
}
