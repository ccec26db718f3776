//! What users have uploaded, counted: each of a user's uploads goes through one row, so that two at a time count as two.
//!
//! A file counts as long as its own row says so, which is written and deleted with the sum: to count it twice, or to take it back
//! twice, is to do it once.

use comity_protocol::id::UserId;
use comity_storage::{Attempts, Batch, CommitError, Expect, Home, Key, Pos, Range, Row};

use crate::{
    Media, MediaError,
    tables::{Files, Hash, Upload, UploadKey, Uploaded, Uploads, Usage, Usages, UserKey},
};

impl Media {
    /// Changes a user's usage, with what belongs to it, in one commit. `decide` is told of the user's uploads under way, and whether
    /// one of this id counts, and may refuse.
    async fn change_usage(
        &self,
        user: &UserId,
        id: &str,
        decide: impl Fn(&mut Usage, &[(UploadKey, Row<Upload>)], bool) -> Result<(), MediaError>,
        beside: impl Fn(&mut Batch),
    ) -> Result<Pos, MediaError> {
        let lane = self.0.tenant.lane(Home::User(user.as_str()));
        let key = UserKey(user.to_string());
        let _turn = self.0.counting.take(user.as_str()).await?;
        let mut attempts = Attempts::default();
        loop {
            let row = lane.reader().get::<Usages>(&key).await?;
            let (expect, mut usage) = match row {
                Some(row) => (Expect::At(row.pos), row.value),
                None => (Expect::Absent, Usage::default()),
            };
            // After the row that each of them changes: one that comes between is a conflict.
            let file = lane.reader().get::<Files>(&upload_key(user, id)).await?;
            decide(&mut usage, &self.uploads(user).await?, file.is_some())?;
            let mut batch = lane.batch();
            batch.expect::<Usages>(&key, expect);
            batch.put::<Usages>(&key, &usage);
            beside(&mut batch);
            if let Some(pos) = attempts.commit(lane, batch).await? {
                return Ok(pos);
            }
        }
    }

    /// What of a user's is under way, ids that wait for their upload among it.
    pub(crate) async fn uploads(
        &self,
        user: &UserId,
    ) -> Result<Vec<(UploadKey, Row<Upload>)>, MediaError> {
        let home = Home::User(user.as_str());
        let range = Range::of(home, |key| {
            key.str(user.as_str());
        });
        let reader = self.0.tenant.lane(home).reader();
        Ok(reader.scan::<Uploads>(range).await?)
    }

    /// Notes an id that waits for its upload.
    pub(crate) async fn note_pending(
        &self,
        user: &UserId,
        id: &str,
        expires_ts: u64,
    ) -> Result<(), MediaError> {
        let most = self.0.config.max_pending_uploads;
        let key = upload_key(user, id);
        let upload = Upload {
            expires_ts,
            counted: None,
        };
        let now = self.now_ms();
        let waits = |upload: &Upload| upload.counted.is_none() && upload.expires_ts > now;
        let decide = |_: &mut Usage, uploads: &[(_, Row<Upload>)], _| {
            let waiting = uploads.iter().filter(|(_, row)| waits(&row.value));
            if waiting.count() >= most {
                Err(MediaError::TooManyPending)
            } else {
                Ok(())
            }
        };
        let remember = |batch: &mut Batch| {
            batch.put::<Uploads>(&key, &upload);
        };
        self.change_usage(user, id, decide, remember).await?;
        Ok(())
    }

    /// Counts an upload, and notes that its media doesn't have it yet; the position of the note.
    pub(crate) async fn charge(
        &self,
        user: &UserId,
        id: &str,
        (hash, size): (Hash, u64),
    ) -> Result<Pos, MediaError> {
        let most = self.0.config.max_user_bytes.unwrap_or(u64::MAX);
        let key = upload_key(user, id);
        let upload = Upload {
            expires_ts: self.now_ms(),
            counted: Some((hash, size)),
        };
        let decide = |usage: &mut Usage, _: &[_], counts: bool| {
            // Another upload to the same id came first: the rows that count it and take it back are that one's.
            if counts {
                return Err(MediaError::CannotOverwrite);
            }
            usage.bytes = usage.bytes.saturating_add(size);
            usage.files += 1;
            if usage.bytes > most {
                Err(MediaError::Quota)
            } else {
                Ok(())
            }
        };
        let remember = |batch: &mut Batch| {
            batch.put::<Uploads>(&key, &upload);
            batch.put::<Files>(&key, &Uploaded { size });
        };
        self.change_usage(user, id, decide, remember).await
    }

    /// Takes back what was counted for an upload, if it counts still: it came to nothing, or was removed.
    pub(crate) async fn uncharge(&self, user: &UserId, id: &str) -> Result<(), MediaError> {
        let lane = self.0.tenant.lane(Home::User(user.as_str()));
        let (whose, key) = (UserKey(user.to_string()), upload_key(user, id));
        let _turn = self.0.counting.take(user.as_str()).await?;
        let mut attempts = Attempts::default();
        loop {
            let reader = lane.reader();
            let usage = reader.get::<Usages>(&whose).await?;
            // After the sum, which changes with it.
            let file = reader.get::<Files>(&key).await?;
            let (Some(usage), Some(file)) = (usage, file) else {
                return Ok(());
            };
            let left = Usage {
                bytes: usage.value.bytes.saturating_sub(file.value.size),
                files: usage.value.files.saturating_sub(1),
            };
            let mut batch = lane.batch();
            batch.expect::<Usages>(&whose, Expect::At(usage.pos));
            batch.delete::<Files>(&key).delete::<Uploads>(&key);
            if left == Usage::default() {
                batch.delete::<Usages>(&whose);
            } else {
                batch.put::<Usages>(&whose, &left);
            }
            if attempts.commit(lane, batch).await?.is_some() {
                return Ok(());
            }
        }
    }

    /// A page of the ids of a user's files, those after this one.
    pub(crate) async fn files(
        &self,
        user: &UserId,
        after: Option<&UploadKey>,
        page: usize,
    ) -> Result<Vec<UploadKey>, MediaError> {
        let home = Home::User(user.as_str());
        let mut range = Range::of(home, |key| {
            key.str(user.as_str());
        });
        if let Some(after) = after {
            range = range.from(|from| {
                from.str(&after.id).u8(0);
            });
        }
        let reader = self.0.tenant.lane(home).reader();
        let files = reader.scan::<Files>(range.limit(page)).await?;
        Ok(files.into_iter().map(|(key, _)| key).collect())
    }

    /// Nothing is under way by this id any more: its media has what was counted, or it waited in vain. `pos` is its note's, for another
    /// upload may have begun and been counted.
    pub(crate) async fn settle(&self, key: &UploadKey, pos: Pos) -> Result<(), MediaError> {
        let lane = self.0.tenant.lane(key.home());
        let mut batch = lane.batch();
        batch.expect::<Uploads>(key, Expect::At(pos));
        batch.delete::<Uploads>(key);
        match lane.commit(batch).await {
            Ok(_) | Err(CommitError::Conflict(_)) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// How many bytes a user may upload still.
    pub(crate) async fn room(&self, user: &UserId) -> Result<u64, MediaError> {
        let Some(most) = self.0.config.max_user_bytes else {
            return Ok(u64::MAX);
        };
        let key = UserKey(user.to_string());
        let row = self.0.tenant.reader().get::<Usages>(&key).await?;
        let used = row.map_or(0, |row| row.value.bytes);
        Ok(most.saturating_sub(used))
    }
}

pub(crate) fn upload_key(user: &UserId, id: &str) -> UploadKey {
    UploadKey {
        user: user.to_string(),
        id: id.to_owned(),
    }
}
