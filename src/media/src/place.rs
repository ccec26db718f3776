//! Blobs that nobody uploaded get their rows: files of other servers, thumbnails, pictures of pages.
//!
//! What is about to be put is noted before, and the note goes with the commit that names the blob; or the start after a crash
//! takes both away.

use comity_storage::{Batch, CommitError, Key, Range};

use crate::{
    Media, MediaError,
    staging::Staged,
    tables::{Arriving, Hash, Held, HeldKey, MediaKey, Medias, Thumbnails},
};

impl Media {
    /// Puts a staged file under its hash, held by this media, in one commit with `rows`.
    pub(crate) async fn place(
        &self,
        staged: &Staged,
        media: &MediaKey,
        rows: impl FnOnce(&mut Batch) + Send,
    ) -> Result<(), MediaError> {
        let held = HeldKey {
            hash: staged.hash,
            media: media.clone(),
        };
        let lane = self.0.tenant.lane(media.home());
        let mut batch = lane.batch();
        batch.put::<Arriving>(&held, &());
        lane.commit(batch).await?;
        // Whoever collects the same blob waits until it is held.
        let locked = self.0.blobs.lock(&staged.hash).await;
        let mut placed = self.0.blobs.put(staged).await;
        if placed.is_ok() {
            let mut batch = lane.batch();
            batch.put::<Held>(&held, &()).delete::<Arriving>(&held);
            rows(&mut batch);
            placed = lane.commit(batch).await.map(drop).map_err(MediaError::from);
        }
        drop(locked);
        match &placed {
            // It may have been written: the next start finds out.
            Ok(()) | Err(MediaError::Commit(CommitError::Unknown(_))) => {}
            Err(_) => self.discard(&held).await?,
        }
        placed
    }

    /// Takes away a blob that nobody came to hold or that was let go, with what was made of media that is gone, and the note.
    pub(crate) async fn discard(&self, note: &HeldKey) -> Result<(), MediaError> {
        let lane = self.0.tenant.lane(note.home());
        let mut hashes = vec![note.hash];
        // Without their media no thumbnails are made any more.
        let reader = lane.reader();
        let media = reader.get::<Medias>(&note.media).await?;
        if media.is_none_or(|row| row.value.content.is_none()) {
            let made = Range::of(note.home(), |prefix| note.media.write(prefix));
            let made = reader.scan::<Thumbnails>(made).await?;
            let mut batch = lane.batch();
            for (key, row) in made {
                batch.delete::<Thumbnails>(&key);
                if let Some(content) = row.value.content {
                    let hash = content.hash;
                    let held = HeldKey {
                        hash,
                        ..note.clone()
                    };
                    batch.delete::<Held>(&held).put::<Arriving>(&held, &());
                    hashes.push(hash);
                }
            }
            lane.commit(batch).await?;
        }
        for hash in hashes {
            self.collect(&hash).await?;
            let mut batch = lane.batch();
            batch.delete::<Arriving>(&HeldKey {
                hash,
                ..note.clone()
            });
            lane.commit(batch).await?;
        }
        Ok(())
    }

    /// Takes a blob away that no media holds.
    pub(crate) async fn collect(&self, hash: &Hash) -> Result<(), MediaError> {
        let _held = self.0.blobs.lock(hash).await;
        let holders = Range::everywhere(|key| {
            key.fixed(hash);
        });
        let reader = self.0.tenant.reader();
        let holders = reader.scan::<Held>(holders.limit(1)).await?;
        if holders.is_empty() {
            self.0.blobs.delete(hash).await?;
        }
        Ok(())
    }

    /// Takes blobs away that were on their way when a run ended, unless somebody holds them.
    pub(crate) async fn discard_arriving(&self) -> Result<(), MediaError> {
        let reader = self.0.tenant.reader();
        let notes = reader.scan::<Arriving>(Range::everywhere(|_| {})).await?;
        for (note, _) in notes {
            self.discard(&note).await?;
        }
        Ok(())
    }
}
