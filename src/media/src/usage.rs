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
    /// Changes a user's usage, with what belongs to it, in one commit. `decide` is told of the user's uploads under way, and may
    /// refuse.
    async fn change_usage(
        &self,
        user: &UserId,
        decide: impl Fn(&mut Usage, &[(UploadKey, Upload)]) -> Result<(), MediaError>,
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
            decide(&mut usage, &self.uploads(user).await?)?;
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

    /// What of a user's is under way, ids that wait for their upload among it.
    async fn uploads(&self, user: &UserId) -> Result<Vec<(UploadKey, Upload)>, MediaError> {
        let home = Home::User(user.as_str());
        let range = Range::of(home, |key| {
            key.str(user.as_str());
        });
        let reader = self.0.tenant.lane(home).reader();
        let uploads = reader.scan::<Uploads>(range).await?.into_iter();
        Ok(uploads.map(|(key, row)| (key, row.value)).collect())
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
        let decide = |_: &mut Usage, uploads: &[(_, Upload)]| {
            if uploads.iter().filter(|(_, upload)| waits(upload)).count() >= most {
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
        let decide = |usage: &mut Usage, uploads: &[(UploadKey, Upload)]| {
            // Another upload to the same id came first: the row that takes it back after a crash is that one's.
            let counted =
                |(key, upload): &(UploadKey, Upload)| key.id == id && upload.counted.is_some();
            if uploads.iter().any(counted) {
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
        let decide = |usage: &mut Usage, _: &[_]| {
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

fn upload_key(user: &UserId, id: &str) -> UploadKey {
    UploadKey {
        user: user.to_string(),
        id: id.to_owned(),
    }
}
