//! Media of other servers: fetched once for all who ask, kept until there is too much of it.
//!
//! What is fetched is bounded a file, a user and altogether (threat H6): each user's fetching fills a bucket that leaks, and when
//! what is kept goes over its bound the files that nobody has looked at for longest go.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use comity_storage::{CommitError, Expect, Key, Range};
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use crate::{
    Content, Elsewhere, Fetched, Media, MediaError, Mxc, NotFetched,
    tables::{self, Arriving, Cached, Held, HeldKey, MediaKey, Medias, Remote},
    upload::content,
};

/// Files on their way here at once.
const FETCHES: usize = 32;
/// For a whole file.
const PATIENCE: Duration = Duration::from_secs(5 * 60);
/// A full bucket is empty after this many seconds.
const LEAK_SECONDS: u64 = 1_024;
/// Users whose buckets are remembered.
const BUCKETS: usize = 10_000;
/// That somebody looked is written down this often.
const DAY_MS: u64 = 24 * 60 * 60 * 1_000;

/// What is known of fetching, in memory.
pub(crate) struct Fetching {
    pub elsewhere: std::sync::OnceLock<Arc<dyn Elsewhere>>,
    under_way: Mutex<BTreeMap<MediaKey, Arc<tokio::sync::Mutex<()>>>>,
    places: Semaphore,
    /// What each user has fetched, and when that was so on the monotonic clock.
    buckets: Mutex<BTreeMap<String, (u64, Duration)>>,
    /// Bytes that are kept.
    kept: AtomicU64,
    evicting: tokio::sync::Mutex<()>,
}

impl Default for Fetching {
    fn default() -> Self {
        Self {
            elsewhere: std::sync::OnceLock::new(),
            under_way: Mutex::default(),
            places: Semaphore::new(FETCHES),
            buckets: Mutex::default(),
            kept: AtomicU64::new(0),
            evicting: tokio::sync::Mutex::default(),
        }
    }
}

impl Media {
    /// From now on other servers are asked for their media.
    pub fn use_elsewhere(&self, elsewhere: Arc<dyn Elsewhere>) {
        // Given once, by the composition.
        drop(self.0.fetching.elsewhere.set(elsewhere));
    }

    /// A file of another server and the position of its row; fetched for `asker` if it isn't here, and somebody asks.
    pub(crate) async fn find_remote(
        &self,
        mxc: &Mxc,
        asker: Option<&str>,
    ) -> Result<(Content, u64), MediaError> {
        let key = MediaKey::from(mxc);
        if let Some(found) = self.cached(&key).await? {
            return Ok(found);
        }
        let asker = asker.ok_or(MediaError::NotFound)?.to_owned();
        let elsewhere = self.0.fetching.elsewhere.get();
        let elsewhere = elsewhere.ok_or(MediaError::NotFound)?.clone();
        // A task of its own: who asked may hang up, others wait for the same.
        let (media, mxc) = (self.clone(), mxc.clone());
        let fetching = async move { media.fetch_once(&key, &mxc, &asker, &*elsewhere).await };
        let fetching = self.0.runtime.spawn("media of another server", fetching);
        fetching.await.map_err(|_| MediaError::Stopped)?
    }

    async fn fetch_once(
        &self,
        key: &MediaKey,
        mxc: &Mxc,
        asker: &str,
        elsewhere: &dyn Elsewhere,
    ) -> Result<(Content, u64), MediaError> {
        let turn = {
            let mut under_way = self.0.fetching.under_way.lock();
            under_way.retain(|_, turn| Arc::strong_count(turn) > 1);
            under_way.entry(key.clone()).or_default().clone()
        };
        let _turn = turn.lock().await;
        if let Some(found) = self.cached(key).await? {
            return Ok(found);
        }
        let most = self.0.config.max_remote_bytes;
        self.admit(asker)?;
        let fetched = self.fetch(key, mxc, elsewhere, most).await;
        let found = fetched?;
        let (content, _) = &found;
        self.fetched(asker, content.size);
        self.kept(content.size).await?;
        Ok(found)
    }

    /// So much more is kept; if that is too much, something goes.
    pub(crate) async fn kept(&self, bytes: u64) -> Result<(), MediaError> {
        let kept = self.0.fetching.kept.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if kept > self.0.config.max_cache_bytes {
            self.evict().await?;
        }
        Ok(())
    }

    async fn fetch(
        &self,
        key: &MediaKey,
        mxc: &Mxc,
        elsewhere: &dyn Elsewhere,
        most: u64,
    ) -> Result<(Content, u64), MediaError> {
        let Ok(_place) = self.0.fetching.places.acquire().await else {
            return Err(MediaError::Stopped);
        };
        let whole = async {
            let Fetched { described, body } = elsewhere.media(mxc, most).await?;
            let staged = self.0.blobs.stage(&self.new_id(), body, most).await;
            let staged = staged.map_err(|error| match error {
                MediaError::TooLarge => NotFetched::TooLarge.into(),
                MediaError::Broken => NotFetched::Unreachable("it broke off".to_owned()).into(),
                error => error,
            })?;
            Ok::<_, MediaError>((staged, described))
        };
        let timed_out = || NotFetched::Unreachable("timed out".to_owned());
        let whole = tokio::time::timeout(PATIENCE, whole).await;
        let (staged, described) = whole.map_err(|_| timed_out())??;
        let content = content(&staged, described);
        let now = self.now_ms();
        let row = tables::Media {
            uploader: None,
            created_ts: now,
            expires_ts: 0,
            content: Some(content.clone()),
        };
        let cached = Cached {
            bytes: content.size,
            used_ts: now,
        };
        self.place(&staged, key, |batch| {
            batch.put::<Medias>(key, &row).put::<Remote>(key, &cached);
        })
        .await?;
        self.cached(key).await?.ok_or(MediaError::NotFound)
    }

    /// A file of another server that is here; that somebody looked is noted.
    async fn cached(&self, key: &MediaKey) -> Result<Option<(Content, u64)>, MediaError> {
        let lane = self.0.tenant.lane(key.home());
        let reader = self.0.tenant.reader();
        let Some(row) = reader.get::<Medias>(key).await? else {
            return Ok(None);
        };
        let cached = reader.get::<Remote>(key).await?;
        let now = self.now_ms();
        if let Some(cached) = cached.filter(|row| row.value.used_ts + DAY_MS <= now) {
            let used = Cached {
                used_ts: now,
                ..cached.value
            };
            let mut batch = lane.batch();
            batch.expect::<Remote>(key, Expect::At(cached.pos));
            batch.put::<Remote>(key, &used);
            match lane.commit(batch).await {
                // Somebody else looked, or it has just gone.
                Ok(_) | Err(CommitError::Conflict(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(row.value.content.map(|content| (content, row.pos)))
    }

    /// Refuses a user whose bucket is full. What is on its way isn't in it yet, and is bounded by how many there are at a time.
    fn admit(&self, asker: &str) -> Result<(), MediaError> {
        let level = self.fetched(asker, 0);
        let (size, leak) = self.bucket();
        if level < size {
            return Ok(());
        }
        let seconds = (level - size) / leak + 1;
        Err(MediaError::FetchedTooMuch {
            retry_after_ms: seconds.saturating_mul(1_000),
        })
    }

    /// Puts what a user has fetched into their bucket; what is in it then, in bytes.
    fn fetched(&self, asker: &str, bytes: u64) -> u64 {
        let now = self.0.runtime.clock().monotonic();
        let (_, leak) = self.bucket();
        let left = |(level, then): (u64, Duration)| {
            let leaked = now.saturating_sub(then).as_secs().saturating_mul(leak);
            level.saturating_sub(leaked)
        };
        let mut buckets = self.0.fetching.buckets.lock();
        if buckets.len() >= BUCKETS {
            buckets.retain(|_, bucket| left(*bucket) > 0);
        }
        let level = buckets.get(asker).map_or(0, |bucket| left(*bucket));
        let level = level.saturating_add(bytes);
        if bytes > 0 {
            buckets.insert(asker.to_owned(), (level, now));
        }
        level
    }

    /// How much a bucket holds, and how much leaks out of it a second.
    fn bucket(&self) -> (u64, u64) {
        let size = self.0.config.fetch_bucket_bytes;
        (size, (size / LEAK_SECONDS).max(1))
    }

    /// Counts what is kept of other servers.
    pub(crate) async fn count_cached(&self) -> Result<(), MediaError> {
        let rows = self.0.tenant.reader();
        let rows = rows.scan::<Remote>(Range::everywhere(|_| {})).await?;
        let bytes = rows.iter().map(|(_, row)| row.value.bytes).sum();
        self.0.fetching.kept.store(bytes, Ordering::Relaxed);
        Ok(())
    }

    /// Lets go of what nobody has looked at for longest, until a tenth of the bound is free.
    async fn evict(&self) -> Result<(), MediaError> {
        let Ok(_evicting) = self.0.fetching.evicting.try_lock() else {
            return Ok(());
        };
        let most = self.0.config.max_cache_bytes;
        let rows = self.0.tenant.reader();
        let mut rows = rows.scan::<Remote>(Range::everywhere(|_| {})).await?;
        rows.sort_by(|(one, a), (other, b)| (a.value.used_ts, one).cmp(&(b.value.used_ts, other)));
        let mut kept: u64 = rows.iter().map(|(_, row)| row.value.bytes).sum();
        for (key, row) in rows {
            if kept <= most / 10 * 9 {
                break;
            }
            self.forget(&key).await?;
            kept = kept.saturating_sub(row.value.bytes);
        }
        self.0.fetching.kept.store(kept, Ordering::Relaxed);
        Ok(())
    }

    /// Lets a file of another server go, with what was made of it.
    async fn forget(&self, key: &MediaKey) -> Result<(), MediaError> {
        let reader = self.0.tenant.lane(key.home()).reader();
        let Some(row) = reader.get::<Medias>(key).await? else {
            return Ok(());
        };
        let hash = row.value.content.map(|content| content.hash);
        let note = HeldKey {
            hash: hash.unwrap_or_default(),
            media: key.clone(),
        };
        let lane = self.0.tenant.lane(key.home());
        let mut batch = lane.batch();
        batch.expect::<Medias>(key, Expect::At(row.pos));
        batch.delete::<Medias>(key).delete::<Remote>(key);
        batch.delete::<Held>(&note).put::<Arriving>(&note, &());
        match lane.commit(batch).await {
            Ok(_) => self.discard(&note).await,
            Err(CommitError::Conflict(_)) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}
