//! RocksDB: the embedded engine. One folder, one process, one write-ahead log for all lanes.
//!
//! A column family a [`Family`]; a row's key there is its key bytes, for one machine needs no slot.
//! A group is written to the log without sync on the writer thread; the sync thread then makes
//! durable all that was written before it began, so that the next group is written meanwhile.
//!
//! The folder's lock makes this process the only one, and a lane's conditions were checked by its
//! committer, which alone writes it. So what is checked again at the write is the claim, under the
//! gate that a claim passes too.
//!
//! What memtables and block cache hold is read where the caller stands; what may touch the disk,
//! and what is large, on a bounded pool.

use std::{fmt, os::unix::fs::DirBuilderExt, path::PathBuf, sync::Arc, time::Duration};

use bytes::Bytes;
use comity_runtime::{Pool, Runtime};
use parking_lot::Mutex;
use rocksdb::{
    BlockBasedOptions, BoundColumnFamily, Cache, ColumnFamilyDescriptor, CompactOptions,
    DBCompressionType, DBRecoveryMode, DBWithThreadMode, ErrorKind, LogLevel, MultiThreaded,
    Options, ReadOptions, ReadTier, WriteBatch,
};

use super::{Op, RowKey, Scan, Write};
use crate::{
    error::{CommitError, OpenError, ReadError},
    table::Family,
};

type Db = DBWithThreadMode<MultiThreaded>;
type Rows = Vec<(Bytes, Bytes)>;

/// Write-ahead logs together hold at most so many bytes: what a start replays.
const WAL_BYTES: u64 = 96 << 20;
/// Keys of a request, or rows of its scans, beyond which it runs whole on the reader pool.
const INLINE: usize = 128;
/// Reads that may wait for a reader.
const READS_WAITING: usize = 4096;
/// How often every body's file is rewritten, so that what was redacted or erased leaves the disk.
const BODIES_REWRITTEN: Duration = Duration::from_secs(24 * 60 * 60);

/// Where and how much.
#[derive(Clone, Debug)]
pub struct Config {
    /// The folder; made if missing.
    pub path: PathBuf,
    /// Bytes of blocks, indexes and filters kept in memory at the most.
    pub block_cache: usize,
    /// Bytes of rows kept in memory before they are written to sorted files, at the most.
    pub write_buffers: usize,
    /// Reads from disk at the same time.
    pub readers: usize,
}

impl Config {
    /// A folder with what suits a small machine.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            block_cache: 32 << 20,
            write_buffers: 64 << 20,
            readers: 4,
        }
    }
}

/// The RocksDB engine. Clones share the open folder; it closes with the last one.
#[derive(Clone)]
pub struct Rocks(Arc<Inner>);

struct Inner {
    db: Db,
    /// Held while claims are checked and the rows they allow are written.
    gate: Mutex<()>,
    runtime: Runtime,
    writer: Pool,
    syncer: Pool,
    readers: Pool,
    compactor: Pool,
}

impl fmt::Debug for Rocks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Rocks({})", self.0.db.path().display())
    }
}

impl Rocks {
    /// Opens the folder, replaying what its write-ahead logs hold.
    ///
    /// # Errors
    /// [`OpenError::Engine`] says what stands in the way and what to do about it: another process,
    /// a damaged log, the file system.
    pub async fn open(config: Config, runtime: &Runtime) -> Result<Self, OpenError> {
        let writer = runtime.pool("store write", 1, 64);
        let opened = writer
            .run(move || open(&config))
            .await
            .map_err(|error| OpenError::Engine(error.to_string()))?;
        let (db, readers) = opened?;
        Ok(Self(Arc::new(Inner {
            db,
            gate: Mutex::new(()),
            runtime: runtime.clone(),
            writer,
            syncer: runtime.pool("store sync", 1, 64),
            readers: runtime.pool("store read", readers, READS_WAITING),
            compactor: runtime.pool("store compact", 1, 16),
        })))
    }

    pub(super) async fn get_many(&self, keys: &[RowKey]) -> Result<Vec<Option<Bytes>>, ReadError> {
        if keys.len() <= INLINE
            && let Some(values) = self.0.get_many(keys, ReadTier::BlockCache)?
        {
            return Ok(values);
        }
        let keys = keys.to_vec();
        self.read(move |inner| inner.get_many(&keys, ReadTier::All))
            .await
    }

    pub(super) async fn scan_many(&self, scans: &[Scan]) -> Result<Vec<Rows>, ReadError> {
        if let Some(rows) = self.0.scan_many(scans, ReadTier::BlockCache, INLINE)? {
            return Ok(rows);
        }
        let scans = scans.to_vec();
        self.read(move |inner| inner.scan_many(&scans, ReadTier::All, usize::MAX))
            .await
    }

    /// Reads on the pool, where nothing is too far or too much.
    async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Inner) -> Result<Option<T>, ReadError> + Send + 'static,
    ) -> Result<T, ReadError> {
        let inner = self.0.clone();
        let answer = self.0.readers.run(move || read(&inner)).await;
        answer
            .map_err(|error| ReadError::Engine(error.to_string()))??
            .ok_or_else(|| ReadError::Engine("a read came back without its rows".into()))
    }

    pub(super) async fn claim(
        &self,
        row: &RowKey,
        expected: Option<&Bytes>,
        epoch: &Bytes,
    ) -> Result<(), CommitError> {
        let (row, expected, epoch) = (row.clone(), expected.cloned(), epoch.clone());
        self.write(move |inner| {
            let _gate = inner.gate.lock();
            if inner.get(&row)? != expected {
                return Err(CommitError::Fenced);
            }
            let family = inner.family(row.family)?;
            let put = inner.db.put_cf(&family, &row.key, &epoch);
            put.and_then(|()| inner.db.flush_wal(true)).map_err(unknown)
        })
        .await
    }

    pub(super) async fn apply(&self, writes: Arc<[Write]>) -> Result<(), CommitError> {
        let erased = self.write(move |inner| inner.apply(&writes)).await?;
        if !erased.is_empty() {
            let (inner, compactor) = (self.0.clone(), self.0.compactor.clone());
            drop(self.0.runtime.spawn("compact", async move {
                // With too many waiting it is left to the periodic rewriting.
                let _ = compactor.run(move || inner.compact(&erased)).await;
            }));
        }
        Ok(())
    }

    async fn write<T: Send + 'static>(
        &self,
        write: impl FnOnce(&Inner) -> Result<T, CommitError> + Send + 'static,
    ) -> Result<T, CommitError> {
        let inner = self.0.clone();
        let answer = self.0.writer.run(move || write(&inner)).await;
        answer.map_err(unknown)?
    }

    pub(super) async fn sync(&self) -> Result<(), CommitError> {
        let inner = self.0.clone();
        let synced = self.0.syncer.run(move || inner.db.flush_wal(true)).await;
        synced.map_err(unknown)?.map_err(unknown)
    }
}

impl Inner {
    /// `None` where that tier doesn't hold all of them.
    fn get_many(
        &self,
        keys: &[RowKey],
        tier: ReadTier,
    ) -> Result<Option<Vec<Option<Bytes>>>, ReadError> {
        let mut options = ReadOptions::default();
        options.set_read_tier(tier);
        let families = Family::ALL.map(|family| self.family(family));
        let mut asked = Vec::with_capacity(keys.len());
        for row in keys {
            match families.get(row.family as usize) {
                Some(Ok(family)) => asked.push((family, row.key.as_ref())),
                _ => return Err(missing(row.family)),
            }
        }
        let mut values = Vec::with_capacity(keys.len());
        for value in self.db.multi_get_cf_opt(asked, &options) {
            match value {
                // Of a key whose block or file isn't in memory RocksDB may say that it is there, without its
                // value. No value of ours is empty: it has a format byte.
                Ok(Some(value)) if value.is_empty() && matches!(tier, ReadTier::BlockCache) => {
                    return Ok(None);
                }
                Ok(value) => values.push(value.map(Bytes::from)),
                Err(error) if error.kind() == ErrorKind::Incomplete => return Ok(None),
                Err(error) => return Err(ReadError::Engine(error.into_string())),
            }
        }
        Ok(Some(values))
    }

    /// `None` where that tier doesn't hold all of them or they are more than `most`.
    fn scan_many(
        &self,
        scans: &[Scan],
        tier: ReadTier,
        most: usize,
    ) -> Result<Option<Vec<Rows>>, ReadError> {
        let mut left = most;
        let mut found = Vec::with_capacity(scans.len());
        for scan in scans {
            let Some(rows) = self.scan(scan, tier, left)? else {
                return Ok(None);
            };
            left -= rows.len();
            found.push(rows);
        }
        Ok(Some(found))
    }

    fn scan(&self, scan: &Scan, tier: ReadTier, most: usize) -> Result<Option<Rows>, ReadError> {
        let mut rows = Vec::new();
        if scan.from >= scan.to || scan.limit == 0 {
            return Ok(Some(rows));
        }
        let mut options = ReadOptions::default();
        options.set_read_tier(tier);
        options.set_iterate_lower_bound(scan.from.as_ref());
        options.set_iterate_upper_bound(scan.to.as_ref());
        let family = self.family(scan.family)?;
        let mut iterator = self.db.raw_iterator_cf_opt(&family, options);
        if scan.reverse {
            iterator.seek_to_last();
        } else {
            iterator.seek_to_first();
        }
        while let Some((key, value)) = iterator.item() {
            if rows.len() == most {
                return Ok(None);
            }
            rows.push((Bytes::copy_from_slice(key), Bytes::copy_from_slice(value)));
            if rows.len() == scan.limit {
                return Ok(Some(rows));
            }
            if scan.reverse {
                iterator.prev();
            } else {
                iterator.next();
            }
        }
        match iterator.status() {
            Ok(()) => Ok(Some(rows)),
            Err(error) if error.kind() == ErrorKind::Incomplete => Ok(None),
            Err(error) => Err(ReadError::Engine(error.into_string())),
        }
    }

    fn get(&self, row: &RowKey) -> Result<Option<Bytes>, ReadError> {
        let family = self.family(row.family)?;
        let value = self.db.get_cf(&family, &row.key);
        let value = value.map_err(|error| ReadError::Engine(error.into_string()))?;
        Ok(value.map(Bytes::from))
    }

    /// Writes all or nothing; returns the ranges of bodies that it removed.
    fn apply(&self, writes: &[Write]) -> Result<Vec<(RowKey, Bytes)>, CommitError> {
        let mut batch = WriteBatch::default();
        let mut erased = Vec::new();
        for op in writes.iter().flat_map(|write| &write.ops) {
            match op {
                Op::Put(row, value) => batch.put_cf(&self.family(row.family)?, &row.key, value),
                Op::Delete(row) => batch.delete_cf(&self.family(row.family)?, &row.key),
                Op::DeleteRange(row, to) if row.key < *to => {
                    batch.delete_range_cf(&self.family(row.family)?, &row.key, to);
                    if row.family == Family::Body {
                        erased.push((row.clone(), to.clone()));
                    }
                }
                Op::DeleteRange(..) => {}
            }
        }
        let _gate = self.gate.lock();
        for write in writes {
            if self.get(&write.fence.row)?.as_ref() != Some(&write.fence.epoch) {
                return Err(CommitError::Fenced);
            }
        }
        self.db.write(batch).map_err(unknown)?;
        Ok(erased)
    }

    fn compact(&self, ranges: &[(RowKey, Bytes)]) {
        let mut options = CompactOptions::default();
        options.set_exclusive_manual_compaction(false);
        for (row, to) in ranges {
            if let Ok(family) = self.family(row.family) {
                let (from, to) = (Some(row.key.as_ref()), Some(to.as_ref()));
                self.db
                    .compact_range_cf_opt::<&[u8], &[u8]>(&family, from, to, &options);
            }
        }
    }

    fn family(&self, family: Family) -> Result<Arc<BoundColumnFamily<'_>>, ReadError> {
        self.db
            .cf_handle(family.name())
            .ok_or_else(|| missing(family))
    }
}

fn missing(family: Family) -> ReadError {
    ReadError::Engine(format!("the store has no family {}", family.name()))
}

fn unknown(error: impl fmt::Display) -> CommitError {
    CommitError::Unknown(error.to_string())
}

fn open(config: &Config) -> Result<(Db, usize), OpenError> {
    let path = &config.path;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|error| OpenError::Engine(format!("{} can't be made: {error}", path.display())))?;
    let cache = Cache::new_lru_cache(config.block_cache);
    let families = Family::ALL.map(|family| {
        ColumnFamilyDescriptor::new(family.name(), family_options(family, config, &cache))
    });
    let db = Db::open_cf_descriptors(&store_options(config), path, families)
        .map_err(|error| refusal(config, &error))?;
    Ok((db, config.readers))
}

fn store_options(config: &Config) -> Options {
    let mut options = Options::default();
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    // A torn tail was never answered for and is cut; damage before it refuses the start, where the
    // default would drop what follows without a word. Closed logs must be as long as recorded.
    options.set_wal_recovery_mode(DBRecoveryMode::TolerateCorruptedTailRecords);
    options.set_track_and_verify_wals_in_manifest(true);
    options.set_recycle_log_file_num(0);
    options.set_manual_wal_flush(false);
    options.set_max_total_wal_size(WAL_BYTES);
    options.set_db_write_buffer_size(config.write_buffers);
    options.set_max_open_files(512);
    options.set_max_background_jobs(2);
    options.set_avoid_unnecessary_blocking_io(true);
    options.set_stats_dump_period_sec(0);
    options.set_log_level(LogLevel::Warn);
    options.set_max_log_file_size(4 << 20);
    options.set_keep_log_file_num(4);
    options
}

fn family_options(family: Family, config: &Config, cache: &Cache) -> Options {
    let mut blocks = BlockBasedOptions::default();
    blocks.set_block_cache(cache);
    blocks.set_bloom_filter(10.0, false);
    // Indexes and filters count as memory like all else.
    blocks.set_cache_index_and_filter_blocks(true);
    blocks.set_pin_l0_filter_and_index_blocks_in_cache(true);
    blocks.set_block_size(8 << 10);
    let mut options = Options::default();
    options.set_block_based_table_factory(&blocks);
    options.set_write_buffer_size(config.write_buffers / 2);
    options.set_arena_block_size(256 << 10);
    options.set_level_compaction_dynamic_level_bytes(true);
    if family == Family::Body {
        // Compressed one by one, with dictionaries, before they come here.
        options.set_compression_type(DBCompressionType::None);
        options.set_periodic_compaction_seconds(BODIES_REWRITTEN.as_secs());
    } else {
        options.set_compression_type(DBCompressionType::Lz4);
        options.set_bottommost_compression_type(DBCompressionType::Zstd);
    }
    options
}

/// What to tell the operator.
fn refusal(config: &Config, error: &rocksdb::Error) -> OpenError {
    let path = config.path.display();
    let said = error.as_ref();
    OpenError::Engine(match error.kind() {
        ErrorKind::IOError if said.contains("/LOCK") => format!(
            "another process has {path} open: stop it, or give this one a `data_dir` of its own ({said})"
        ),
        ErrorKind::Corruption => format!(
            "the store in {path} is damaged, and to start on it could lose what was acknowledged. \
             Nothing was changed. Keep a copy, then put back the last backup of the whole folder: \
             `rsync -a --delete BACKUP/ {path}/` ({said})"
        ),
        _ => format!("the store in {path} can't be opened: {said}"),
    })
}
