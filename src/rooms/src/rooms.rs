//! The rooms of a tenant: who holds which, and the way to change one.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, OnceLock, Weak, atomic::AtomicU64},
};

use comity_protocol::{
    id::{OwnedServerName, RoomId, ServerName},
    room_version::RoomVersion,
    sign::SigningKey,
};
use comity_runtime::Runtime;
use comity_storage::{Home, Reader, RoomKey, Tenant};
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::{
    change::Change,
    counts::PushRules,
    elsewhere::Elsewhere,
    error::RoomError,
    live::{Live, Pending, RoomNodes},
    peers::{Acls, Present},
    state::{NodeCache, StateTrie},
    tables::Mode,
    typing::Typing,
    walks::Walks,
};

/// Bytes of state nodes kept in memory.
const NODE_CACHE: usize = 16 << 20;
/// Rooms whose writers' caches are kept; those in use are never dropped.
const ROOMS: usize = 10_000;

/// What this server's rooms are to be like.
#[derive(Debug, Clone)]
pub struct Config {
    /// The name of this server, for ids and signatures.
    pub server_name: OwnedServerName,
    /// The version of a room whose creator asks for none.
    pub default_version: RoomVersion,
    /// Whether rooms are encrypted.
    pub encryption: comity_encryption_policy::Mode,
}

/// A tenant's rooms. Cheap to clone.
#[derive(Clone)]
pub struct Rooms(pub(crate) Arc<Inner>);

/// A tenant's rooms, without keeping them: for what the rooms themselves hold.
#[derive(Clone)]
pub struct WeakRooms(Weak<Inner>);

impl WeakRooms {
    /// The rooms, as long as somebody keeps them.
    pub fn upgrade(&self) -> Option<Rooms> {
        self.0.upgrade().map(Rooms)
    }
}

pub(crate) struct Inner {
    pub tenant: Tenant,
    pub config: Config,
    pub key: Arc<SigningKey>,
    pub runtime: Runtime,
    nodes: Arc<NodeCache>,
    cells: Mutex<HashMap<RoomKey, Cell>>,
    typing: Typing,
    push_rules: OnceLock<Arc<dyn PushRules>>,
    elsewhere: OnceLock<Arc<dyn Elsewhere>>,
    /// Rooms whose forks met since their state nodes were last collected.
    pub met: Mutex<BTreeSet<RoomKey>>,
    pub acls: Acls,
    pub present: Present,
    /// A room's state is partial no more: it has become whole, or we have left.
    pub completed: Notify,
    pub walks: Walks,
    /// The latest [`Rooms::stamp`].
    pub stamp: AtomicU64,
}

/// A room's place: empty until someone changes the room. Whoever holds the lock is its writer; the
/// lock is fair, so changes are taken in the order they came.
pub(crate) type Cell = Arc<tokio::sync::Mutex<Option<Live>>>;

impl Rooms {
    /// The rooms of a tenant, whose events `key` signs.
    pub fn new(tenant: Tenant, config: Config, key: impl Into<Arc<SigningKey>>) -> Self {
        let runtime = tenant.runtime().clone();
        let nodes = Arc::new(NodeCache::new(NODE_CACHE));
        let typing = Typing::new(runtime.clone());
        Self(Arc::new(Inner {
            tenant,
            config,
            key: key.into(),
            runtime,
            nodes,
            cells: Mutex::default(),
            typing,
            push_rules: OnceLock::new(),
            elsewhere: OnceLock::new(),
            met: Mutex::default(),
            acls: Acls::default(),
            present: Present::default(),
            completed: Notify::new(),
            walks: Walks::default(),
            stamp: AtomicU64::new(0),
        }))
    }

    /// The rooms, not kept by it.
    pub fn downgrade(&self) -> WeakRooms {
        WeakRooms(Arc::downgrade(&self.0))
    }

    /// This server's name.
    pub fn server_name(&self) -> &ServerName {
        &self.0.config.server_name
    }

    /// The tenant whose rooms these are.
    pub fn tenant(&self) -> &Tenant {
        &self.0.tenant
    }

    /// Says where users' push rules are found; until then everybody has the default ones. Once only.
    pub fn use_push_rules(&self, rules: Arc<dyn PushRules>) {
        // A second source is refused: counts follow the first.
        drop(self.0.push_rules.set(rules));
    }

    pub(crate) fn push_rules(&self) -> Option<&Arc<dyn PushRules>> {
        self.0.push_rules.get()
    }

    /// Says who asks other servers; until then none is asked. Once only.
    pub fn use_elsewhere(&self, elsewhere: Arc<dyn Elsewhere>) {
        // A second one is refused: what was begun through the first is finished there.
        drop(self.0.elsewhere.set(elsewhere));
    }

    /// Who asks other servers, for an operation that can't do without.
    ///
    /// # Errors
    /// [`RoomError::OtherServer`] with this reason.
    pub(crate) fn elsewhere(&self, why: &'static str) -> Result<Arc<dyn Elsewhere>, RoomError> {
        let elsewhere = self.0.elsewhere.get().cloned();
        elsewhere.ok_or(RoomError::OtherServer(why))
    }

    /// Who is typing where.
    pub fn typing(&self) -> &Typing {
        &self.0.typing
    }

    /// The version of a room whose creator asks for none.
    pub fn default_version(&self) -> RoomVersion {
        self.0.config.default_version
    }

    /// Milliseconds since 1970.
    pub(crate) fn now(&self) -> u64 {
        self.0.runtime.clock().now_ms()
    }

    /// Takes the room for a change, after those who asked before.
    ///
    /// # Errors
    /// [`RoomError::UnknownRoom`].
    pub async fn change(&self, room_id: &RoomId) -> Result<Change, RoomError> {
        let change = self.hold(room_id).await?;
        if change.live()?.head.mode == Mode::Stub {
            return Err(RoomError::UnknownRoom);
        }
        Ok(change)
    }

    /// Takes a room of whatever mode, also one that is still being entered.
    pub(crate) async fn hold(&self, room_id: &RoomId) -> Result<Change, RoomError> {
        let room = RoomKey::of(room_id.as_str());
        let mut guard = self.cell(room).lock_owned().await;
        if guard.as_ref().is_none_or(Live::is_lost) {
            let writer = self.0.tenant.lane(Home::Room(room)).clone();
            *guard = Live::load(room, writer).await?;
        }
        match guard.as_mut() {
            Some(live) if live.room_id == *room_id => {
                live.trim();
                if live.head.extremities.len() > 1 {
                    self.0.met.lock().insert(room);
                }
            }
            Some(_) | None => return Err(RoomError::UnknownRoom),
        }
        Change::new(self.clone(), guard)
    }

    /// The place of a room, made where there is none.
    pub(crate) fn cell(&self, room: RoomKey) -> Cell {
        let mut cells = self.0.cells.lock();
        if cells.len() >= ROOMS && !cells.contains_key(&room) {
            cells.retain(|_, cell| Arc::strong_count(cell) > 1);
        }
        cells.entry(room).or_default().clone()
    }

    /// The states of a room, as `reader` finds them.
    pub(crate) fn trie(
        &self,
        room: RoomKey,
        reader: Reader,
        pending: Pending,
    ) -> StateTrie<RoomNodes> {
        StateTrie::new(
            RoomNodes {
                room,
                reader,
                pending,
            },
            self.0.nodes.clone(),
        )
    }
}
