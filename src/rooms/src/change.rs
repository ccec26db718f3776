//! One change of a room: events built, checked, signed and placed, committed as one batch.
//!
//! The writer's lock is held from [`Rooms::change`] to [`Change::commit`], which gives it back as
//! soon as the batch has its position; the next change chains on it while this one is being
//! synced. A change that is dropped, or fails, leaves nothing behind.

mod auth;
mod chain;
mod derive;
mod encryption;
mod fork;
mod graph;
mod hole;
mod keys;
mod known;
mod place;
mod redaction;
mod relation;
mod resolve;
mod state;
mod take_in;

use std::collections::{BTreeMap, BTreeSet};

pub(crate) use auth::fact_of;
pub(crate) use chain::RoomChains;
use comity_protocol::{
    auth::{AuthState, LevelField, Membership, check_auth},
    event::{BuildError, EventBuilder, Reference, Signed, Unsigned},
    id::{OwnedEventId, OwnedRoomId, OwnedUserId, RoomId, UserId},
    room_version::{EventIdFormat, RoomVersion},
};
use comity_storage::{Appended, Batch, Home, RoomKey};
pub use encryption::SERVER_LOCALPART;
pub(crate) use known::{Heard, Known};
pub(crate) use place::Case;
pub(crate) use relation::relates_to;
use serde_json::value::RawValue;
use tokio::sync::OwnedMutexGuard;

use crate::{
    error::RoomError,
    live::{Judged, Live},
    num::EventNum,
    rooms::Rooms,
    state::AnyRoot,
    tables::{self, Done, Info, Mode, RoomTxn},
    tend::day,
};

/// How long a transaction id is remembered, in milliseconds: a day.
const TXN_MEMORY: u64 = 24 * 60 * 60 * 1_000;

/// What a user wants to happen in a room.
#[derive(Debug, Clone)]
pub struct Intent {
    /// Who.
    pub sender: OwnedUserId,
    /// What kind of event.
    pub event_type: String,
    /// The state key of a state event.
    pub state_key: Option<String>,
    /// An object.
    pub content: Box<RawValue>,
    /// Of a redaction, its target.
    pub redacts: Option<OwnedEventId>,
}

impl Intent {
    /// A state event with this content.
    pub fn state(
        sender: &UserId,
        event_type: &str,
        state_key: &str,
        content: &impl serde::Serialize,
    ) -> Self {
        Self {
            state_key: Some(state_key.to_owned()),
            ..Self::message(sender, event_type, content)
        }
    }

    /// A message event with this content.
    pub fn message(sender: &UserId, event_type: &str, content: &impl serde::Serialize) -> Self {
        let content = serde_json::value::to_raw_value(content).unwrap_or_default();
        Self {
            sender: sender.to_owned(),
            event_type: event_type.to_owned(),
            state_key: None,
            content,
            redacts: None,
        }
    }
}

/// A client's name for one send, the same when it repeats it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transaction {
    /// Who sends.
    pub user: OwnedUserId,
    /// With which device.
    pub device: String,
    /// Which call (`send/m.room.message`): a transaction id counts for one path only.
    pub path: String,
    /// The client's id.
    pub txn: String,
}

/// An event that is part of the room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placed {
    /// Its id.
    pub event_id: OwnedEventId,
    /// Its sequence number in the room.
    pub seq: i64,
}

/// A change in the making. Holds the room.
pub struct Change {
    rooms: Rooms,
    guard: OwnedMutexGuard<Option<Live>>,
    batch: Batch,
    /// The cached state is ahead of the rows until the batch is appended.
    moved: bool,
    placed: Vec<Placed>,
    /// The events of this change, which no reader finds yet.
    in_hand: BTreeMap<EventNum, Known>,
    /// Those of them that are taken to come before the join by which we came in.
    earlier: BTreeSet<EventNum>,
    /// The ids that got their numbers in it.
    names: BTreeMap<String, EventNum>,
    /// The room's state is partial no more; somebody may wait for that.
    ends_wait: bool,
    /// The threads that it has continued or shortened, by their roots.
    threads: BTreeMap<u32, tables::Thread>,
}

/// An event of ours in the making: built and allowed, not signed.
pub(crate) struct Draft {
    pub unsigned: Unsigned,
    /// The state that it was judged by.
    state: AuthState<EventNum>,
    prev: Vec<EventNum>,
    auth: Vec<EventNum>,
    root: AnyRoot,
}

/// An event of ours, signed, and what it stands on.
struct Made {
    signed: Signed,
    prev: Vec<EventNum>,
    auth: Vec<EventNum>,
    root: AnyRoot,
}

/// A change that has its position, while it becomes durable. The room is free again.
pub(crate) struct Appending {
    appended: Appended,
    placed: Vec<Placed>,
    ends_wait: Option<Rooms>,
}

impl Drop for Change {
    fn drop(&mut self) {
        if self.moved {
            *self.guard = None;
        }
    }
}

impl Rooms {
    /// Makes a room from its create event; what follows goes into the same batch.
    ///
    /// # Errors
    /// The content is no create event of that version.
    pub async fn create_event(
        &self,
        version: RoomVersion,
        creator: &UserId,
        content: Box<RawValue>,
    ) -> Result<Change, RoomError> {
        let local = self.0.runtime.random().alphanumeric(18);
        let room_id = if version.rules().room_id_is_create_hash {
            None
        } else {
            Some(
                RoomId::parse(format!("!{local}:{}", self.server_name()))
                    .map_err(|_| RoomError::UnknownRoom)?,
            )
        };
        let intent = Intent {
            sender: creator.to_owned(),
            event_type: "m.room.create".into(),
            state_key: Some(String::new()),
            content,
            redacts: None,
        };
        let mut now = self.now();
        // Two create events of one user and one millisecond may be the same to the letter, and so
        // name the same room from version 12 on; the later one is a millisecond younger.
        let (unsigned, mut guard, writer) = loop {
            let unsigned = self.build(
                version,
                room_id.clone(),
                &intent,
                Vec::new(),
                Vec::new(),
                1,
                now,
            )?;
            let room = RoomKey::of(unsigned.event().room_id().as_str());
            let guard = self.cell(room).lock_owned().await;
            let writer = self.0.tenant.lane(Home::Room(room)).clone();
            if guard.is_none() && Live::load(room, writer.clone()).await?.is_none() {
                break (unsigned, guard, writer);
            }
            now += 1;
        };
        let room_id = unsigned.event().room_id().to_owned();
        let room = RoomKey::of(room_id.as_str());
        let info = Info {
            room_id: room_id.to_string(),
            version,
        };
        let mut batch = writer.batch();
        batch.expect::<tables::Infos>(&tables::InRoom { room }, comity_storage::Expect::Absent);
        batch.put::<tables::Infos>(&tables::InRoom { room }, &info);
        let live = Live::born(room_id, info, Mode::Joined, writer);
        batch.unless_lost_since(live.losses);
        *guard = Some(live);
        let mut change = Change {
            rooms: self.clone(),
            guard,
            batch,
            moved: true,
            placed: Vec::new(),
            in_hand: BTreeMap::new(),
            earlier: BTreeSet::new(),
            names: BTreeMap::new(),
            ends_wait: false,
            threads: BTreeMap::new(),
        };
        let judged = Judged {
            num: EventNum(0),
            event: unsigned.event(),
            prev: &[],
            auth: &[],
        };
        check_auth(version.rules(), &judged, &Default::default())?;
        let signed = self.sign(unsigned)?;
        change
            .place(signed, Vec::new(), Vec::new(), AnyRoot::EMPTY, None)
            .await?;
        Ok(change)
    }

    #[expect(clippy::too_many_arguments, reason = "an event's fields, once")]
    pub(crate) fn build(
        &self,
        version: RoomVersion,
        room_id: Option<OwnedRoomId>,
        intent: &Intent,
        prev_events: Vec<Reference>,
        auth_events: Vec<Reference>,
        depth: u64,
        now: u64,
    ) -> Result<Unsigned, BuildError> {
        let random = self.0.runtime.random();
        let chosen = version.rules().event_id_format == EventIdFormat::Chosen;
        EventBuilder {
            version,
            room_id,
            sender: intent.sender.clone(),
            event_type: intent.event_type.clone(),
            state_key: intent.state_key.clone(),
            content: intent.content.clone(),
            redacts: intent.redacts.clone(),
            prev_events,
            auth_events,
            depth: depth.min(version.rules().max_depth),
            origin_server_ts: i64::try_from(now).unwrap_or(i64::MAX),
            opaque_id: if chosen {
                random.alphanumeric(18)
            } else {
                String::new()
            },
        }
        .build()
    }

    pub(crate) fn sign(&self, event: Unsigned) -> Result<Signed, BuildError> {
        self.0.key.sign_event(self.server_name(), event)
    }
}

impl Change {
    pub(crate) fn new(
        rooms: Rooms,
        guard: OwnedMutexGuard<Option<Live>>,
    ) -> Result<Self, RoomError> {
        let live = guard.as_ref().ok_or(RoomError::UnknownRoom)?;
        let mut batch = live.writer.batch();
        batch.unless_lost_since(live.losses);
        Ok(Self {
            rooms,
            guard,
            batch,
            moved: false,
            placed: Vec::new(),
            in_hand: BTreeMap::new(),
            earlier: BTreeSet::new(),
            names: BTreeMap::new(),
            ends_wait: false,
            threads: BTreeMap::new(),
        })
    }

    /// The room's id.
    ///
    /// # Errors
    /// Never while the change holds the room.
    pub fn room_id(&self) -> Result<&RoomId, RoomError> {
        self.live().map(|live| &*live.room_id)
    }

    /// The room's version.
    ///
    /// # Errors
    /// As [`Change::room_id`].
    pub fn version(&self) -> Result<RoomVersion, RoomError> {
        self.live().map(|live| live.info.version)
    }

    /// From here on the cached state may be ahead of the rows.
    pub(crate) fn begin(&mut self) {
        self.moved = true;
    }

    /// Once this is durable, whoever waits for a whole state is woken.
    pub(crate) fn end_wait(&mut self) {
        self.ends_wait = true;
    }

    /// Keeps an event at hand, which is read no more in this change.
    pub(crate) fn remember(&mut self, known: &Known) {
        self.in_hand.insert(known.num, known.clone());
    }

    /// Whether there is something to append.
    pub(crate) fn has_moved(&self) -> bool {
        self.moved
    }

    pub(crate) fn live(&self) -> Result<&Live, RoomError> {
        self.guard.as_ref().ok_or(RoomError::UnknownRoom)
    }

    pub(crate) fn live_mut(&mut self) -> Result<&mut Live, RoomError> {
        self.guard.as_mut().ok_or(RoomError::UnknownRoom)
    }

    /// What the transaction made when it first came, if it did.
    ///
    /// # Errors
    /// The store can't be read.
    pub async fn done(&self, txn: &Transaction) -> Result<Option<Placed>, RoomError> {
        let live = self.live()?;
        let now = self.rooms.now();
        let today = day(now);
        let keys = [today, today.saturating_sub(1)].map(|day| txn_key(day, live.room, txn));
        let rows = live.reader().get_many::<tables::Txns>(&keys).await?;
        let mut rows = rows.into_iter().flatten().map(|row| row.value);
        let Some(done) = rows.find(|done| done.expires > now) else {
            return Ok(None);
        };
        let event_id = OwnedEventId::try_from(done.event_id.as_str())
            .map_err(|_| RoomError::Damaged("a stored event id does not parse".into()))?;
        Ok(Some(Placed {
            event_id,
            seq: done.seq,
        }))
    }

    /// Builds the event on the room's current state, checks it, signs it, and places it.
    ///
    /// A state event that says what its sender last said under its key is not repeated.
    ///
    /// # Errors
    /// The rules forbid it, or it is no event of the room's version. The change can go on.
    pub async fn add(
        &mut self,
        intent: Intent,
        txn: Option<&Transaction>,
    ) -> Result<Placed, RoomError> {
        if let Some(same) = self.standing_for(&intent).await? {
            return Ok(same);
        }
        let made = self.make(&intent).await?;
        self.put_in(made, txn).await
    }

    /// [`Self::add`], with the word of the room's policy server where it has one, and [`Self::commit`].
    ///
    /// # Errors
    /// As theirs; [`RoomError::NotRecommended`] and [`RoomError::PolicyServerSilent`].
    pub async fn send(
        mut self,
        intent: Intent,
        txn: Option<&Transaction>,
    ) -> Result<Placed, RoomError> {
        if let Some(same) = self.standing_for(&intent).await? {
            // It may have been appended only; it is durable when this is.
            self.commit().await?;
            return Ok(same);
        }
        let made = self.make(&intent).await?;
        if self.unasked(made.signed.event()).await?.is_some() {
            let taken = self.take_in(made.signed, txn).await?;
            return taken.ok_or(RoomError::UnknownEvent);
        }
        let placed = self.put_in(made, txn).await?;
        self.commit().await?;
        Ok(placed)
    }

    /// The event that already says what is intended.
    async fn standing_for(&mut self, intent: &Intent) -> Result<Option<Placed>, RoomError> {
        if intent.event_type == "m.room.create" {
            // No permission allows it, so what is wrong is the request; who isn't in the room learns
            // nothing of it even so.
            self.must_be_joined(&intent.sender).await?;
            return Err(RoomError::BadJson("a room has one m.room.create"));
        }
        self.same_state(intent).await
    }

    /// An event of ours, allowed and signed.
    async fn make(&mut self, intent: &Intent) -> Result<Made, RoomError> {
        let draft = self.draft(intent).await?;
        let (unsigned, levels) = (draft.unsigned, draft.state.levels());
        if intent.event_type == "m.room.redaction" {
            let power = levels.user(intent.sender.as_str());
            let redacts_all = power.reaches(levels.field(LevelField::Redact));
            self.check_redaction(unsigned.event(), redacts_all).await?;
        }
        self.check_annotation(unsigned.event()).await?;
        self.check_encryption(intent).await?;
        Ok(Made {
            signed: self.rooms.sign(unsigned)?,
            prev: draft.prev,
            auth: draft.auth,
            root: draft.root,
        })
    }

    async fn put_in(&mut self, made: Made, txn: Option<&Transaction>) -> Result<Placed, RoomError> {
        let Made {
            signed,
            prev,
            auth,
            root,
        } = made;
        let placed = self.place(signed, prev, auth, root, txn).await?;
        self.is_done(txn, &placed)?;
        Ok(placed)
    }

    /// Remembers what a transaction made.
    fn is_done(&mut self, txn: Option<&Transaction>, placed: &Placed) -> Result<(), RoomError> {
        let Some(txn) = txn else { return Ok(()) };
        let now = self.rooms.now();
        let key = txn_key(day(now), self.live()?.room, txn);
        let expires = now + TXN_MEMORY;
        let done = Done {
            event_id: placed.event_id.to_string(),
            seq: placed.seq,
            expires,
        };
        self.batch.put::<tables::Txns>(&key, &done);
        Ok(())
    }

    /// Builds an event on the room's current state and checks it. Nothing is signed or placed.
    pub(crate) async fn draft(&mut self, intent: &Intent) -> Result<Draft, RoomError> {
        let (tips, root) = self.tips().await?;
        let (state, auth) = self.auth_state(intent, root).await?;
        let live = self.live()?;
        let unsigned = self.rooms.build(
            live.info.version,
            Some(live.room_id.clone()),
            intent,
            tips.iter().map(|tip| tip.reference.clone()).collect(),
            auth.iter().map(|fact| fact.reference.clone()).collect(),
            live.head.depth + 1,
            self.rooms.now(),
        )?;
        let draft = Draft {
            unsigned,
            state,
            prev: tips.iter().map(|tip| tip.num).collect(),
            auth: auth.iter().map(|fact| fact.num).collect(),
            root,
        };
        let judged = Judged {
            num: EventNum(live.head.next_num),
            event: draft.unsigned.event(),
            prev: &draft.prev,
            auth: &draft.auth,
        };
        check_auth(live.rules(), &judged, &draft.state)?;
        if root != live.root {
            // Others would soft-fail what the current state forbids.
            let (rules, current) = (live.rules(), live.root);
            let (state, _) = self.auth_state(intent, current).await?;
            check_auth(rules, &judged, &state)?;
        }
        Ok(draft)
    }

    /// A user's membership by the room's state, what is placed in this change included.
    ///
    /// # Errors
    /// The state can't be read.
    pub async fn membership(&mut self, user: &UserId) -> Result<Membership, RoomError> {
        Ok(self
            .fact("m.room.member", user.as_str())
            .await?
            .map_or_else(Membership::default, |fact| match fact.fact {
                comity_protocol::auth::AuthFact::Membership(_, membership) => membership,
                _ => Membership::default(),
            }))
    }

    /// The batch, for rows of the room's lane that belong to the same change.
    pub fn batch(&mut self) -> &mut Batch {
        &mut self.batch
    }

    /// Commits, and answers when it is durable. The room is free again before that.
    ///
    /// # Errors
    /// Nothing of the change is there; after [`comity_storage::CommitError::Unknown`] it may be.
    pub async fn commit(self) -> Result<Vec<Placed>, RoomError> {
        self.append().await?.durable().await
    }

    /// Gives the change its position, and the room back.
    pub(crate) async fn append(mut self) -> Result<Appending, RoomError> {
        let lane = self.live()?.writer.clone();
        let batch = std::mem::replace(&mut self.batch, lane.batch());
        let appended = lane.append(batch).await?;
        let placed = std::mem::take(&mut self.placed);
        let live = self.live_mut()?;
        live.pending.clear();
        if std::mem::take(&mut self.moved) {
            let live = self.live_mut()?;
            let first = live.rows.back().is_none() || live.root_changed;
            live.root_changed = false;
            live.rows.push_back((appended.pos, first));
        }
        let ends_wait = self.ends_wait.then(|| self.rooms.clone());
        Ok(Appending {
            appended,
            placed,
            ends_wait,
        })
    }
}

impl Appending {
    /// Waits until the change is durable; what was placed.
    pub async fn durable(self) -> Result<Vec<Placed>, RoomError> {
        self.appended.durable().await?;
        if let Some(rooms) = self.ends_wait {
            rooms.0.completed.notify_waiters();
        }
        Ok(self.placed)
    }
}

fn txn_key(day: u32, room: RoomKey, txn: &Transaction) -> RoomTxn {
    RoomTxn {
        day,
        room,
        user: txn.user.to_string(),
        device: txn.device.clone(),
        txn: format!("{}/{}", txn.path, txn.txn),
    }
}
