//! A room in the hands of its writer: what is worth keeping between two changes.
//!
//! Everything here can be read again from the rows; a change that fails drops it.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    sync::Arc,
};

use bytes::Bytes;
use comity_protocol::{
    auth::{AuthEvent, AuthFact},
    event::{Event, Reference},
    id::{EventId, OwnedRoomId, RoomId, UserId},
    room_version::RoomVersionRules,
};
use comity_storage::{At, Home, LaneWriter, Pos, Range, ReadError, Reader, RoomKey};
use parking_lot::Mutex;

use crate::{
    chains::ChainKey,
    counts::Listeners,
    error::RoomError,
    num::{EventNum, StateKeyNum},
    state::{AnyRoot, NodeHash, NodeSource},
    tables::{
        Head, Heads, InRoom, Info, Infos, Mode, Partial, Partials, Provisionals, RoomHash,
        Summaries, Summary, Tally, Timeline, Total, Totals,
    },
};

/// State keys remembered by name at the most.
const KEYS: usize = 4_096;

/// A room's cached state.
pub(crate) struct Live {
    pub room: RoomKey,
    pub room_id: OwnedRoomId,
    pub info: Info,
    pub head: Head,
    pub root: AnyRoot,
    /// The head's rows that are not thinned yet, oldest first: position, and whether it is the
    /// first of its root.
    pub rows: VecDeque<(Pos, bool)>,
    /// The change in progress has changed the state.
    pub root_changed: bool,
    pub totals: Totals,
    pub summary: Summary,
    /// The push rules of the local members, once an event was counted.
    pub listeners: Option<Listeners>,
    pub keys: BTreeMap<(String, String), StateKeyNum>,
    pub facts: BTreeMap<StateKeyNum, Fact>,
    pub tips: Vec<Tip>,
    /// The states after events that others may follow; those of the extremities for sure, once
    /// they were asked for.
    pub after: BTreeMap<EventNum, AnyRoot>,
    /// While the state is partial: how the room was entered, and the events judged since by what was
    /// known. The partial state before any other event means nothing any more.
    pub partial: Option<Partial>,
    pub provisional: BTreeSet<EventNum>,
    pub writer: LaneWriter,
    /// The lane's losses before this was read; once they differ, this may never have been.
    pub losses: u64,
    pub pending: Pending,
}

/// A state event as the rules read it.
#[derive(Clone)]
pub(crate) struct Fact {
    pub num: EventNum,
    pub reference: Reference,
    pub fact: AuthFact<EventNum>,
}

/// A forward extremity.
#[derive(Clone)]
pub(crate) struct Tip {
    pub num: EventNum,
    pub reference: Reference,
}

impl Live {
    /// Reads a room from its rows; `None` where there is no such room.
    pub async fn load(room: RoomKey, writer: LaneWriter) -> Result<Option<Self>, RoomError> {
        let losses = writer.losses();
        let reader = writer.reader();
        let info_key = InRoom { room };
        let heads = Range::of(Home::Room(room), |key| {
            key.room(room);
        })
        .reverse()
        .limit(2);
        let last = heads.clone().limit(1);
        let (info, heads, last, summary) = futures_util::try_join!(
            reader.get::<Infos>(&info_key),
            reader.scan::<Heads>(heads),
            reader.scan::<Timeline>(last),
            reader.get::<Summaries>(&info_key),
        )?;
        let (Some(info), Some((_, head))) = (info, heads.first()) else {
            return Ok(None);
        };
        let (info, head) = (info.value, head.value.clone());
        let root = read_root(&head.root)?;
        let older = heads.get(1).map(|(_, row)| &row.value.root);
        let rows = heads
            .first()
            .map(|(_, row)| (row.pos, older != Some(&head.root)))
            .into_iter()
            .collect();
        let totals = last
            .first()
            .map_or_else(Totals::default, |(_, row)| totals_after(&row.value.totals));
        let summary = summary.map_or_else(|| Summary::new(&info), |row| row.value);
        let mut partial = None;
        let mut provisional = BTreeSet::new();
        if head.mode == Mode::Partial {
            let events = Range::of(Home::Room(room), |key| {
                key.room(room);
            });
            let (row, events) = futures_util::try_join!(
                reader.get::<Partials>(&info_key),
                reader.scan::<Provisionals>(events),
            )?;
            partial = row.map(|row| row.value);
            provisional = events.iter().map(|(key, _)| EventNum(key.num)).collect();
        }
        let live = Self::new(
            room,
            parse_room_id(&info.room_id)?,
            info,
            head,
            root,
            rows,
            totals,
            summary,
            writer,
            losses,
        );
        Ok(Some(Self {
            partial,
            provisional,
            ..live
        }))
    }

    /// A room that has no rows yet.
    pub fn born(room_id: OwnedRoomId, info: Info, mode: Mode, writer: LaneWriter) -> Self {
        let head = Head {
            mode,
            seq: 0,
            depth: 0,
            extremities: Vec::new(),
            root: AnyRoot::EMPTY.encode(),
            next_num: 0,
            next_member: 0,
            next_other: 0,
            left_at: 0,
            active: 0,
            bumped: 0,
        };
        let room = RoomKey::of(room_id.as_str());
        let summary = Summary::new(&info);
        let losses = writer.losses();
        Self::new(
            room,
            room_id,
            info,
            head,
            AnyRoot::EMPTY,
            VecDeque::new(),
            Totals::default(),
            summary,
            writer,
            losses,
        )
    }

    #[expect(clippy::too_many_arguments, reason = "the fields, once")]
    fn new(
        room: RoomKey,
        room_id: OwnedRoomId,
        info: Info,
        head: Head,
        root: AnyRoot,
        rows: VecDeque<(Pos, bool)>,
        totals: Totals,
        summary: Summary,
        writer: LaneWriter,
        losses: u64,
    ) -> Self {
        let (keys, facts, tips) = (BTreeMap::new(), BTreeMap::new(), Vec::new());
        let after = BTreeMap::new();
        let pending = Pending::default();
        let root_changed = false;
        Self {
            room,
            room_id,
            info,
            head,
            root,
            rows,
            root_changed,
            totals,
            summary,
            listeners: None,
            keys,
            facts,
            tips,
            after,
            partial: None,
            provisional: BTreeSet::new(),
            writer,
            losses,
            pending,
        }
    }

    /// Whether the lane has dropped changes that this may stand on. It can't be left to who waited for
    /// them: a client that hangs up ends the wait.
    pub fn is_lost(&self) -> bool {
        self.losses != self.writer.losses()
    }

    /// Whether the room was entered without its members, which are still to come.
    pub fn is_partial(&self) -> bool {
        self.head.mode == Mode::Partial
    }

    pub fn rules(&self) -> &'static RoomVersionRules {
        self.info.version.rules()
    }

    pub fn reader(&self) -> Reader {
        self.writer.reader()
    }

    /// Keeps the caches bounded; between changes only.
    pub fn trim(&mut self) {
        if self.keys.len() > KEYS {
            self.keys.clear();
        }
        if self.facts.len() > KEYS {
            self.facts.clear();
        }
        if self.after.len() > KEYS {
            self.after.clear();
        }
        self.pending.clear();
    }
}

/// The running totals that the entry after this one starts from.
pub(crate) fn totals_after(totals: &Totals) -> Totals {
    let outside_threads = |total: &Total| Total {
        thread: Tally::default(),
        ..*total
    };
    Totals(totals.0.iter().map(outside_threads).collect())
}

/// A root as rows hold it.
pub(crate) fn read_root(bytes: &[u8]) -> Result<AnyRoot, RoomError> {
    AnyRoot::decode(bytes).map_err(|error| RoomError::Damaged(error.to_string()))
}

pub(crate) fn parse_room_id(text: &str) -> Result<OwnedRoomId, RoomError> {
    RoomId::parse(text).map_err(|_| RoomError::Damaged("a stored room id does not parse".into()))
}

/// Nodes and chain rows made by the change in progress, which no reader finds yet.
#[derive(Clone, Default, Debug)]
pub(crate) struct Pending {
    pub nodes: Arc<Mutex<HashMap<NodeHash, Bytes>>>,
    pub chains: Arc<Mutex<BTreeMap<ChainKey, Bytes>>>,
}

impl Pending {
    pub fn clear(&self) {
        self.nodes.lock().clear();
        self.chains.lock().clear();
    }
}

/// A room's state nodes: those of the change in progress, then the stored ones.
#[derive(Clone)]
pub(crate) struct RoomNodes {
    pub room: RoomKey,
    pub reader: Reader,
    pub pending: Pending,
}

impl NodeSource for RoomNodes {
    type Error = ReadError;

    async fn nodes(&self, hashes: &[NodeHash]) -> Result<Vec<Option<Bytes>>, ReadError> {
        let made: Vec<Option<Bytes>> = {
            let pending = self.pending.nodes.lock();
            hashes
                .iter()
                .map(|hash| pending.get(hash).cloned())
                .collect()
        };
        if made.iter().all(Option::is_some) {
            return Ok(made);
        }
        let keys: Vec<RoomHash> = hashes
            .iter()
            .map(|hash| RoomHash {
                room: self.room,
                hash: hash.0,
            })
            .collect();
        let stored = self.reader.get_many::<crate::tables::Nodes>(&keys).await?;
        Ok(made
            .into_iter()
            .zip(stored)
            .map(|(made, stored)| made.or(stored.map(|row| row.value)))
            .collect())
    }
}

/// An event as the rules read it, by the room's own numbers.
#[derive(Clone, Copy)]
pub(crate) struct Judged<'a> {
    pub num: EventNum,
    pub event: &'a Event,
    pub prev: &'a [EventNum],
    pub auth: &'a [EventNum],
}

impl AuthEvent for Judged<'_> {
    type Id = EventNum;

    fn id(&self) -> EventNum {
        self.num
    }
    fn event_id(&self) -> &EventId {
        self.event.event_id()
    }
    fn room_id(&self) -> &RoomId {
        self.event.room_id()
    }
    fn event_type(&self) -> &str {
        self.event.event_type()
    }
    fn state_key(&self) -> Option<&str> {
        self.event.state_key()
    }
    fn sender(&self) -> &UserId {
        self.event.sender()
    }
    fn origin_server_ts(&self) -> i64 {
        self.event.origin_server_ts()
    }
    fn depth(&self) -> u64 {
        self.event.depth()
    }
    fn prev_events(&self) -> &[EventNum] {
        self.prev
    }
    fn auth_events(&self) -> &[EventNum] {
        self.auth
    }
    fn redacts(&self) -> Option<&EventId> {
        self.event.redacts()
    }
    fn content(&self) -> &str {
        self.event.content().get()
    }
}

/// The position of a head's row as a key.
pub(crate) fn head_at(room: RoomKey, pos: Pos) -> crate::tables::RoomAt {
    crate::tables::RoomAt {
        room,
        pos: At::Is(pos),
    }
}
