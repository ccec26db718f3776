//! The store as a whole, and the one way in: by tenant.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use comity_runtime::Runtime;
use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};

use crate::{
    committer::{Committer, QUEUE, Request},
    engine::{Engine, Fence, RowKey, Scan},
    error::{CommitError, OpenError, ReadError},
    follow::Follower,
    heads::{Heads, Pos},
    key::{Home, Key, Lane, Lanes, TenantId},
    lane::{LaneShared, LaneWriter, State},
    log::Logged,
    outbox::{self, Appliers, Apply},
    read::Reader,
    system::{Birth, Births, Epoch, Epochs, LaneHeads, LaneKey, STORE_FORMAT},
    table::{self, Table},
};

/// Commits of a lane kept in memory for those who follow its log.
const REMEMBERED: usize = 1024;
/// What a new incarnation adds to each head.
const INCARNATION_JUMP: u64 = 1 << 32;

/// Called when what is durable can no longer be said. In the server it ends the process.
pub type OnFatal = Arc<dyn Fn(&CommitError) + Send + Sync>;

/// How to open a store.
#[derive(Clone)]
pub struct Options {
    /// Lanes of a tenant that is new.
    pub lanes: Lanes,
    /// Whether a commit is answered after the fsync (D1) or after the write reached the operating
    /// system (D0): decides whether an unclean start begins a new incarnation.
    pub sync: bool,
    /// What to do when a write or sync failed for good.
    pub on_fatal: OnFatal,
    /// The appliers of what lanes owe each other.
    pub appliers: Vec<Arc<dyn Apply>>,
}

/// A store: an engine with its committers.
#[derive(Clone)]
pub struct Store {
    engine: Engine,
    options: Options,
    runtime: Runtime,
    /// Where one log serves all lanes, they share a committer.
    shared_committer: Option<mpsc::Sender<Request>>,
}

/// Counts of what a tenant asked of its engine, for tests of how cost grows and for metrics.
#[derive(Debug, Default)]
pub struct Stats {
    /// Calls to the engine that the caller waited for.
    pub round_trips: AtomicU64,
    /// Rows asked for and rows found by scans.
    pub rows_read: AtomicU64,
    /// Commits.
    pub commits: AtomicU64,
}

/// What everyone who works on a tenant's rows shares.
pub(crate) struct Shared {
    pub tenant: TenantId,
    pub lanes: Lanes,
    engine: Engine,
    heads: watch::Sender<Heads>,
    rings: Mutex<Vec<Ring>>,
    stats: Stats,
}

/// The latest commits of a lane: all those after `floor`.
struct Ring {
    floor: Pos,
    commits: VecDeque<Arc<Logged>>,
}

/// One hosted server name's rows.
#[derive(Clone)]
pub struct Tenant {
    shared: Arc<Shared>,
    writers: Arc<[LaneWriter]>,
    birth: Arc<Birth>,
    runtime: Runtime,
}

impl Store {
    /// A store over an engine.
    pub fn new(engine: Engine, options: Options, runtime: Runtime) -> Self {
        let shared_committer = engine
            .groups_lanes()
            .then(|| start(&engine, &options, &runtime));
        Self {
            engine,
            options,
            runtime,
            shared_committer,
        }
    }

    /// Takes a tenant's lanes and opens its rows; whoever had them before can no longer write.
    ///
    /// # Errors
    /// [`OpenError`] says what stands in the way.
    pub async fn tenant(&self, tenant: TenantId) -> Result<Tenant, OpenError> {
        let found = self.birth(tenant).await?;
        let lanes = match &found {
            Some(birth) if birth.floor > STORE_FORMAT => {
                return Err(OpenError::TooNew {
                    found: birth.floor,
                    known: STORE_FORMAT,
                });
            }
            Some(birth) => Lanes::new(birth.lanes).ok_or(OpenError::Lanes {
                found: birth.lanes,
                asked: self.options.lanes.count(),
            })?,
            None => self.options.lanes,
        };
        let mut heads = Vec::new();
        let mut epochs = Vec::new();
        for lane in lanes.all() {
            epochs.push(self.claim(tenant, lane).await?);
            heads.push(self.head(tenant, lane).await?);
        }
        let lost = found
            .as_ref()
            .is_some_and(|birth| !birth.clean && !self.options.sync);
        let recorded = if lost {
            heads.clone()
        } else {
            found.as_ref().map_or(Vec::new(), |b| b.recorded.clone())
        };
        if lost {
            heads.iter_mut().for_each(|head| *head += INCARNATION_JUMP);
        }
        let birth = Birth {
            floor: found.as_ref().map_or(STORE_FORMAT, |b| b.floor),
            lanes: lanes.count(),
            incarnation: found
                .as_ref()
                .map_or(1, |b| b.incarnation + u32::from(lost)),
            recorded,
            clean: false,
        };
        let shared = Arc::new(Shared {
            tenant,
            lanes,
            engine: self.engine.clone(),
            heads: watch::Sender::new(Heads::new(heads.clone())),
            rings: Mutex::new(
                heads
                    .iter()
                    .map(|&floor| Ring {
                        floor,
                        commits: VecDeque::new(),
                    })
                    .collect(),
            ),
            stats: Stats::default(),
        });
        let claims = lanes.all().zip(epochs).zip(heads);
        let writers: Vec<LaneWriter> = claims
            .map(|((lane, (fence, epoch)), head)| self.writer(&shared, lane, fence, epoch, head))
            .collect();
        let opened = Tenant {
            shared,
            writers: writers.into(),
            birth: Arc::new(birth),
            runtime: self.runtime.clone(),
        };
        opened.record_birth().await?;
        outbox::start(
            &opened,
            Arc::new(Appliers::new(&self.options.appliers)),
            &self.runtime,
        );
        Ok(opened)
    }

    fn writer(
        &self,
        shared: &Arc<Shared>,
        lane: Lane,
        fence: Fence,
        epoch: u64,
        head: Pos,
    ) -> LaneWriter {
        let requests = self
            .shared_committer
            .clone()
            .unwrap_or_else(|| start(&self.engine, &self.options, &self.runtime));
        let state = Mutex::new(State {
            appended: head,
            written: head,
            stopped: None,
        });
        let lane = LaneShared {
            shared: shared.clone(),
            lane,
            fence,
            epoch,
            overlay: Arc::default(),
            state,
        };
        LaneWriter {
            lane: Arc::new(lane),
            requests,
        }
    }

    async fn row<T: Table>(
        &self,
        tenant: TenantId,
        key: &T::Key,
    ) -> Result<(RowKey, Option<Bytes>), ReadError> {
        let (bytes, _) = table::key_of::<T>(tenant, key);
        let row = RowKey {
            family: T::FAMILY,
            slot: key.home().slot(),
            key: bytes.into(),
        };
        let value = self
            .engine
            .get_many(std::slice::from_ref(&row))
            .await?
            .pop()
            .flatten();
        Ok((row, value))
    }

    async fn birth(&self, tenant: TenantId) -> Result<Option<Birth>, ReadError> {
        let (_, value) = self.row::<Births>(tenant, &LaneKey(Lane(0))).await?;
        Ok(value
            .map(|v| table::read_value::<Births>(&v))
            .transpose()?
            .map(|row| row.value))
    }

    async fn head(&self, tenant: TenantId, lane: Lane) -> Result<Pos, ReadError> {
        let (_, value) = self.row::<LaneHeads>(tenant, &LaneKey(lane)).await?;
        Ok(value
            .map(|v| table::read_value::<LaneHeads>(&v))
            .transpose()?
            .map_or(0, |row| row.value.pos))
    }

    async fn claim(&self, tenant: TenantId, lane: Lane) -> Result<(Fence, u64), OpenError> {
        let (row, stored) = self.row::<Epochs>(tenant, &LaneKey(lane)).await?;
        let last = stored
            .as_ref()
            .map(|v| table::read_value::<Epochs>(v))
            .transpose()
            .map_err(ReadError::from)?;
        let epoch = last.map_or(0, |row| row.value.epoch) + 1;
        let bytes: Bytes = table::write_value::<Epochs>(&Epoch { epoch }).into();
        self.engine.claim(&row, stored.as_ref(), &bytes).await?;
        Ok((
            Fence {
                tenant,
                lane,
                row,
                epoch: bytes,
            },
            epoch,
        ))
    }
}

fn start(engine: &Engine, options: &Options, runtime: &Runtime) -> mpsc::Sender<Request> {
    let (requests, queue) = mpsc::channel(QUEUE);
    let committer = Committer::new(engine.clone(), queue, options.on_fatal.clone());
    drop(runtime.spawn("committer", committer.run()));
    requests
}

impl Tenant {
    /// Which tenant.
    pub fn id(&self) -> TenantId {
        self.shared.tenant
    }

    /// Its lanes.
    pub fn lanes(&self) -> Lanes {
        self.shared.lanes
    }

    /// What the store says of itself: format floor, incarnation, where the last one ended.
    pub fn birth(&self) -> &Birth {
        &self.birth
    }

    /// The published heads: what readers may see.
    pub fn heads(&self) -> Heads {
        self.shared.heads()
    }

    /// Wakes when a head moves.
    pub fn watch(&self) -> watch::Receiver<Heads> {
        self.shared.heads.subscribe()
    }

    /// Reads, bounded by the heads published now.
    pub fn reader(&self) -> Reader {
        Reader {
            shared: self.shared.clone(),
            overlay: None,
            bound: self.heads(),
        }
    }

    /// The writer of the lane that a home is in.
    pub fn lane(&self, home: Home<'_>) -> &LaneWriter {
        self.writer_of(self.shared.lanes.of(home.slot()))
    }

    /// The writers of all lanes.
    pub fn writers(&self) -> &[LaneWriter] {
        &self.writers
    }

    /// The lanes' logs after these heads, in order, as they grow.
    pub fn follow(&self, after: Heads) -> Follower {
        Follower::new(self.shared.clone(), after)
    }

    /// Waits until the published head of a home's lane has come this far: one fsync at most for a
    /// row that a read has found. Returns at once where it has.
    pub async fn settled(&self, home: Home<'_>, pos: Pos) {
        let lane = self.shared.lanes.of(home.slot());
        let mut heads = self.watch();
        // The sender lives as long as `self`, so the wait can't fail.
        drop(heads.wait_for(|heads| heads.get(lane) >= pos).await);
    }

    /// What the tenant has asked of its engine so far.
    pub fn stats(&self) -> &Stats {
        &self.shared.stats
    }

    /// Where tasks, time and randomness come from.
    pub fn runtime(&self) -> &Runtime {
        &self.runtime
    }

    /// Records that all is in order, so that the next start has nothing to doubt.
    ///
    /// # Errors
    /// The commit's.
    pub async fn close(&self) -> Result<(), CommitError> {
        let lane = self.writer_of(Lane(0));
        let mut batch = lane.batch();
        batch.put::<Births>(
            &LaneKey(Lane(0)),
            &Birth {
                clean: true,
                ..(*self.birth).clone()
            },
        );
        lane.commit(batch).await.map(drop)
    }

    async fn record_birth(&self) -> Result<(), CommitError> {
        let lane = self.writer_of(Lane(0));
        let mut batch = lane.batch();
        batch.put::<Births>(&LaneKey(Lane(0)), &self.birth);
        lane.commit(batch).await.map(drop)
    }

    fn writer_of(&self, lane: Lane) -> &LaneWriter {
        // `Lanes::of` folds every slot below the count, and there is a writer for each lane.
        #[expect(
            clippy::indexing_slicing,
            reason = "one writer a lane, made together in `Store::tenant`"
        )]
        &self.writers[usize::from(lane.0)]
    }
}

impl Shared {
    pub(crate) fn heads(&self) -> Heads {
        self.heads.borrow().clone()
    }

    pub(crate) fn watch(&self) -> watch::Receiver<Heads> {
        self.heads.subscribe()
    }

    pub(crate) async fn get_many(&self, rows: &[RowKey]) -> Result<Vec<Option<Bytes>>, ReadError> {
        self.count(rows.len());
        self.engine.get_many(rows).await
    }

    pub(crate) async fn scan_many(
        &self,
        scans: &[Scan],
    ) -> Result<Vec<Vec<(Bytes, Bytes)>>, ReadError> {
        let found = self.engine.scan_many(scans).await?;
        self.count(found.iter().map(Vec::len).sum());
        Ok(found)
    }

    fn count(&self, rows: usize) {
        self.stats.round_trips.fetch_add(1, Ordering::Relaxed);
        self.stats
            .rows_read
            .fetch_add(rows as u64, Ordering::Relaxed);
    }

    /// Keeps a durable commit for the followers, before its head is published.
    pub(crate) fn remember(&self, logged: Arc<Logged>) {
        self.stats.commits.fetch_add(1, Ordering::Relaxed);
        if let Some(ring) = self.rings.lock().get_mut(usize::from(logged.lane.0)) {
            if ring.commits.len() == REMEMBERED
                && let Some(oldest) = ring.commits.pop_front()
            {
                ring.floor = oldest.pos;
            }
            ring.commits.push_back(logged);
        }
    }

    /// The remembered commits after `pos`; `None` when some of them are forgotten.
    pub(crate) fn remembered(
        &self,
        lane: Lane,
        pos: Pos,
        limit: usize,
    ) -> Option<Vec<Arc<Logged>>> {
        let rings = self.rings.lock();
        let ring = rings
            .get(usize::from(lane.0))
            .filter(|ring| ring.floor <= pos)?;
        let at = ring.commits.partition_point(|logged| logged.pos <= pos);
        Some(ring.commits.iter().skip(at).take(limit).cloned().collect())
    }

    pub(crate) fn publish(&self, lane: Lane, pos: Pos) {
        self.heads
            .send_modify(|heads| *heads = heads.with(lane, pos));
    }
}
