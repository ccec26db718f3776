//! Backups as wholes: made, described, changed, deleted.

use async_trait::async_trait;
use comity_accounts::{Belongings, DeviceChange};
use comity_protocol::id::UserId;
use comity_storage::{Attempts, Batch, CommitError, Expect, Home, Range, Reader};
use serde::Serialize;
use serde_json::value::RawValue;

use crate::{
    BackupError, Found, KeyBackup, found, given,
    tables::{Backup, Backups, Given, Sessions, UserKey, Versions},
    version_of,
};

/// Backups of a user at the most. A client makes one when the last was lost or isn't trusted any more.
const MAX_BACKUPS: usize = 100;
const MAX_ALGORITHM_BYTES: usize = 255;
/// The auth data has the signatures of all of a user's devices.
const MAX_AUTH_DATA_BYTES: usize = 64 << 10;

/// A backup as its user sees it.
///
/// <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3room_keysversion>
#[derive(Debug, Clone, Serialize)]
pub struct Info {
    /// Its version.
    pub version: String,
    /// How its keys are encrypted.
    pub algorithm: String,
    /// What the algorithm needs to know.
    pub auth_data: Box<RawValue>,
    /// How many keys it has.
    pub count: u64,
    /// Another one means that the keys have changed.
    pub etag: String,
}

impl KeyBackup {
    /// Makes a backup, which from now on is the one that takes keys; its version.
    ///
    /// # Errors
    /// [`BackupError::InvalidParam`], [`BackupError::TooLarge`]; the store's.
    pub async fn create(
        &self,
        user: &UserId,
        algorithm: &str,
        auth_data: &RawValue,
    ) -> Result<String, BackupError> {
        check(algorithm, auth_data)?;
        let lane = self.lane(user);
        let mut attempts = Attempts::default();
        loop {
            let reader = lane.reader();
            let last = given(&reader, user).await?;
            if reader.scan::<Backups>(of_user(user)).await?.len() >= MAX_BACKUPS {
                return Err(BackupError::TooLarge(
                    "There are too many backups: delete one of them first",
                ));
            }
            let expect = last
                .as_ref()
                .map_or(Expect::Absent, |row| Expect::At(row.pos));
            // Those of a lost incarnation aren't given again: a device may still have keys for one.
            let begin = self.tenant.birth().counts_after();
            let version = last.map_or(0, |row| row.value.last).max(begin) + 1;
            let key = UserKey(user.to_string());
            let text = version.to_string();
            let backup = Backup {
                algorithm: algorithm.to_owned(),
                auth_data: auth_data.get().to_owned(),
                count: 0,
                etag: 0,
            };
            let mut batch = lane.batch();
            batch.expect::<Versions>(&key, expect);
            batch.put::<Versions>(&key, &Given { last: version });
            if let Some(key) = version_of(user, &text) {
                batch.put::<Backups>(&key, &backup);
            }
            if attempts.commit(lane, batch).await?.is_some() {
                return Ok(text);
            }
        }
    }

    /// A backup; the newest, if none is named.
    ///
    /// # Errors
    /// [`BackupError::UnknownVersion`]; the store's.
    pub async fn info(&self, user: &UserId, version: Option<&str>) -> Result<Info, BackupError> {
        let reader = self.tenant.reader();
        let Found { key, row } = match version {
            Some(version) => found(&reader, user, version).await?,
            None => newest(&reader, user)
                .await?
                .ok_or(BackupError::UnknownVersion)?,
        };
        self.settled(user, row.pos).await;
        let backup = row.value;
        let auth_data = RawValue::from_string(backup.auth_data);
        Ok(Info {
            version: key.version.to_string(),
            algorithm: backup.algorithm,
            auth_data: auth_data.map_err(|_| unreadable())?,
            count: backup.count,
            etag: backup.etag.to_string(),
        })
    }

    /// Changes a backup's auth data. The algorithm has to be what it is.
    ///
    /// # Errors
    /// [`BackupError::UnknownVersion`], [`BackupError::InvalidParam`], [`BackupError::TooLarge`]; the store's.
    pub async fn update(
        &self,
        user: &UserId,
        version: &str,
        algorithm: &str,
        auth_data: &RawValue,
    ) -> Result<(), BackupError> {
        check(algorithm, auth_data)?;
        let lane = self.lane(user);
        let mut attempts = Attempts::default();
        loop {
            let Found { key, row } = found(&lane.reader(), user, version).await?;
            if row.value.algorithm != algorithm {
                return Err(BackupError::InvalidParam("Algorithm does not match"));
            }
            let backup = Backup {
                auth_data: auth_data.get().to_owned(),
                ..row.value
            };
            let mut batch = lane.batch();
            batch.expect::<Backups>(&key, Expect::At(row.pos));
            batch.put::<Backups>(&key, &backup);
            if attempts.commit(lane, batch).await?.is_some() {
                return Ok(());
            }
        }
    }

    /// Deletes a backup with its keys. One that was deleted before is fine.
    ///
    /// # Errors
    /// [`BackupError::UnknownVersion`] if there never was one; the store's.
    pub async fn delete(&self, user: &UserId, version: &str) -> Result<(), BackupError> {
        let key = version_of(user, version).ok_or(BackupError::UnknownVersion)?;
        let lane = self.lane(user);
        let reader = lane.reader();
        let given = given(&reader, user).await?;
        if given.is_none_or(|row| key.version == 0 || key.version > row.value.last) {
            return Err(BackupError::UnknownVersion);
        }
        let home = Home::User(user.as_str());
        let mut batch = lane.batch();
        // Whoever is changing it meanwhile finds that its row is gone.
        batch.delete::<Backups>(&key);
        batch.delete_all::<Sessions>(home, |to| {
            to.str(&key.user).u64(key.version);
        });
        lane.commit(batch).await?;
        Ok(())
    }
}

/// Backups go with their account.
pub(crate) struct OfAccounts;

#[async_trait]
impl Belongings for OfAccounts {
    async fn follow(
        &self,
        _: &Reader,
        user_id: &str,
        changes: &[DeviceChange],
        batch: &mut Batch,
    ) -> Result<(), CommitError> {
        if changes.contains(&DeviceChange::AccountEnded) {
            let home = Home::User(user_id);
            batch.delete_all::<Backups>(home, |to| {
                to.str(user_id);
            });
            batch.delete_all::<Sessions>(home, |to| {
                to.str(user_id);
            });
        }
        Ok(())
    }
}

/// The backup that takes keys.
pub(crate) async fn newest(reader: &Reader, user: &UserId) -> Result<Option<Found>, BackupError> {
    let range = of_user(user).reverse().limit(1);
    let newest = reader.scan::<Backups>(range).await?.pop();
    Ok(newest.map(|(key, row)| Found { key, row }))
}

fn of_user(user: &UserId) -> Range {
    Range::of(Home::User(user.as_str()), |key| {
        key.str(user.as_str());
    })
}

fn check(algorithm: &str, auth_data: &RawValue) -> Result<(), BackupError> {
    if algorithm.is_empty() || algorithm.len() > MAX_ALGORITHM_BYTES {
        return Err(BackupError::InvalidParam(
            "The algorithm's name is empty or too long",
        ));
    }
    if !auth_data.get().starts_with('{') {
        return Err(BackupError::InvalidParam("auth_data is no object"));
    }
    if auth_data.get().len() > MAX_AUTH_DATA_BYTES {
        return Err(BackupError::TooLarge("auth_data is too large"));
    }
    Ok(())
}

fn unreadable() -> BackupError {
    comity_storage::ReadError::from(comity_storage::Damaged("stored auth data is no JSON")).into()
}
