//! Blobs that nobody uploaded get their rows: files of other servers, thumbnails, pictures of pages.
//!
//! What is about to be put is noted before, and the note goes with the commit that names the blob; or the start after a crash
//! takes both away.

use comity_storage::{Batch, CommitError, Expect, Key, Range, Table};

use crate::{
    Media, MediaError,
    cache::FOOTPRINT,
    staging::Staged,
    tables::{Arriving, Cached, Hash, Held, HeldKey, MediaKey, Remote, Thumbnails},
};

impl Media {
    /// Puts a staged file under its hash, held by this media and counted among what goes when nobody looks, in one commit with `rows`.
    pub(crate) async fn place(
        &self,
        staged: &Staged,
        media: &MediaKey,
        rows: impl Fn(&mut Batch) + Send + Sync,
    ) -> Result<(), MediaError> {
        let held = HeldKey {
            hash: staged.hash,
            media: media.clone(),
        };
        let lane = self.0.tenant.lane(media.home());
        // Whoever collects the same blob waits until it is held, with its note.
        let locked = self.0.blobs.lock(&staged.hash).await;
        let mut batch = lane.batch();
        batch.put::<Arriving>(&held, &());
        lane.commit(batch).await?;
        let mut placed = self.0.blobs.put(staged).await;
        if placed.is_ok() {
            placed = self.hold(&held, staged.size, rows).await;
        }
        drop(locked);
        match &placed {
            // It may have been written: the next start finds out.
            Ok(()) | Err(MediaError::Commit(CommitError::Unknown(_))) => {}
            Err(_) => self.discard(&held).await?,
        }
        placed
    }

    /// The commit of [`Media::place`].
    async fn hold(
        &self,
        held: &HeldKey,
        size: u64,
        rows: impl Fn(&mut Batch) + Send + Sync,
    ) -> Result<(), MediaError> {
        let lane = self.0.tenant.lane(held.home());
        let more = size.saturating_add(FOOTPRINT);
        loop {
            let kept = lane.reader().get::<Remote>(&held.media).await?;
            let (expect, bytes) = match kept {
                Some(kept) => (Expect::At(kept.pos), kept.value.bytes),
                None => (Expect::Absent, 0),
            };
            let cached = Cached {
                bytes: bytes.saturating_add(more),
                used_ts: self.now_ms(),
            };
            let mut batch = lane.batch();
            batch.put::<Held>(held, &()).delete::<Arriving>(held);
            batch.expect::<Remote>(&held.media, expect);
            batch.put::<Remote>(&held.media, &cached);
            rows(&mut batch);
            match lane.commit(batch).await {
                Ok(_) => break,
                // Somebody looked meanwhile, or more was made of it.
                Err(CommitError::Conflict(table)) if table == Remote::NAME => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.kept_more(more);
        Ok(())
    }

    /// Puts into a batch that what was made of media goes, but for the media's own blob, where that stays; notes of the blobs that are
    /// to be discarded then. That more is made meanwhile, its caller excludes by what is kept of it ([`Remote`]).
    pub(crate) async fn unmake(
        &self,
        batch: &mut Batch,
        media: &MediaKey,
        own: Option<Hash>,
    ) -> Result<Vec<HeldKey>, MediaError> {
        let made = Range::of(media.home(), |prefix| media.write(prefix));
        let reader = self.0.tenant.lane(media.home()).reader();
        let made = reader.scan::<Thumbnails>(made).await?;
        // That a size needs no file of its own may be noted meanwhile.
        batch.delete_all::<Thumbnails>(media.home(), |prefix| media.write(prefix));
        let mut notes = Vec::new();
        for (key, row) in made {
            batch.expect::<Thumbnails>(&key, Expect::At(row.pos));
            let hash = row.value.content.map(|content| content.hash);
            if let Some(hash) = hash.filter(|hash| Some(*hash) != own) {
                let note = HeldKey {
                    hash,
                    media: media.clone(),
                };
                batch.delete::<Held>(&note).put::<Arriving>(&note, &());
                notes.push(note);
            }
        }
        Ok(notes)
    }

    /// Takes away a blob that nobody came to hold or that was let go, unless others hold it, and its note.
    pub(crate) async fn discard(&self, note: &HeldKey) -> Result<(), MediaError> {
        let _held = self.0.blobs.lock(&note.hash).await;
        let lane = self.0.tenant.lane(note.home());
        let noted = lane.reader().get::<Arriving>(note).await?;
        self.collect_locked(&note.hash).await?;
        let Some(noted) = noted else {
            return Ok(());
        };
        let mut batch = lane.batch();
        batch.expect::<Arriving>(note, Expect::At(noted.pos));
        batch.delete::<Arriving>(note);
        match lane.commit(batch).await {
            // It was held, and has been let go of meanwhile: the note is another's.
            Ok(_) | Err(CommitError::Conflict(_)) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Takes a blob away that no media holds.
    pub(crate) async fn collect(&self, hash: &Hash) -> Result<(), MediaError> {
        let _held = self.0.blobs.lock(hash).await;
        self.collect_locked(hash).await
    }

    async fn collect_locked(&self, hash: &Hash) -> Result<(), MediaError> {
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
