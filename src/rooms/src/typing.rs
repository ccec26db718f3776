//! Who is typing, in memory: lost in a restart, after which whoever was shown somebody is told that nobody types.
//!
//! Each change of a room gets the next serial, so that a sync token's serial says whether there is
//! something new; what ended is told as an empty list. One task a typing user ends what times out.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#typing-notifications>

use std::{
    collections::BTreeMap,
    sync::{Arc, Weak},
    time::Duration,
};

use comity_protocol::id::{OwnedRoomId, OwnedUserId, RoomId, UserId};
use comity_runtime::Runtime;
use parking_lot::Mutex;
use tokio::{sync::broadcast, time::Instant};

/// Nobody types longer than this without saying so again.
const LONGEST: Duration = Duration::from_secs(120);
/// Rooms remembered; those in which nobody types go first, the oldest of them before.
const ROOMS: usize = 20_000;
/// Users typing in one room; more are not told of.
const USERS: usize = 200;
/// Changes that a slow subscriber may lag behind before it is told that it missed some.
const LAG: usize = 1_024;

/// The typing users of all rooms. Cheap to clone.
#[derive(Clone)]
pub struct Typing(Arc<Inner>);

struct Inner {
    runtime: Runtime,
    state: Mutex<State>,
    changed: broadcast::Sender<OwnedRoomId>,
}

#[derive(Default)]
struct State {
    serial: u64,
    rooms: BTreeMap<OwnedRoomId, Room>,
}

#[derive(Default)]
struct Room {
    /// The serial of its last change.
    serial: u64,
    /// Until when.
    users: BTreeMap<OwnedUserId, Instant>,
}

impl Typing {
    pub(crate) fn new(runtime: Runtime) -> Self {
        Self(Arc::new(Inner {
            runtime,
            state: Mutex::default(),
            changed: broadcast::Sender::new(LAG),
        }))
    }

    /// A user types for this long (at most two minutes), or, with `None`, no more. Whether they are
    /// in the room is the caller's question.
    pub fn set(&self, room_id: &RoomId, user: &UserId, timeout: Option<Duration>) {
        let until = timeout.map(|timeout| Instant::now() + timeout.min(LONGEST));
        let started = self.0.set(room_id, user, until);
        if let (true, Some(until)) = (started, until) {
            let (room_id, user) = (room_id.to_owned(), user.to_owned());
            let typing = Arc::downgrade(&self.0);
            let ends = end_when_due(typing, room_id, user, until);
            drop(self.0.runtime.spawn("typing", ends));
        }
    }

    /// Who types in a room, in order, and the serial of the room's last change (0 for none).
    pub fn users(&self, room_id: &RoomId) -> (u64, Vec<OwnedUserId>) {
        let state = self.0.state.lock();
        state
            .rooms
            .get(room_id)
            .map_or_else(Default::default, |room| {
                (room.serial, room.users.keys().cloned().collect())
            })
    }

    /// The serial of a room's last change (0 for none), and whether somebody types in it.
    pub fn last(&self, room_id: &RoomId) -> (u64, bool) {
        let state = self.0.state.lock();
        let room = state.rooms.get(room_id);
        room.map_or((0, false), |room| (room.serial, !room.users.is_empty()))
    }

    /// Who types in a room now, if that has changed after `serial`.
    pub fn changed_after(&self, room_id: &RoomId, serial: u64) -> Option<Vec<OwnedUserId>> {
        let (last, users) = self.users(room_id);
        (last > serial).then_some(users)
    }

    /// The serial of the last change anywhere.
    pub fn serial(&self) -> u64 {
        self.0.state.lock().serial
    }

    /// The rooms in which typing changes, as it does. Who lags is told so and looks at all.
    pub fn subscribe(&self) -> broadcast::Receiver<OwnedRoomId> {
        self.0.changed.subscribe()
    }
}

impl Inner {
    /// Answers whether the user has begun just now.
    fn set(&self, room_id: &RoomId, user: &UserId, until: Option<Instant>) -> bool {
        let mut state = self.state.lock();
        let State { serial, rooms } = &mut *state;
        if !rooms.contains_key(room_id) {
            if until.is_none() {
                return false;
            }
            make_place(rooms);
        }
        let room = rooms.entry(room_id.to_owned()).or_default();
        let known = room.users.contains_key(user);
        match until {
            Some(_) if !known && room.users.len() >= USERS => return false,
            Some(until) => drop(room.users.insert(user.to_owned(), until)),
            None => drop(room.users.remove(user)),
        }
        if known != until.is_some() {
            *serial += 1;
            room.serial = *serial;
            drop(state);
            // Nobody may be listening.
            drop(self.changed.send(room_id.to_owned()));
        }
        !known && until.is_some()
    }

    /// Ends what is due; otherwise says when it will be.
    fn end(&self, room_id: &RoomId, user: &UserId) -> Option<Instant> {
        let until = {
            let state = self.state.lock();
            *state.rooms.get(room_id)?.users.get(user)?
        };
        if until > Instant::now() {
            return Some(until);
        }
        self.set(room_id, user, None);
        None
    }
}

/// Drops a quiet room where there are too many.
fn make_place(rooms: &mut BTreeMap<OwnedRoomId, Room>) {
    if rooms.len() < ROOMS {
        return;
    }
    let quiet = rooms.iter().filter(|(_, room)| room.users.is_empty());
    let oldest = quiet.min_by_key(|(_, room)| room.serial);
    let oldest = oldest.or_else(|| rooms.iter().min_by_key(|(_, room)| room.serial));
    if let Some(room_id) = oldest.map(|(room_id, _)| room_id.clone()) {
        rooms.remove(&room_id);
    }
}

async fn end_when_due(
    typing: Weak<Inner>,
    room_id: OwnedRoomId,
    user: OwnedUserId,
    until: Instant,
) {
    let mut next = Some(until);
    while let Some(until) = next {
        tokio::time::sleep_until(until).await;
        next = typing
            .upgrade()
            .and_then(|typing| typing.end(&room_id, &user));
    }
}
