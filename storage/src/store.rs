//! The store as a whole, and the one way in: by tenant.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use comity_runtime::{Runtime, watch};
use parking_lot::Mutex;
use tokio::sync::mpsc;

use crate::{
    claim::{self, Claim},
    committer::{Committer, QUEUE, Request},
    engine::{Engine, RowKey, Scan},
    error::{CommitError, OpenError, ReadError},
    follow::Follower,
    heads::{Heads, Pos},
    horizon::Consumer,
    key::{Home, Lane, Lanes, TenantId},
    lane::{LaneShared, LaneWriter, Standing, State},
    log::Logged,
    outbox::{self, Appliers, Apply},
    read::Reader,
    system::{Birth, Births, LaneKey, STORE_FORMAT},
};

/// Commits of a lane kept in memory for those who follow its log, and their bytes.
const REMEMBERED: usize = 1024;
const REMEMBERED_BYTES: usize = 2 << 20;

/// Incarnations by the clock: so many milliseconds each, from the beginning of 2026.
const CLOCK_STEP_MS: u64 = 1000;
const CLOCK_BEGINS_MS: u64 = 1_767_225_600_000;

/// Called when what is durable can no longer be said, and with [`CommitError::Fenced`] when a lane has another owner. In the
/// server it ends the process.
pub type OnFatal = Arc<dyn Fn(&CommitError) + Send + Sync>;

/// How to open a store.
#[derive(Clone)]
pub struct Options {
    /// Lanes of a tenant that is new.
    pub lanes: Lanes,
    /// Whether a commit is answered after the fsync (D1) or after the write reached the operating
    /// system (D0): decides whether an unclean start begins a new incarnation.
    pub sync: bool,
    /// What to do when a write or sync failed for good, or another took a lane.
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
    /// Rows that commits put or deleted, their log rows among them; a range counts as one.
    pub rows_written: AtomicU64,
}

/// What everyone who works on a tenant's rows shares.
pub(crate) struct Shared {
    pub tenant: TenantId,
    pub lanes: Lanes,
    engine: Engine,
    heads: watch::Sender<Heads>,
    rings: Mutex<Vec<Ring>>,
    /// How far each lane has applied what the others owe it; empty where nothing is applied.
    applied: watch::Sender<Vec<Heads>>,
    /// Lanes whose outboxes are to store how far they have come: the logs are to be pruned up to there.
    pub settling: Mutex<BTreeSet<Lane>>,
    /// Who follows the logs over restarts.
    pub consumers: Mutex<Vec<Weak<dyn Consumer>>>,
    stats: Stats,
}

/// The latest commits of a lane: all those after `floor`.
struct Ring {
    floor: Pos,
    commits: VecDeque<Arc<Logged>>,
    bytes: usize,
}

impl Ring {
    fn after(floor: Pos) -> Self {
        let (commits, bytes) = (VecDeque::new(), 0);
        Self {
            floor,
            commits,
            bytes,
        }
    }

    fn push(&mut self, logged: Arc<Logged>) {
        self.bytes += logged.weight();
        self.commits.push_back(logged);
        while self.commits.len() > REMEMBERED || self.bytes > REMEMBERED_BYTES {
            let Some(oldest) = self.commits.pop_front() else {
                break;
            };
            self.bytes -= oldest.weight();
            self.floor = self.floor.max(oldest.pos);
        }
    }
}

/// One hosted server name's rows.
#[derive(Clone)]
pub struct Tenant {
    shared: Arc<Shared>,
    writers: Arc<[LaneWriter]>,
    birth: Arc<Birth>,
    runtime: Runtime,
    /// Told when the tenant is closed, gone when it is dropped.
    alive: Arc<watch::Sender<()>>,
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
        self.open(tenant, false).await
    }

    /// The same on rows that were put back from a backup: begins an incarnation that no other time after that backup has had, since
    /// what was given out and revoked in it is lost. Once a restore, before anything else opens them.
    ///
    /// # Errors
    /// [`OpenError`] says what stands in the way.
    pub async fn restored(&self, tenant: TenantId) -> Result<Tenant, OpenError> {
        let restored = self.open(tenant, true).await?;
        // Another restore of the same backup is to find a later second. Where the backup's own number is ahead of the clock, which was
        // set back then, waiting doesn't help.
        let next = self.ms_by_the_clock() / CLOCK_STEP_MS + 1;
        if u64::from(restored.birth.incarnation) == next {
            let over = next * CLOCK_STEP_MS;
            while let Some(left @ 1..) = over.checked_sub(self.ms_by_the_clock()) {
                tokio::time::sleep(Duration::from_millis(left)).await;
            }
        }
        Ok(restored)
    }

    async fn open(&self, tenant: TenantId, restored: bool) -> Result<Tenant, OpenError> {
        let found = claim::read::<Births>(&self.engine, tenant, &LaneKey(Lane(0)))
            .await?
            .map(|row| row.value);
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
            None if restored => return Err(OpenError::Empty),
            None => self.options.lanes,
        };
        let mut claims = Vec::new();
        let mut written = Vec::new();
        for lane in lanes.all() {
            claims.push(Claim::take(&self.engine, &self.runtime, tenant, lane).await?);
            let head = claim::head(&self.engine, tenant, lane).await?;
            written.push(head.map_or(0, |head| head.pos));
        }
        let (birth, heads) = self.born(found, lanes, &written, restored);
        let shared = Arc::new(Shared::new(&self.engine, tenant, lanes, heads.clone()));
        let states = claims.into_iter().zip(written).zip(heads);
        let states = states.map(|((claim, written), head)| State {
            claim,
            next: head + 1,
            appended: written,
            written,
            standing: Standing::Open,
            losses: 0,
        });
        let writers: Vec<LaneWriter> = lanes
            .all()
            .zip(states)
            .map(|(lane, state)| self.writer(&shared, lane, state))
            .collect();
        let opened = Tenant {
            shared,
            writers: writers.into(),
            birth: Arc::new(birth),
            runtime: self.runtime.clone(),
            alive: Arc::new(watch::Sender::new(())),
        };
        opened.record_birth().await?;
        outbox::start(
            &opened,
            Arc::new(Appliers::new(&self.options.appliers)),
            &self.runtime,
        );
        Ok(opened)
    }

    /// What this run writes of itself, and where its lanes begin.
    fn born(
        &self,
        found: Option<Birth>,
        lanes: Lanes,
        written: &[Pos],
        restored: bool,
    ) -> (Birth, Vec<Pos>) {
        let last = found.unwrap_or(Birth {
            floor: STORE_FORMAT,
            lanes: lanes.count(),
            incarnation: 1,
            recorded: Vec::new(),
            synced: true,
            clean: true,
        });
        // A lane without a commit since the incarnation began has its old head stored.
        let heads = lanes.all().zip(written);
        let heads = heads.map(|(lane, head)| last.base(lane).max(*head));
        let heads: Vec<Pos> = heads.collect();
        let lost = restored || !last.clean && !last.synced;
        let mut birth = Birth {
            clean: false,
            synced: self.options.sync,
            ..last
        };
        if lost {
            birth.incarnation += 1;
            if restored {
                birth.incarnation = birth.incarnation.max(self.by_the_clock()).saturating_add(1);
            }
            birth.recorded = heads;
            let heads = lanes.all().map(|lane| birth.base(lane)).collect();
            return (birth, heads);
        }
        (birth, heads)
    }

    /// The incarnation of a restore now. The rows can't say how many there have been: the same backup may be put back twice, and stream
    /// ids, which begin with the incarnation, must not go back for those who have seen them.
    fn by_the_clock(&self) -> u32 {
        u32::try_from(self.ms_by_the_clock() / CLOCK_STEP_MS).unwrap_or(u32::MAX)
    }

    fn ms_by_the_clock(&self) -> u64 {
        let now = self.runtime.clock().now_ms();
        now.saturating_sub(CLOCK_BEGINS_MS)
    }

    fn writer(&self, shared: &Arc<Shared>, lane: Lane, state: State) -> LaneWriter {
        let requests = self
            .shared_committer
            .clone()
            .unwrap_or_else(|| start(&self.engine, &self.options, &self.runtime));
        let lane = LaneShared {
            shared: shared.clone(),
            lane,
            overlay: Arc::default(),
            state: Mutex::new(state),
        };
        LaneWriter {
            lane: Arc::new(lane),
            requests,
        }
    }
}

fn start(engine: &Engine, options: &Options, runtime: &Runtime) -> mpsc::Sender<Request> {
    let (requests, queue) = mpsc::channel(QUEUE);
    let committer = Committer::new(
        engine.clone(),
        options.sync,
        runtime.clone(),
        queue,
        options.on_fatal.clone(),
    );
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

    /// Where a home's lane stood when this incarnation began. What was written at or before it may have been undone since, in a
    /// time that the store has lost.
    pub fn began_at(&self, home: Home<'_>) -> Pos {
        self.birth.base(self.shared.lanes.of(home.slot()))
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
        let _ = heads.wait_for(|heads| heads.get(lane) >= pos).await;
    }

    /// Waits until every lane has applied what the commit of a home's lane at this position owes.
    /// Returns at once in a store without appliers.
    pub async fn paid(&self, home: Home<'_>, pos: Pos) {
        let lane = self.shared.lanes.of(home.slot());
        let mut applied = self.shared.applied.subscribe();
        let paid = |applied: &Vec<Heads>| applied.iter().all(|heads| heads.get(lane) >= pos);
        // The sender lives as long as `self`, so the wait can't fail.
        let _ = applied.wait_for(paid).await;
    }

    /// What the tenant has asked of its engine so far.
    pub fn stats(&self) -> &Stats {
        &self.shared.stats
    }

    /// Where tasks, time and randomness come from.
    pub fn runtime(&self) -> &Runtime {
        &self.runtime
    }

    /// Records that all is in order, so that the next start has nothing to doubt. The lanes take
    /// no commits any more.
    ///
    /// # Errors
    /// The commit's.
    pub async fn close(&self) -> Result<(), CommitError> {
        // The outbox ends, then each lane with an empty commit, then the one with the birth row:
        // what is written after that row could be lost while the row says that all is in order.
        self.alive.send_replace(());
        let others = self.writers.iter().skip(1);
        futures_util::future::try_join_all(others.map(|lane| lane.finish(lane.batch()))).await?;
        let lane = self.writer_of(Lane(0));
        let mut batch = lane.batch();
        batch.put::<Births>(
            &LaneKey(Lane(0)),
            &Birth {
                clean: true,
                ..(*self.birth).clone()
            },
        );
        lane.finish(batch).await?;
        self.shared.engine.sync().await
    }

    async fn record_birth(&self) -> Result<(), CommitError> {
        let lane = self.writer_of(Lane(0));
        let mut batch = lane.batch();
        batch.put::<Births>(&LaneKey(Lane(0)), &self.birth);
        lane.commit(batch).await?;
        // Without fsync too: the next start must know that this run may lose something.
        self.shared.engine.sync().await
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    pub(crate) fn alive(&self) -> watch::Receiver<()> {
        self.alive.subscribe()
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
    pub(crate) fn new(engine: &Engine, tenant: TenantId, lanes: Lanes, heads: Vec<Pos>) -> Self {
        Self {
            tenant,
            lanes,
            engine: engine.clone(),
            rings: Mutex::new(heads.iter().copied().map(Ring::after).collect()),
            heads: watch::Sender::new(Heads::new(heads)),
            applied: watch::Sender::new(Vec::new()),
            settling: Mutex::default(),
            consumers: Mutex::default(),
            stats: Stats::default(),
        }
    }

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

    /// Counts the rows of a commit.
    pub(crate) fn count_written(&self, rows: usize) {
        self.stats
            .rows_written
            .fetch_add(rows as u64, Ordering::Relaxed);
    }

    /// Keeps a durable commit for the followers, before its head is published.
    pub(crate) fn remember(&self, logged: Arc<Logged>) {
        self.stats.commits.fetch_add(1, Ordering::Relaxed);
        if let Some(ring) = self.rings.lock().get_mut(usize::from(logged.lane.0)) {
            ring.push(logged);
        }
    }

    /// A lane's followers read what is up to here from the rows.
    pub(crate) fn forget_before(&self, lane: Lane, pos: Pos) {
        if let Some(ring) = self.rings.lock().get_mut(usize::from(lane.0)) {
            *ring = Ring::after(pos);
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

    /// Lets readers see these lanes up to here. A head never goes back.
    pub(crate) fn publish(&self, heads: impl IntoIterator<Item = (Lane, Pos)>) {
        self.heads.send_modify(|published| {
            for (lane, pos) in heads {
                *published = published.with(lane, pos.max(published.get(lane)));
            }
        });
    }

    /// Where the outbox says how far each lane has come.
    pub(crate) fn applied(&self) -> &watch::Sender<Vec<Heads>> {
        &self.applied
    }
}
