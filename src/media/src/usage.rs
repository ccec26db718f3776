//! What users have uploaded, counted: each of a user's uploads goes through one row, so that two at a time count as two.

use comity_protocol::id::UserId;
use comity_storage::{Batch, CommitError, Expect, Home, Range};

use crate::{
    Media, MediaError,
    tables::{Hash, Upload, UploadKey, Uploads, Usage, Usages, UserKey},
};

/// How often a change is decided anew because another came before it.
const TRIES: usize = 16;

impl Media {
    /// Changes a user's usage, with what belongs to it, in one commit. `decide` is told how many ids of the user's wait for
    /// their upload, and may refuse.
    async fn change_usage(
        &self,
        user: &UserId,
        decide: impl Fn(&mut Usage, usize) -> Result<(), MediaError>,
        beside: impl Fn(&mut Batch),
    ) -> Result<(), MediaError> {
        let lane = self.0.tenant.lane(Home::User(user.as_str()));
        let key = UserKey(user.to_string());
        for _ in 0..TRIES {
            let row = lane.reader().get::<Usages>(&key).await?;
            let (expect, mut usage) = match row {
                Some(row) => (Expect::At(row.pos), row.value),
                None => (Expect::Absent, Usage::default()),
            };
            // After the row that each of them changes: one that comes between is a conflict.
            decide(&mut usage, self.pending(user).await?)?;
            let mut batch = lane.batch();
            batch.expect::<Usages>(&key, expect);
            batch.put::<Usages>(&key, &usage);
            beside(&mut batch);
            match lane.commit(batch).await {
                Ok(_) => return Ok(()),
                Err(CommitError::Conflict(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(CommitError::Conflict("media usage").into())
    }

    /// How many ids of a user's wait for their upload.
    async fn pending(&self, user: &UserId) -> Result<usize, MediaError> {
        let home = Home::User(user.as_str());
        let range = Range::of(home, |key| {
            key.str(user.as_str());
        });
        let reader = self.0.tenant.lane(home).reader();
        let uploads = reader.scan::<Uploads>(range).await?;
        let now = self.now_ms();
        let waiting = |upload: &Upload| upload.counted.is_none() && upload.expires_ts > now;
        let pending = uploads.iter().filter(|(_, row)| waiting(&row.value));
        Ok(pending.count())
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
        let decide = |_: &mut Usage, pending| {
            if pending >= most {
                Err(MediaError::TooManyPending)
            } else {
                Ok(())
            }
        };
        let remember = |batch: &mut Batch| {
            batch.put::<Uploads>(&key, &upload);
        };
        self.change_usage(user, decide, remember).await
    }

    /// Counts an upload, and notes that its media doesn't have it yet.
    pub(crate) async fn charge(
        &self,
        user: &UserId,
        id: &str,
        (hash, size): (Hash, u64),
    ) -> Result<(), MediaError> {
        let most = self.0.config.max_user_bytes.unwrap_or(u64::MAX);
        let key = upload_key(user, id);
        let upload = Upload {
            expires_ts: self.now_ms(),
            counted: Some((hash, size)),
        };
        let decide = |usage: &mut Usage, _| {
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
        };
        self.change_usage(user, decide, remember).await
    }

    /// Takes back what was counted for an upload that came to nothing.
    pub(crate) async fn refund(
        &self,
        user: &UserId,
        id: &str,
        size: u64,
    ) -> Result<(), MediaError> {
        let key = upload_key(user, id);
        let decide = |usage: &mut Usage, _| {
            usage.bytes = usage.bytes.saturating_sub(size);
            usage.files = usage.files.saturating_sub(1);
            Ok(())
        };
        let forget = |batch: &mut Batch| {
            batch.delete::<Uploads>(&key);
        };
        self.change_usage(user, decide, forget).await
    }

    /// Nothing is under way by this id any more: its media has what was counted, or it waited in vain.
    pub(crate) async fn settle(&self, user: &UserId, id: &str) -> Result<(), MediaError> {
        let lane = self.0.tenant.lane(Home::User(user.as_str()));
        let mut batch = lane.batch();
        batch.delete::<Uploads>(&upload_key(user, id));
        lane.commit(batch).await?;
        Ok(())
    }

    /// Refuses an upload that can't fit before a byte of it is read.
    pub(crate) async fn has_room(&self, user: &UserId, size: u64) -> Result<(), MediaError> {
        if size > self.0.config.max_upload_bytes {
            return Err(MediaError::TooLarge);
        }
        let Some(most) = self.0.config.max_user_bytes else {
            return Ok(());
        };
        let key = UserKey(user.to_string());
        let row = self.0.tenant.reader().get::<Usages>(&key).await?;
        let used = row.map_or(0, |row| row.value.bytes);
        if used.saturating_add(size) > most {
            return Err(MediaError::Quota);
        }
        Ok(())
    }
}

fn upload_key(user: &UserId, id: &str) -> UploadKey {
    UploadKey {
        user: user.to_string(),
        id: id.to_owned(),
    }
}
