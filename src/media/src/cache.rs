//! What is kept of other servers' media and of pages, and what was made of any file: until there is too much of it, when that goes which
//! nobody has looked at for longest (threat H6).

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use comity_storage::{Attempts, CommitError, Expect, Key, Pages};
use tokio::sync::Mutex;

use crate::{
    Content, Media, MediaError,
    staging::Staged,
    tables::{self, Cached, Hash, MediaKey, Medias, Remote},
};

/// What a file costs beside its bytes, for its rows and its place on the disk: many small ones are much as well.
pub(crate) const FOOTPRINT: u64 = 16 << 10;
/// That somebody looked is written down this often.
const DAY_MS: u64 = 24 * 60 * 60 * 1_000;
/// Files let go before all are looked through again.
const PAGE: usize = 1_000;

/// What is known of it, in memory.
#[derive(Default)]
pub(crate) struct Cache {
    /// Bytes that are kept: what the rows say, added up.
    kept: AtomicU64,
    evicting: Arc<Mutex<()>>,
}

impl Media {
    /// Makes a staged file media that is kept for a while; what it is then, and the position of its row.
    pub(crate) async fn cache(
        &self,
        key: &MediaKey,
        staged: &Staged,
        content: Content,
    ) -> Result<(Content, u64), MediaError> {
        let row = tables::Media {
            uploader: None,
            created_ts: self.now_ms(),
            expires_ts: 0,
            quarantined: false,
            content: Some(content),
        };
        let placed = self.place(staged, key, |batch| {
            batch.expect::<Medias>(key, Expect::Absent);
            batch.put::<Medias>(key, &row);
        });
        match placed.await {
            Ok(()) => {}
            // It has come by another flight meanwhile, or was quarantined.
            Err(MediaError::Commit(CommitError::Conflict(_))) => {}
            Err(error) => return Err(error),
        }
        self.cached(key).await?.ok_or(MediaError::NotFound)
    }

    /// A file that is kept; that somebody looked is noted.
    ///
    /// # Errors
    /// [`MediaError::NotFound`] if nobody gets it, from here or elsewhere.
    pub(crate) async fn cached(
        &self,
        key: &MediaKey,
    ) -> Result<Option<(Content, u64)>, MediaError> {
        let Some(row) = self.0.tenant.reader().get::<Medias>(key).await? else {
            return Ok(None);
        };
        if row.value.quarantined {
            return Err(MediaError::NotFound);
        }
        self.looked_at(key).await?;
        Ok(row.value.content.map(|content| (content, row.pos)))
    }

    /// Notes that somebody looked at a file, if it is one that goes when nobody does.
    pub(crate) async fn looked_at(&self, key: &MediaKey) -> Result<(), MediaError> {
        let now = self.now_ms();
        let look = |cached: Cached| Cached {
            used_ts: now,
            ..cached
        };
        let yesterday = |cached: &Cached| cached.used_ts.saturating_add(DAY_MS) <= now;
        let lane = self.0.tenant.lane(key.home());
        loop {
            let row = lane.reader().get::<Remote>(key).await?;
            let Some(row) = row.filter(|row| yesterday(&row.value)) else {
                return Ok(());
            };
            let mut batch = lane.batch();
            batch.expect::<Remote>(key, Expect::At(row.pos));
            batch.put::<Remote>(key, &look(row.value));
            match lane.commit(batch).await {
                Ok(_) => return Ok(()),
                // Another change came before, or it has just gone.
                Err(CommitError::Conflict(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// So much more is kept; if that is too much, something goes, and nobody waits for that.
    pub(crate) fn kept_more(&self, bytes: u64) {
        let cache = &self.0.cache;
        let kept = cache.kept.fetch_add(bytes, Ordering::Relaxed);
        if kept.saturating_add(bytes) <= self.0.config.max_cache_bytes {
            return;
        }
        let Ok(evicting) = Arc::clone(&cache.evicting).try_lock_owned() else {
            return;
        };
        let media = self.clone();
        drop(self.0.runtime.spawn("eviction", async move {
            let _evicting = evicting;
            if let Err(error) = media.evict().await {
                tracing::warn!(%error, "what nobody looks at could not be let go of");
            }
        }));
    }

    /// Lets go of what nobody has looked at for longest, until a tenth of the bound is free.
    async fn evict(&self) -> Result<(), MediaError> {
        let enough = self.0.config.max_cache_bytes / 10 * 9;
        loop {
            let mut freed = 0;
            for (_, key) in self.oldest().await? {
                if self.0.cache.kept.load(Ordering::Relaxed) <= enough {
                    return Ok(());
                }
                freed += self.forget(&key).await?;
            }
            if freed == 0 {
                return Ok(());
            }
        }
    }

    /// The files that go next, the first one first.
    async fn oldest(&self) -> Result<BTreeSet<(u64, MediaKey)>, MediaError> {
        let mut oldest = BTreeSet::new();
        self.each_cached(|key, cached| {
            oldest.insert((cached.used_ts, key));
            if oldest.len() > PAGE {
                oldest.pop_last();
            }
        })
        .await?;
        Ok(oldest)
    }

    /// Counts what is kept.
    pub(crate) async fn count_cached(&self) -> Result<(), MediaError> {
        let mut bytes: u64 = 0;
        self.each_cached(|_, cached| bytes = bytes.saturating_add(cached.bytes))
            .await?;
        self.0.cache.kept.store(bytes, Ordering::Relaxed);
        Ok(())
    }

    async fn each_cached(
        &self,
        mut look: impl FnMut(MediaKey, Cached) + Send,
    ) -> Result<(), MediaError> {
        let reader = self.0.tenant.reader();
        let mut pages = Pages::<Remote>::all();
        while let Some(page) = pages.next(&reader).await? {
            for (key, row) in page {
                look(key, row.value);
            }
        }
        Ok(())
    }

    /// Lets go of what is kept by this name, if nobody has just looked; how many bytes are free by that.
    async fn forget(&self, key: &MediaKey) -> Result<u64, MediaError> {
        let row = self.0.tenant.reader().get::<Medias>(key).await?;
        match row {
            Some(row) if row.value.uploader.is_none() => {
                let mut once = Attempts::default();
                let freed = self.take_away(key, &row, None, &mut once).await?;
                Ok(freed.unwrap_or_default())
            }
            row => {
                let own = row.and_then(|row| row.value.content);
                self.forget_made(key, own.map(|own| own.hash)).await
            }
        }
    }

    /// Lets go of what was made of a user's file, which stays.
    async fn forget_made(&self, key: &MediaKey, own: Option<Hash>) -> Result<u64, MediaError> {
        let lane = self.0.tenant.lane(key.home());
        let Some(cached) = lane.reader().get::<Remote>(key).await? else {
            return Ok(0);
        };
        let mut batch = lane.batch();
        batch.expect::<Remote>(key, Expect::At(cached.pos));
        batch.delete::<Remote>(key);
        let notes = self.unmake(&mut batch, key, own).await?;
        match lane.commit(batch).await {
            Ok(_) => {}
            Err(CommitError::Conflict(_)) => return Ok(0),
            Err(error) => return Err(error.into()),
        }
        self.kept_less(cached.value.bytes);
        for note in notes {
            self.discard(&note).await?;
        }
        Ok(cached.value.bytes)
    }

    /// So much less is kept.
    pub(crate) fn kept_less(&self, bytes: u64) {
        self.0.cache.kept.fetch_sub(bytes, Ordering::Relaxed);
    }
}
