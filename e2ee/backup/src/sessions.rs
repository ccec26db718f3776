//! Keys: which of two is kept, and how they come, are read and go.

use std::{cmp::Reverse, collections::BTreeMap};

use comity_protocol::id::{OwnedRoomId, OwnedUserId, RoomId, UserId};
use comity_storage::{
    Attempts, Expect, Home, Key, KeyWriter, LaneWriter, Range, Reader, Row, Tenant,
};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::{
    BackupError, Found, KeyBackup, Stored, found, given,
    tables::{Backup, Backups, Session, Sessions, UserKey, UserSession, UserVersion, Versions},
    versions::newest,
};

/// Keys of a backup at the most.
const MAX_KEYS: u64 = 1_000_000;
const MAX_SESSION_ID_BYTES: usize = 255;
/// An encrypted session is a few hundred bytes.
const MAX_SESSION_DATA_BYTES: usize = 16 << 10;
/// The largest number that JSON's readers agree on.
const MAX_NUMBER: u64 = (1 << 53) - 1;
/// Keys read in one go.
const PAGE: usize = 500;

/// A key as it is uploaded.
///
/// <https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3room_keyskeysroomidsessionid>
#[derive(Debug, Clone, Deserialize)]
pub struct KeyData {
    /// The first message that the key decrypts.
    pub first_message_index: u64,
    /// How often the key was handed from device to device.
    pub forwarded_count: u64,
    /// Whether the device it came from was verified.
    pub is_verified: bool,
    /// The encrypted key.
    pub session_data: Box<RawValue>,
}

/// Keys by room and session.
pub type Uploaded = BTreeMap<OwnedRoomId, BTreeMap<String, KeyData>>;

/// Which keys of a backup.
#[derive(Debug, Clone, Copy)]
pub enum Part<'a> {
    /// All of them.
    All,
    /// Those of a room.
    Room(&'a RoomId),
    /// That of a session.
    Session(&'a RoomId, &'a str),
}

impl Session {
    /// Whether it takes the place of another key of its session.
    ///
    /// <https://spec.matrix.org/v1.19/client-server-api/#server-side-key-backups>
    fn is_better_than(&self, other: &Self) -> bool {
        let rank = |key: &Self| {
            let worth = (
                Reverse(key.first_message_index),
                Reverse(key.forwarded_count),
            );
            (key.is_verified, worth)
        };
        rank(self) > rank(other)
    }
}

impl KeyBackup {
    /// Stores keys in the newest backup, those that are better than what it has.
    ///
    /// # Errors
    /// [`BackupError::UnknownVersion`], [`BackupError::WrongVersion`], [`BackupError::InvalidParam`],
    /// [`BackupError::TooLarge`]: nothing is stored. The store's.
    pub async fn put(
        &self,
        user: &UserId,
        version: &str,
        keys: Uploaded,
    ) -> Result<Stored, BackupError> {
        let sessions = sessions(keys)?;
        let lane = self.lane(user);
        let mut attempts = Attempts::default();
        loop {
            let reader = lane.reader();
            let given = given(&reader, user).await?;
            let Found { key, row } = current(&reader, user, version).await?;
            let places: Vec<UserSession> = sessions
                .iter()
                .map(|session| UserSession::new(&key, &session.room_id, &session.session_id))
                .collect();
            let old = reader.get_many::<Sessions>(&places).await?;
            let mut batch = lane.batch();
            let (mut added, mut changed) = (0, false);
            for ((place, session), old) in places.iter().zip(&sessions).zip(old) {
                if old
                    .as_ref()
                    .is_none_or(|old| session.is_better_than(&old.value))
                {
                    batch.put::<Sessions>(place, session);
                    changed = true;
                    added += u64::from(old.is_none());
                }
            }
            if !changed {
                self.settled(user, row.pos).await;
                return Ok((&row.value).into());
            }
            let count = row.value.count + added;
            if count > MAX_KEYS {
                return Err(BackupError::TooLarge("The backup has too many keys"));
            }
            // A backup made meanwhile would be the newest.
            let expect = given.map_or(Expect::Absent, |row| Expect::At(row.pos));
            batch.expect::<Versions>(&UserKey(user.to_string()), expect);
            if let Some(stored) = self
                .changed(&mut attempts, lane, batch, &key, row, count)
                .await?
            {
                return Ok(stored);
            }
        }
    }

    /// A session's key.
    ///
    /// # Errors
    /// [`BackupError::UnknownVersion`], [`BackupError::UnknownKey`]; the store's.
    pub async fn session(
        &self,
        user: &UserId,
        version: &str,
        room_id: &RoomId,
        session_id: &str,
    ) -> Result<Session, BackupError> {
        let reader = self.tenant.reader();
        let Found { key, .. } = found(&reader, user, version).await?;
        let place = UserSession::new(&key, room_id.as_str(), session_id);
        let row = reader.get::<Sessions>(&place).await?;
        let row = row.ok_or(BackupError::UnknownKey)?;
        self.settled(user, row.pos).await;
        Ok(row.value)
    }

    /// The keys of a room, or of all.
    ///
    /// # Errors
    /// [`BackupError::UnknownVersion`]; the store's.
    pub async fn read(
        &self,
        user: &UserId,
        version: &str,
        room_id: Option<&RoomId>,
    ) -> Result<Pages, BackupError> {
        let Found { key, row } = found(&self.tenant.reader(), user, version).await?;
        self.settled(user, row.pos).await;
        Ok(Pages {
            tenant: self.tenant.clone(),
            user: user.to_owned(),
            key,
            room_id: room_id.map(ToOwned::to_owned),
            after: None,
            done: false,
        })
    }

    /// Deletes keys; none of them is fine.
    ///
    /// # Errors
    /// [`BackupError::UnknownVersion`]; the store's.
    pub async fn remove(
        &self,
        user: &UserId,
        version: &str,
        part: Part<'_>,
    ) -> Result<Stored, BackupError> {
        let lane = self.lane(user);
        let mut attempts = Attempts::default();
        loop {
            let reader = lane.reader();
            let Found { key, row } = found(&reader, user, version).await?;
            let removed = match part {
                Part::All => row.value.count,
                Part::Room(_) => count(&reader, &key, part).await?,
                Part::Session(room, session) => {
                    let place = UserSession::new(&key, room.as_str(), session);
                    u64::from(reader.get::<Sessions>(&place).await?.is_some())
                }
            };
            if removed == 0 {
                self.settled(user, row.pos).await;
                return Ok((&row.value).into());
            }
            let mut batch = lane.batch();
            batch.delete_all::<Sessions>(key.home(), |to| part.write(&key, to));
            let left = row.value.count.saturating_sub(removed);
            if let Some(stored) = self
                .changed(&mut attempts, lane, batch, &key, row, left)
                .await?
            {
                return Ok(stored);
            }
        }
    }

    /// Commits a change of a backup's keys with what it makes of the backup.
    async fn changed(
        &self,
        attempts: &mut Attempts,
        lane: &LaneWriter,
        mut batch: comity_storage::Batch,
        key: &UserVersion,
        row: Row<Backup>,
        count: u64,
    ) -> Result<Option<Stored>, BackupError> {
        let backup = Backup {
            count,
            etag: row.value.etag + 1,
            ..row.value
        };
        batch.expect::<Backups>(key, Expect::At(row.pos));
        batch.put::<Backups>(key, &backup);
        let committed = attempts.commit(lane, batch).await?;
        Ok(committed.map(|_| (&backup).into()))
    }
}

/// A backup's keys, a page at a time; those of one room stand together.
pub struct Pages {
    tenant: Tenant,
    user: OwnedUserId,
    key: UserVersion,
    room_id: Option<OwnedRoomId>,
    after: Option<UserSession>,
    done: bool,
}

impl Pages {
    /// The next keys; none when there are no more.
    ///
    /// # Errors
    /// The store's.
    pub async fn next(&mut self) -> Result<Vec<Session>, BackupError> {
        if self.done {
            return Ok(Vec::new());
        }
        let reader = self.tenant.reader();
        let part = self.room_id.as_deref().map_or(Part::All, Part::Room);
        let rows = page(&reader, &self.key, part, self.after.as_ref()).await?;
        self.done = rows.len() < PAGE;
        let newest = rows.iter().map(|(_, row)| row.pos).max().unwrap_or(0);
        let home = Home::User(self.user.as_str());
        self.tenant.settled(home, newest).await;
        self.after = rows.last().map(|(key, _)| key.clone());
        Ok(rows.into_iter().map(|(_, row)| row.value).collect())
    }
}

impl Part<'_> {
    /// The fields with which its keys begin.
    fn write(&self, backup: &UserVersion, to: &mut KeyWriter) {
        match self {
            Self::All => backup.write(to),
            Self::Room(room) => {
                backup.write(to);
                to.room(comity_storage::RoomKey::of(room.as_str()));
            }
            Self::Session(room, session) => {
                UserSession::new(backup, room.as_str(), session).write(to);
            }
        }
    }
}

type Rows = Vec<(UserSession, Row<Session>)>;

async fn page(
    reader: &Reader,
    backup: &UserVersion,
    part: Part<'_>,
    after: Option<&UserSession>,
) -> Result<Rows, BackupError> {
    let mut range = Range::of(backup.home(), |to| part.write(backup, to)).limit(PAGE);
    if let Some(after) = after {
        range = range.from(|to| {
            if matches!(part, Part::All) {
                to.room(after.room);
            }
            // The first thing after this key.
            to.fixed(&after.session).u8(0);
        });
    }
    Ok(reader.scan::<Sessions>(range).await?)
}

async fn count(reader: &Reader, backup: &UserVersion, part: Part<'_>) -> Result<u64, BackupError> {
    let (mut count, mut after) = (0, None);
    loop {
        let rows = page(reader, backup, part, after.as_ref()).await?;
        count += rows.len() as u64;
        if rows.len() < PAGE {
            return Ok(count);
        }
        after = rows.into_iter().next_back().map(|(key, _)| key);
    }
}

/// The backup of this version, which has to be the newest.
async fn current(reader: &Reader, user: &UserId, version: &str) -> Result<Found, BackupError> {
    let newest = newest(reader, user)
        .await?
        .ok_or(BackupError::UnknownVersion)?;
    let current = newest.key.version.to_string();
    if current == version {
        return Ok(newest);
    }
    found(reader, user, version).await?;
    Err(BackupError::WrongVersion { current })
}

/// What is uploaded, as it would be stored.
fn sessions(keys: Uploaded) -> Result<Vec<Session>, BackupError> {
    let mut sessions = Vec::new();
    for (room_id, keys) in keys {
        for (session_id, key) in keys {
            if session_id.is_empty() || session_id.len() > MAX_SESSION_ID_BYTES {
                return Err(BackupError::InvalidParam(
                    "A session's id is empty or too long",
                ));
            }
            if key.first_message_index > MAX_NUMBER || key.forwarded_count > MAX_NUMBER {
                return Err(BackupError::InvalidParam("A number is too large"));
            }
            let session_data = key.session_data.get();
            if !session_data.starts_with('{') {
                return Err(BackupError::InvalidParam("session_data is no object"));
            }
            if session_data.len() > MAX_SESSION_DATA_BYTES {
                return Err(BackupError::TooLarge("session_data is too large"));
            }
            sessions.push(Session {
                room_id: room_id.to_string(),
                session_id,
                first_message_index: key.first_message_index,
                forwarded_count: key.forwarded_count,
                is_verified: key.is_verified,
                session_data: session_data.to_owned(),
            });
        }
    }
    Ok(sessions)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(is_verified: bool, first_message_index: u64, forwarded_count: u64) -> Session {
        Session {
            room_id: "!r".to_owned(),
            session_id: "s".to_owned(),
            first_message_index,
            forwarded_count,
            is_verified,
            session_data: "{}".to_owned(),
        }
    }

    /// Server-side key backups: verified before unverified, then the lower index, then the lower count; an equal one changes nothing.
    #[test]
    fn the_better_key_is_kept() {
        let best_first = [
            key(true, 0, 9),
            key(true, 1, 0),
            key(true, 1, 1),
            key(false, 0, 0),
            key(false, 0, 1),
            key(false, 7, 0),
        ];
        for (n, one) in best_first.iter().enumerate() {
            for (m, other) in best_first.iter().enumerate() {
                assert_eq!(one.is_better_than(other), n < m, "{one:?} {other:?}");
            }
        }
    }
}
