//! What changed last, in memory: for each room a position, for each user who syncs a wake-up.
//!
//! One task follows the lanes' logs and keeps this up to date; it decides nothing, it only says
//! where to look. What happened before the server started is not here: a token older than that
//! makes its user's rooms count as changed once.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use comity_accounts::{Accounts, Change};
use comity_keys::{Changed, ListChanged};
use comity_protocol::{auth, id::UserId};
use comity_rooms::{Rooms, log};
use comity_runtime::watch;
use comity_storage::{Heads, Home, Lane, Logged, Pos, Record, RoomKey};
use parking_lot::Mutex;
use tokio::sync::{Notify, broadcast::error::RecvError};

use crate::{
    SyncError,
    recent_lists::RecentLists,
    recent_rooms::{Listed, RecentRooms},
};

/// Users kept; those who wait are never dropped.
const USERS: usize = 100_000;
/// How long to wait before the log is read again after a failure.
const RETRY: std::time::Duration = std::time::Duration::from_millis(200);

/// A room whose place in a user's order may be another: what the user is in it, and the room's last change.
pub(crate) type Moved = (RoomKey, Membership, Pos);

/// See the module.
pub(crate) struct Index {
    /// Which run this is: serials of another say nothing.
    node: u64,
    /// Where the following began.
    start: Heads,
    /// How far it has come.
    cursor: watch::Sender<Heads>,
    state: Mutex<State>,
    /// There are users among [`State::changed_lists`].
    lists_changed: Notify,
}

#[derive(Default)]
struct State {
    rooms: HashMap<RoomKey, Room>,
    users: HashMap<Arc<str>, User>,
    lists: RecentLists,
    /// Users whose lists changed, of which those who share a room with them haven't been woken.
    changed_lists: BTreeSet<String>,
}

#[derive(Default)]
struct Room {
    changed: Pos,
    /// Where its state became whole, if it was joined without its members in this run.
    completed: Pos,
    /// Those of the known users who are joined.
    joined: BTreeSet<Arc<str>>,
    /// Those who have a place in it and aren't.
    beside: BTreeSet<Arc<str>>,
}

struct User {
    wake: watch::Sender<u64>,
    /// Their rooms have been read. Until then whoever asks for them reads them: a reader may be
    /// dropped on its way, and two of them do no harm.
    loaded: bool,
    rooms: BTreeMap<RoomKey, Membership>,
    /// The same in order, if they slide.
    recent: Option<RecentRooms>,
    /// The latest change of their own rows.
    own: Heads,
    /// The latest messages to their devices.
    messages: Pos,
}

/// A user's place in a room as the index knows it: many are looked at for one answer, so it costs little to copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Membership {
    pub room_id: Arc<str>,
    pub membership: auth::Membership,
    /// The position that set it.
    pub pos: Pos,
    pub forgotten: bool,
    /// The position of the user's latest account data of the room.
    pub data: Pos,
}

impl Index {
    pub fn follow(rooms: &Rooms, accounts: &Accounts) -> Arc<Self> {
        let tenant = rooms.tenant();
        let heads = tenant.heads();
        let index = Arc::new(Self {
            node: tenant.runtime().random().u64(),
            start: heads.clone(),
            cursor: watch::Sender::new(heads.clone()),
            state: Mutex::default(),
            lists_changed: Notify::new(),
        });
        let (following, mut follower) = (index.clone(), tenant.follow(heads));
        drop(tenant.runtime().spawn("sync index", async move {
            loop {
                match follower.next().await {
                    Ok(logged) => {
                        logged.iter().for_each(|logged| following.take(logged));
                        following.cursor.send_replace(follower.cursor().clone());
                    }
                    Err(error) => {
                        tracing::warn!(%error, "the log could not be read");
                        tokio::time::sleep(RETRY).await;
                    }
                }
            }
        }));
        drop(
            tenant
                .runtime()
                .spawn("sync typing", index.clone().follow_typing(rooms.clone())),
        );
        drop(
            tenant.runtime().spawn(
                "sync presence",
                index
                    .clone()
                    .follow_presence(rooms.clone(), accounts.clone()),
            ),
        );
        drop(tenant.runtime().spawn(
            "sync device lists",
            index.clone().follow_lists(rooms.clone()),
        ));
        index
    }

    /// Wakes those who share a room with a user whose device list changed. A user who does not sync
    /// has their rooms read for it.
    async fn follow_lists(self: Arc<Self>, rooms: Rooms) {
        loop {
            self.lists_changed.notified().await;
            let changed = std::mem::take(&mut self.state.lock().changed_lists);
            for user in changed {
                self.wake_around(&rooms, &user).await;
            }
        }
    }

    /// Wakes a user and those who share a room with them.
    async fn wake_around(&self, rooms: &Rooms, user: &str) {
        let Ok(user) = <&UserId>::try_from(user) else {
            return;
        };
        if let Err(error) = self.user(rooms, user).await {
            tracing::warn!(%error, "a user's rooms could not be read");
            return;
        }
        let mut state = self.state.lock();
        let known = state.users.get(user.as_str());
        if let Some(user) = known {
            user.wake.send_modify(|serial| *serial += 1);
        }
        let joined = known.map_or_else(Vec::new, User::joined);
        joined.into_iter().for_each(|room| state.wake_room(room));
    }

    /// Wakes those who are in a room where typing changed.
    async fn follow_typing(self: Arc<Self>, rooms: Rooms) {
        let mut changes = rooms.typing().subscribe();
        loop {
            match changes.recv().await {
                Ok(room_id) => self.state.lock().wake_room(RoomKey::of(room_id.as_str())),
                Err(RecvError::Lagged(_)) => self.state.lock().wake_all(),
                Err(RecvError::Closed) => return,
            }
        }
    }

    /// Wakes those who share a room with a user whose presence changed. A user who does not sync
    /// has their rooms read for it.
    async fn follow_presence(self: Arc<Self>, rooms: Rooms, accounts: Accounts) {
        let mut changes = accounts.presence().watch();
        let mut serial = *changes.borrow_and_update();
        while changes.changed().await.is_ok() {
            let (changed, now) = accounts.presence().since(serial);
            serial = now;
            for (user, _) in changed {
                self.wake_around(&rooms, &user).await;
            }
        }
    }

    /// Whether two users are in a room together, or are the same.
    pub fn share(&self, user: &UserId, other: &str) -> bool {
        let state = self.state.lock();
        let rooms = state
            .users
            .get(user.as_str())
            .map_or_else(Vec::new, User::joined);
        user.as_str() == other
            || rooms.iter().any(|room| {
                state
                    .rooms
                    .get(room)
                    .is_some_and(|room| room.joined.contains(other))
            })
    }

    /// Whether two users are in a room together; `None` if the rooms of the other aren't here.
    pub fn shares(&self, user: &UserId, other: &str) -> Option<bool> {
        let state = self.state.lock();
        let loaded = |user: &str| state.users.get(user).filter(|user| user.loaded);
        let (user, other) = (loaded(user.as_str())?, loaded(other)?);
        let joined = |place: &Membership| place.is_joined();
        Some(
            user.rooms
                .iter()
                .any(|(room, place)| joined(place) && other.rooms.get(room).is_some_and(joined)),
        )
    }

    /// The device lists that changed after one position and up to another; `None` if not all of them are
    /// kept here.
    pub fn lists_after(&self, after: &Heads, to: &Heads) -> Option<Vec<Changed>> {
        let state = self.state.lock();
        let mut changed = Vec::new();
        for lane in (0..u8::try_from(to.positions().len()).unwrap_or(u8::MAX)).map(Lane) {
            let (after, to) = (after.get(lane), to.get(lane));
            if after >= to {
                continue;
            }
            if after < self.start.get(lane) {
                return None;
            }
            changed.extend(state.lists.between(lane, after, to)?.cloned());
        }
        Some(changed)
    }

    /// The known users who are in a room.
    pub fn joined_in(&self, room: RoomKey) -> Vec<Arc<str>> {
        let state = self.state.lock();
        state
            .rooms
            .get(&room)
            .map_or_else(Vec::new, |room| room.joined.iter().cloned().collect())
    }

    pub fn node(&self) -> u64 {
        self.node
    }

    /// Waits until everything up to these heads is here.
    pub async fn reached(&self, heads: &Heads) {
        let mut cursor = self.cursor.subscribe();
        // The sender lives as long as `self`, so the wait can't fail.
        let _ = cursor.wait_for(|cursor| cursor.reached(heads)).await;
    }

    /// The user's wake-up; their rooms are read when they come for the first time.
    pub async fn user(
        &self,
        rooms: &Rooms,
        user: &UserId,
    ) -> Result<watch::Receiver<u64>, SyncError> {
        let name: Arc<str> = user.as_str().into();
        {
            let mut state = self.state.lock();
            match state.users.get(&name) {
                Some(user) if user.loaded => return Ok(user.wake.subscribe()),
                Some(_) => {}
                None => {
                    state.make_room();
                    // From here on the follower tells this user what happens; what is read below
                    // is older.
                    let tenant = rooms.tenant();
                    let (own, lanes) = (tenant.heads(), tenant.lanes());
                    let user = User {
                        wake: watch::Sender::new(0),
                        loaded: false,
                        rooms: BTreeMap::new(),
                        recent: None,
                        // What came before may have been missed.
                        messages: own.get(lanes.of(Home::User(user.as_str()).slot())),
                        own,
                    };
                    state.users.insert(name.clone(), user);
                }
            }
        }
        // Apart: few requests come this way, and all that wait would keep the room it takes.
        let reader = rooms.tenant().reader();
        let rows = Box::pin(rooms.memberships(&reader, user)).await?;
        let (heads, lanes) = (rooms.tenant().heads(), rooms.tenant().lanes());
        let mut state = self.state.lock();
        let State { rooms, users, .. } = &mut *state;
        let Some(user) = users.get_mut(&name) else {
            return Ok(watch::Sender::new(0).subscribe());
        };
        user.loaded = true;
        for (room, row) in rows {
            if user.rooms.contains_key(&room) {
                continue;
            }
            let member = row.value;
            let place = Membership {
                membership: member.membership(),
                room_id: member.room_id.into(),
                pos: row.pos,
                forgotten: member.forgotten,
                // What came before may have been missed.
                data: heads.get(lanes.of(Home::Room(room).slot())),
            };
            rooms.entry(room).or_default().set(&name, &place);
            user.rooms.insert(room, place);
            user.note(room);
        }
        Ok(user.wake.subscribe())
    }

    /// Those of the user's rooms that are wanted, by their place in it and the room's last change: a
    /// comparison each.
    pub fn rooms_of(
        &self,
        user: &UserId,
        wanted: impl Fn(RoomKey, &Membership, Pos) -> bool,
    ) -> Vec<(RoomKey, Membership)> {
        let state = self.state.lock();
        let rooms = state.users.get(user.as_str()).map(|user| &user.rooms);
        let changed = |room| state.rooms.get(room).map_or(0, |room| room.changed);
        rooms
            .into_iter()
            .flatten()
            .filter(|(room, place)| wanted(**room, place, changed(room)))
            .map(|(room, place)| (*room, place.clone()))
            .collect()
    }

    /// All of the user's rooms, by their place in it and the room's last change.
    pub fn all_of(&self, user: &UserId) -> Vec<Moved> {
        let state = self.state.lock();
        let rooms = state.users.get(user.as_str()).map(|user| &user.rooms);
        let changed = |room| state.rooms.get(room).map_or(0, |room| room.changed);
        let rooms = rooms.into_iter().flatten();
        rooms
            .map(|(room, place)| (*room, place.clone(), changed(room)))
            .collect()
    }

    /// The user's rooms in order as they were looked at last, and those to be looked at again, by their place and the room's last change.
    pub fn recent(&self, user: &UserId) -> (Arc<Vec<Listed>>, Vec<Moved>) {
        let mut state = self.state.lock();
        let State { rooms, users, .. } = &mut *state;
        let Some(user) = users.get_mut(user.as_str()) else {
            return Default::default();
        };
        let (places, recent) = user.recent();
        let moved = recent.moved().filter_map(|room| {
            let changed = rooms.get(room).map_or(0, |room| room.changed);
            Some((*room, places.get(room)?.clone(), changed))
        });
        (recent.listed(), moved.collect())
    }

    /// The user's rooms in order, these as they were just looked at.
    pub fn relist(&self, user: &UserId, looked: Vec<Listed>) -> Arc<Vec<Listed>> {
        let mut state = self.state.lock();
        let State { rooms, users, .. } = &mut *state;
        let Some(user) = users.get_mut(user.as_str()) else {
            return Arc::default();
        };
        let (places, recent) = user.recent();
        recent.put(looked, |room| {
            let changed = rooms.get(&room).map_or(0, |room| room.changed);
            Some((places.get(&room)?, changed))
        });
        recent.listed()
    }

    /// Whether rows of the user's own may have changed after `since`.
    pub fn own_changed(&self, user: &UserId, lane: comity_storage::Lane, since: Pos) -> bool {
        let state = self.state.lock();
        state
            .users
            .get(user.as_str())
            .is_none_or(|user| user.own.get(lane) > since)
            || since < self.start.get(lane)
    }

    /// The latest change of rows of the user's own that is known here; `None` if the user isn't.
    pub fn own(&self, user: &UserId, lane: Lane) -> Option<Pos> {
        let state = self.state.lock();
        Some(state.users.get(user.as_str())?.own.get(lane))
    }

    /// A position of the user's lane beyond which no message has come to their devices.
    pub fn newest_message(&self, user: &UserId) -> Pos {
        let state = self.state.lock();
        state
            .users
            .get(user.as_str())
            .map_or(Pos::MAX, |user| user.messages)
    }

    /// Where a room's state became whole, if that was in this run.
    pub fn completed(&self, room: RoomKey) -> Pos {
        let state = self.state.lock();
        state.rooms.get(&room).map_or(0, |room| room.completed)
    }

    /// From where on the changes of a lane are here.
    pub fn start(&self, lane: comity_storage::Lane) -> Pos {
        self.start.get(lane)
    }

    fn take(&self, logged: &Logged) {
        let mut state = self.state.lock();
        for record in &logged.records {
            state.take(logged, record);
        }
        if !state.changed_lists.is_empty() {
            self.lists_changed.notify_one();
        }
    }
}

impl Membership {
    pub fn is_joined(&self) -> bool {
        self.membership == auth::Membership::Join
    }
}

impl User {
    fn joined(&self) -> Vec<RoomKey> {
        self.rooms
            .iter()
            .filter(|(_, place)| place.is_joined())
            .map(|(room, _)| *room)
            .collect()
    }

    /// Their rooms, and those in order; none was looked at if this is the first time.
    fn recent(&mut self) -> (&BTreeMap<RoomKey, Membership>, &mut RecentRooms) {
        let of = || RecentRooms::of(self.rooms.keys().copied());
        (&self.rooms, self.recent.get_or_insert_with(of))
    }

    /// A list looks again at a room, if it is one of theirs: data may be of any.
    fn note(&mut self, room: RoomKey) {
        if let Some(recent) = (self.recent.as_mut()).filter(|_| self.rooms.contains_key(&room)) {
            recent.note(room);
        }
    }
}

impl Room {
    /// A user's place is this.
    fn set(&mut self, user: &Arc<str>, place: &Membership) {
        let (now, before) = match place.is_joined() {
            true => (&mut self.joined, &mut self.beside),
            false => (&mut self.beside, &mut self.joined),
        };
        before.remove(user);
        now.insert(user.clone());
    }
}

impl State {
    /// Forgets users whom nobody waits for, when there are too many.
    fn make_room(&mut self) {
        if self.users.len() < USERS {
            return;
        }
        self.users.retain(|_, user| user.wake.receiver_count() > 0);
        let users = &self.users;
        self.rooms.values_mut().for_each(|room| {
            room.joined.retain(|user| users.contains_key(user));
            room.beside.retain(|user| users.contains_key(user));
        });
    }

    fn take(&mut self, logged: &Logged, record: &Record) {
        match record.kind {
            log::kind::PLACED => {
                let Ok(placed) = log::read::<log::Placed>(record) else {
                    return;
                };
                let room = RoomKey::of(&record.subject);
                if let Some((user, membership)) = placed.member {
                    self.set_member(room, &record.subject, &user, &membership, logged.pos);
                }
                self.room_changed(room, logged.pos);
            }
            log::kind::RESOLVED => {
                let Ok(resolved) = log::read::<log::Resolved>(record) else {
                    return;
                };
                let room = RoomKey::of(&record.subject);
                for (user, membership) in resolved.members {
                    self.set_member(room, &record.subject, &user, &membership, logged.pos);
                }
            }
            log::kind::COMPLETED => {
                let room = RoomKey::of(&record.subject);
                self.rooms.entry(room).or_default().completed = logged.pos;
                self.room_changed(room, logged.pos);
            }
            log::kind::RECEIPT => {
                let Ok(moved) = log::read::<log::ReceiptMoved>(record) else {
                    return;
                };
                let room = RoomKey::of(&record.subject);
                if moved.private {
                    self.rooms.entry(room).or_default().changed = logged.pos;
                    self.note(&moved.user, room);
                    self.own_changed(&moved.user, logged);
                } else {
                    self.room_changed(room, logged.pos);
                }
            }
            log::kind::FORGOT => {
                let Ok(forgot) = log::read::<log::Forgot>(record) else {
                    return;
                };
                let room = RoomKey::of(&record.subject);
                let user = self.users.get_mut(forgot.user.as_str());
                if let Some(place) = user.and_then(|user| user.rooms.get_mut(&room)) {
                    place.forgotten = true;
                }
                self.note(&forgot.user, room);
            }
            comity_keys::LIST => {
                if let Some(changed) = ListChanged::of(record).filter(|changed| changed.shown) {
                    self.list_changed(logged, &record.subject, changed.only);
                }
            }
            comity_keys::SUPPLY => self.own_changed(&record.subject, logged),
            comity_to_device::log::MESSAGES => {
                if let Some(user) = self.users.get_mut(record.subject.as_str()) {
                    user.messages = logged.pos;
                    user.wake.send_modify(|serial| *serial += 1);
                }
            }
            _ => {
                let Some(change) = Change::of(record) else {
                    return;
                };
                if let Change::RoomAccountData { room_id, .. } = &change {
                    let room = RoomKey::of(room_id);
                    let user = self.users.get_mut(record.subject.as_str());
                    if let Some(place) = user.and_then(|user| user.rooms.get_mut(&room)) {
                        place.data = logged.pos;
                    }
                    self.note(&record.subject, room);
                }
                self.own_changed(&record.subject, logged);
            }
        }
    }

    fn list_changed(&mut self, logged: &Logged, user: &str, only: Option<String>) {
        match &only {
            Some(only) => self.own_changed(only, logged),
            None => _ = self.changed_lists.insert(user.to_owned()),
        }
        let user = user.to_owned();
        self.lists
            .put(logged.lane, logged.pos, Changed { user, only });
    }

    fn set_member(&mut self, room: RoomKey, room_id: &str, user: &str, membership: &str, pos: Pos) {
        let Some(name) = self.users.get_key_value(user).map(|(name, _)| name.clone()) else {
            return;
        };
        let place = Membership {
            room_id: room_id.into(),
            membership: auth::Membership::from_name(membership).unwrap_or_default(),
            pos,
            forgotten: false,
            data: 0,
        };
        self.rooms.entry(room).or_default().set(&name, &place);
        if let Some(user) = self.users.get_mut(&name) {
            let data = user.rooms.get(&room).map_or(0, |place| place.data);
            user.rooms.insert(room, Membership { data, ..place });
            user.note(room);
            user.wake.send_modify(|serial| *serial += 1);
        }
    }

    fn room_changed(&mut self, room: RoomKey, pos: Pos) {
        let Self { rooms, users, .. } = self;
        let here = rooms.entry(room).or_default();
        here.changed = pos;
        for user in &here.joined {
            if let Some(user) = users.get_mut(user) {
                user.note(room);
                user.wake.send_modify(|serial| *serial += 1);
            }
        }
        // Whoever isn't in it isn't told, but a list may have it elsewhere.
        for user in &here.beside {
            if let Some(user) = users.get_mut(user) {
                user.note(room);
            }
        }
    }

    /// A room isn't to a user what it was.
    fn note(&mut self, user: &str, room: RoomKey) {
        if let Some(user) = self.users.get_mut(user) {
            user.note(room);
        }
    }

    fn wake_all(&mut self) {
        self.users
            .values()
            .for_each(|user| user.wake.send_modify(|serial| *serial += 1));
    }

    fn wake_room(&mut self, room: RoomKey) {
        let Self { rooms, users, .. } = self;
        for user in rooms.get(&room).into_iter().flat_map(|room| &room.joined) {
            if let Some(user) = users.get(user) {
                user.wake.send_modify(|serial| *serial += 1);
            }
        }
    }

    fn own_changed(&mut self, user: &str, logged: &Logged) {
        if let Some(user) = self.users.get_mut(user) {
            user.own = user.own.with(logged.lane, logged.pos);
            user.wake.send_modify(|serial| *serial += 1);
        }
    }
}
