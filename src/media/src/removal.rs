//! Media that is taken away: quarantined or removed by an administrator, or gone with the account of who uploaded it.
//!
//! What is quarantined nobody gets, and what is other servers' isn't fetched again; of that nothing is kept but the mark. What is
//! removed is gone with all that was made of it, and its id is never given again. A file that others uploaded as well stays
//! theirs: one holder less, and the last takes the blob along.

use comity_protocol::id::{OwnedUserId, UserId};
use comity_storage::{Attempts, Expect, Key, Range, Row};

use crate::{
    Media, MediaError, Mxc,
    tables::{self, Arriving, Held, HeldKey, MediaKey, Medias, Remote, Removal, Removals},
};

/// Files of a user looked up at a time.
const PAGE: usize = 100;

impl Media {
    /// Gives media to nobody from now on, or to all again.
    ///
    /// # Errors
    /// [`MediaError::NotFound`] for an id that this server didn't give; the store's and the disk's.
    pub async fn quarantine(&self, mxc: &Mxc, quarantined: bool) -> Result<(), MediaError> {
        let key = MediaKey::from(mxc);
        let ours = *mxc.server() == *self.0.config.server_name;
        let lane = self.0.tenant.lane(key.home());
        let mut attempts = Attempts::default();
        loop {
            let row = lane.reader().get::<Medias>(&key).await?;
            let mark = tables::Media {
                uploader: None,
                created_ts: self.now_ms(),
                expires_ts: 0,
                quarantined,
                content: None,
            };
            let mut batch = lane.batch();
            match &row {
                None if ours => return Err(MediaError::NotFound),
                None if !quarantined => return Ok(()),
                None => {
                    batch.expect::<Medias>(&key, Expect::Absent);
                    batch.put::<Medias>(&key, &mark);
                }
                Some(row) if row.value.quarantined == quarantined => return Ok(()),
                // Nothing but the mark is there.
                Some(row) if row.value.uploader.is_none() && !quarantined => {
                    batch.expect::<Medias>(&key, Expect::At(row.pos));
                    batch.delete::<Medias>(&key);
                }
                Some(row) if row.value.uploader.is_none() => {
                    let taken = self.take_away(&key, row, Some(&mark), &mut attempts);
                    match taken.await? {
                        Some(_) => return Ok(()),
                        None => continue,
                    }
                }
                Some(row) => {
                    let marked = tables::Media {
                        quarantined,
                        ..row.value.clone()
                    };
                    batch.expect::<Medias>(&key, Expect::At(row.pos));
                    batch.put::<Medias>(&key, &marked);
                }
            }
            if attempts.commit(lane, batch).await?.is_some() {
                return Ok(());
            }
        }
    }

    /// Removes a piece of media of this server's for good.
    ///
    /// # Errors
    /// [`MediaError::NotFound`] if there is none, or it is another server's; the store's and the disk's.
    pub async fn remove(&self, mxc: &Mxc) -> Result<(), MediaError> {
        if *mxc.server() != *self.0.config.server_name {
            return Err(MediaError::NotFound);
        }
        let key = MediaKey::from(mxc);
        let mut attempts = Attempts::default();
        loop {
            let row = self.0.tenant.lane(key.home()).reader();
            let row = row.get::<Medias>(&key).await?.ok_or(MediaError::NotFound)?;
            let taken = self.take_away(&key, &row, None, &mut attempts).await?;
            if taken.is_some() {
                return Ok(());
            }
        }
    }

    /// Removes a user's media, at most so many pieces of it; their ids. Ids that wait for their upload go as well.
    ///
    /// # Errors
    /// The store's and the disk's.
    pub async fn remove_of(&self, user: &UserId, most: usize) -> Result<Vec<String>, MediaError> {
        for (upload, under_way) in self.uploads(user).await? {
            if under_way.value.counted.is_none() {
                self.remove_if_there(&upload.id).await?;
                self.settle(&upload, under_way.pos).await?;
            }
        }
        let mut removed = Vec::new();
        let mut after = None;
        loop {
            let page = self.files(user, after.as_ref(), PAGE).await?;
            for file in &page {
                if removed.len() >= most {
                    return Ok(removed);
                }
                // One that isn't there is on its way; it is named in a moment or counts no more.
                if self.remove_if_there(&file.id).await? {
                    removed.push(file.id.clone());
                }
            }
            if page.len() < PAGE {
                return Ok(removed);
            }
            after = page.into_iter().next_back();
        }
    }

    async fn remove_if_there(&self, id: &str) -> Result<bool, MediaError> {
        match self.remove(&self.own(id)?).await {
            Ok(()) => Ok(true),
            Err(MediaError::NotFound) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Takes media away, with what was made of it, if its row is still the one that was read, and leaves `mark` in its place; how many
    /// bytes are kept the less of what goes by itself one day.
    pub(crate) async fn take_away(
        &self,
        key: &MediaKey,
        row: &Row<tables::Media>,
        mark: Option<&tables::Media>,
        attempts: &mut Attempts,
    ) -> Result<Option<u64>, MediaError> {
        let lane = self.0.tenant.lane(key.home());
        let cached = lane.reader().get::<Remote>(key).await?;
        let mut batch = lane.batch();
        batch.expect::<Medias>(key, Expect::At(row.pos));
        match mark {
            Some(mark) => batch.put::<Medias>(key, mark),
            None => batch.delete::<Medias>(key),
        };
        match &cached {
            Some(cached) => {
                batch.expect::<Remote>(key, Expect::At(cached.pos));
                batch.delete::<Remote>(key);
            }
            None => {
                batch.expect::<Remote>(key, Expect::Absent);
            }
        }
        let mut notes = self.unmake(&mut batch, key, None).await?;
        let content = row.value.content.as_ref();
        notes.extend(content.map(|content| {
            let note = HeldKey {
                hash: content.hash,
                media: key.clone(),
            };
            batch.delete::<Held>(&note).put::<Arriving>(&note, &());
            note
        }));
        let uploader = row.value.uploader.clone().filter(|_| content.is_some());
        let removal = uploader.map(|uploader| Removal { uploader });
        if let Some(removal) = &removal {
            batch.put::<Removals>(key, removal);
        }
        if attempts.commit(lane, batch).await?.is_none() {
            return Ok(None);
        }
        let freed = cached.map_or(0, |cached| cached.value.bytes);
        self.kept_less(freed);
        if let Some(removal) = removal {
            self.finish_removal(key, &removal).await?;
        }
        for note in notes {
            self.discard(&note).await?;
        }
        Ok(Some(freed))
    }

    /// It counts no more for who uploaded it.
    async fn finish_removal(&self, key: &MediaKey, removal: &Removal) -> Result<(), MediaError> {
        let user = OwnedUserId::try_from(removal.uploader.as_str());
        if let (Ok(user), Some((_, id))) = (user, key.parts()) {
            self.uncharge(&user, id).await?;
        }
        let lane = self.0.tenant.lane(key.home());
        let mut batch = lane.batch();
        batch.delete::<Removals>(key);
        lane.commit(batch).await?;
        Ok(())
    }

    /// Finishes what a crash interrupted.
    pub(crate) async fn finish_removals(&self) -> Result<(), MediaError> {
        let reader = self.0.tenant.reader();
        let removals = reader.scan::<Removals>(Range::everywhere(|_| {})).await?;
        for (key, removal) in removals {
            self.finish_removal(&key, &removal.value).await?;
        }
        Ok(())
    }
}
