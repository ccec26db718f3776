//! What a connection's client knows.
//!
//! Two positions are kept: the one that the client has come back with (its *base*), room by room, and the latest that it was given,
//! as what it adds to the base. Coming back with the latest makes it the base; coming back with the base means that the answer was
//! lost, and what it added with it. Any other position is unknown.
//!
//! The rows are the truth; what is in memory saves reading them. Nobody waits for the disk: a position lost with the machine is
//! unknown afterwards, and its client begins anew.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use comity_accounts::{
    Belongings,
    tables::{Devices, UserPart},
};
use comity_storage::{Batch, CommitError, Expect, Heads, Home, Key, Pos, Range, RoomKey};
use parking_lot::Mutex;

use super::{
    Required, SlidingError, SlidingRequest, base::Base, looked::Looked, request::REQUIRED_BYTES,
};
use crate::{
    Sync, SyncError,
    tables::{
        Connection, ConnectionRooms, ConnectionStates, Connections, InConnection, Known,
        OfConnection, OfDevice, Position, hash,
    },
    token::{Ephemeral, SlidingPos, SyncToken},
};

/// Connections that a device may have; another one ends that which was written to least lately.
const OF_DEVICE: usize = 16;
/// Rooms of connections kept in memory; beyond, all are forgotten and read again.
const ROOMS: usize = 2_000_000;
/// Required states that a connection remembers; one that no room was told by gives way.
const REQUIRED: usize = 256;
/// Bytes of them that count as much as a room in memory.
const OF_ROOM: usize = 64;

/// The connections in memory.
#[derive(Default)]
pub(crate) struct Kept(Mutex<Memory>);

#[derive(Default)]
struct Memory {
    connections: HashMap<OfDevice, Arc<Cached>>,
    rooms: usize,
}

struct Cached {
    /// The commit that wrote the row.
    pos: Pos,
    row: Connection,
    /// What the client knows at the base.
    rooms: Base,
    /// The required states that rooms were told by, by their numbers.
    required: Arc<Vec<Arc<Required>>>,
    looked: Arc<Looked>,
    /// What it counts for.
    size: usize,
}

/// A connection as a request finds it.
pub(super) struct At {
    pub of: OfDevice,
    /// The request's position; `None` if the connection begins with it.
    pub position: Option<Position>,
    /// By their numbers.
    required: Arc<Vec<Arc<Required>>>,
    /// The numbers that this answer gives.
    numbered: BTreeSet<usize>,
    pub looked: Arc<Looked>,
    /// The row that this rests on.
    row: Option<Pos>,
    /// The device's row, on which a connection that wasn't there rests: none outlives its device.
    device: Option<(UserPart, Pos)>,
    rooms: Base,
    /// What the position adds to those.
    told: BTreeMap<RoomKey, Known>,
    /// Connections that end when this one begins.
    ended: Vec<OfDevice>,
}

impl At {
    /// What the client knows of a room.
    pub fn known(&self, room: RoomKey) -> Option<Known> {
        let told = self.told.get(&room).copied();
        told.or_else(|| self.rooms.get(room))
    }

    /// The position of an answer that says who types in these rooms, and nothing else: the request's, but for how far it has come
    /// in what lives in memory. Then nothing is written, for the client gives back in its text what it was told; `None` where
    /// that text would be the same, or where no row says that the client was shown somebody type in this run, so that
    /// after it nobody could tell it that they don't.
    pub fn passing(&self, told: &BTreeMap<RoomKey, Known>, now: Ephemeral) -> Option<Position> {
        let position = self.position.as_ref()?;
        let before = position.ephemeral;
        let shown = |room: &RoomKey| {
            let known = self.known(*room).unwrap_or_default();
            known.typing.0 == now.node && known.typing.1 > 0
        };
        if before.node != now.node || before.typing >= now.typing || !told.keys().all(shown) {
            return None;
        }
        self.looked.typing_told(told.keys().copied(), now.typing);
        Some(Position {
            ephemeral: now,
            ..position.clone()
        })
    }

    /// The required state that a number stands for.
    pub fn required(&self, number: u16) -> Option<&Required> {
        let required = self.required.get(usize::from(number));
        required.map(|required| &**required)
    }

    /// The same required state, as it is held already if it is: whoever compares them then compares addresses.
    pub fn held(&self, required: Arc<Required>) -> Arc<Required> {
        let mut told = self.required.iter();
        let told = told.find(|told| **told == required);
        told.cloned().unwrap_or(required)
    }

    /// The number of a required state, which is remembered from now on; `told` are those that the answer tells by.
    ///
    /// # Errors
    /// [`SlidingError::UnknownPos`] where rooms were told by too many already: the connection has to begin anew;
    /// [`SlidingError::TooMuch`] if that is no help.
    pub fn number(
        &mut self,
        required: &Arc<Required>,
        told: &BTreeMap<RoomKey, Known>,
    ) -> Result<u16, SlidingError> {
        let mut places = self.required.iter();
        let place = match places.position(|known| known == required) {
            Some(place) => place,
            None => {
                let place = self.free_number(required.bytes(), told);
                let place = place.ok_or(match self.position {
                    Some(_) => SlidingError::UnknownPos,
                    None => SlidingError::TooMuch,
                })?;
                let all = Arc::make_mut(&mut self.required);
                match all.get_mut(place) {
                    Some(free) => *free = required.clone(),
                    None => all.push(required.clone()),
                }
                self.numbered.insert(place);
                place
            }
        };
        u16::try_from(place).map_err(|_| SlidingError::UnknownPos)
    }

    /// A number that stands for nothing yet; where there are too many of them, or they take too much with so many bytes more, one of
    /// those that stand for what no room was told by, which all give way.
    fn free_number(&mut self, bytes: usize, told: &BTreeMap<RoomKey, Known>) -> Option<usize> {
        let fit = |held: usize| held.saturating_add(bytes) <= REQUIRED_BYTES;
        let held = self.required.iter().map(|required| required.bytes());
        let next = self.required.len();
        if next < REQUIRED && fit(held.sum()) {
            return Some(next);
        }
        let rooms = self.rooms.all().chain(self.told.values());
        let used = rooms.chain(told.values());
        let used: BTreeSet<usize> = used.map(|known| usize::from(known.required)).collect();
        let held = self.required.iter().enumerate();
        let held = held.filter(|(place, _)| used.contains(place));
        if !fit(held.map(|(_, required)| required.bytes()).sum()) {
            return None;
        }
        let free: Vec<usize> = (0..next).filter(|place| !used.contains(place)).collect();
        let all = Arc::make_mut(&mut self.required);
        for place in &free {
            if let Some(unused) = all.get_mut(*place).filter(|unused| unused.bytes() > 0) {
                *unused = Arc::default();
                self.numbered.insert(*place);
            }
        }
        free.first().copied()
    }
}

impl Position {
    pub(super) fn token(&self) -> SyncToken {
        SyncToken {
            incarnation: self.incarnation,
            heads: Heads::new(self.heads.clone()),
            ephemeral: self.ephemeral,
            to_device: 0,
            typing_in: Vec::new(),
        }
    }

    pub(super) fn text(&self) -> String {
        let pos = SlidingPos {
            token: self.token(),
            id: self.id,
        };
        pos.to_string()
    }
}

impl Kept {
    fn get(&self, of: &OfDevice) -> Option<Arc<Cached>> {
        self.0.lock().connections.get(of).cloned()
    }

    /// What is newer stays.
    fn put(&self, of: &OfDevice, cached: Cached) -> Arc<Cached> {
        let mut memory = self.0.lock();
        if memory.rooms > ROOMS {
            *memory = Memory::default();
        }
        let before = memory.connections.get(of);
        if let Some(newer) = before.filter(|before| before.pos >= cached.pos) {
            return newer.clone();
        }
        let cached = Arc::new(cached);
        memory.rooms += cached.size;
        if let Some(before) = memory.connections.insert(of.clone(), cached.clone()) {
            memory.rooms = memory.rooms.saturating_sub(before.size);
        }
        cached
    }

    fn forget(&self, of: &OfDevice) {
        let mut memory = self.0.lock();
        if let Some(gone) = memory.connections.remove(of) {
            memory.rooms = memory.rooms.saturating_sub(gone.size);
        }
    }
}

impl Cached {
    /// With what it counts for, which whoever holds the lock of them all doesn't stop to find out.
    fn sized(self) -> Self {
        let required = self.required.iter().map(|required| required.bytes());
        let required = required.sum::<usize>() / OF_ROOM;
        let size = self.rooms.size() + self.row.told.len() + required + 16;
        Self { size, ..self }
    }
}

impl Sync {
    /// The connection of a request, at its position.
    pub(super) async fn connection(&self, request: &SlidingRequest) -> Result<At, SlidingError> {
        let of = request.of();
        let Some(pos) = &request.pos else {
            let begun = self.begin(request, of).await?;
            return begun.ok_or(SlidingError::UnknownPos);
        };
        let cached = match self.0.connections.get(&of) {
            Some(cached) => cached,
            None => {
                let stored = self.stored(&of).await?;
                let stored = stored.ok_or(SlidingError::UnknownPos)?;
                self.0.connections.put(&of, stored)
            }
        };
        let row = &cached.row;
        let incarnation = self.0.rooms.tenant().birth().incarnation;
        // What was lost of the store is told again from the beginning.
        let is =
            |position: &&Position| position.id == pos.id && position.incarnation == incarnation;
        let newest = Some(&row.newest).filter(is);
        let base = row.base.as_ref().filter(is);
        let (mut position, told) = match (newest, base) {
            (Some(newest), _) => (newest.clone(), by_room(row)),
            (None, Some(base)) => (base.clone(), BTreeMap::new()),
            (None, None) => return Err(SlidingError::UnknownPos),
        };
        let came = pos.token.ephemeral;
        if came.node == self.0.index.node() {
            position.ephemeral = came;
            cached.looked.typing_came(came.typing);
        }
        Ok(At {
            of,
            position: Some(position),
            required: cached.required.clone(),
            numbered: BTreeSet::new(),
            looked: cached.looked.clone(),
            row: Some(cached.pos),
            device: None,
            rooms: cached.rooms.clone(),
            told,
            ended: Vec::new(),
        })
    }

    /// A connection from its beginning; `None` if the device has gone meanwhile.
    async fn begin(&self, request: &SlidingRequest, of: OfDevice) -> Result<Option<At>, SyncError> {
        let reader = self.0.rooms.tenant().lane(Home::User(&of.user)).reader();
        let range = Range::of(Home::User(&of.user), |key| {
            key.str(&of.user).fixed(&of.device);
        });
        let mut others = reader.scan::<Connections>(range).await?;
        let row = others
            .iter()
            .find(|(key, _)| *key == of)
            .map(|(_, row)| row.pos);
        let mut device = None;
        // One that is there goes with its device.
        if row.is_none() {
            let key = UserPart {
                user: of.user.clone(),
                part: request.device.clone(),
            };
            let Some(found) = reader.get::<Devices>(&key).await? else {
                return Ok(None);
            };
            device = Some((key, found.pos));
        }
        others.retain(|(key, _)| *key != of);
        others.sort_by_key(|(_, row)| row.pos);
        let too_many = (others.len() + 1).saturating_sub(OF_DEVICE);
        Ok(Some(At {
            of,
            position: None,
            required: Arc::default(),
            numbered: BTreeSet::new(),
            looked: Arc::default(),
            row,
            device,
            rooms: Base::default(),
            told: BTreeMap::new(),
            ended: others
                .into_iter()
                .take(too_many)
                .map(|(key, _)| key)
                .collect(),
        }))
    }

    async fn stored(&self, of: &OfDevice) -> Result<Option<Cached>, SyncError> {
        let reader = self.0.rooms.tenant().lane(Home::User(&of.user)).reader();
        let (row, rooms, states) = futures_util::try_join!(
            reader.get::<Connections>(of),
            reader.scan::<ConnectionRooms>(Range::of(of_home(of), |key| of.write(key))),
            reader.scan::<ConnectionStates>(Range::of(of_home(of), |key| of.write(key))),
        )?;
        let Some(row) = row else { return Ok(None) };
        let rooms = rooms.into_iter().map(|(key, row)| (key.room, row.value));
        // In the order of their numbers, of which none is left out.
        let required = states.into_iter().map(|(_, row)| Arc::new(row.value));
        let cached = Cached {
            pos: row.pos,
            row: row.value,
            rooms: rooms.collect(),
            required: Arc::new(required.collect()),
            looked: Arc::default(),
            size: 0,
        };
        Ok(Some(cached.sized()))
    }

    /// Keeps an answer's position and what it told. A conflict means that another request of the connection came first.
    pub(super) async fn keep(
        &self,
        at: At,
        next: Position,
        told: BTreeMap<RoomKey, Known>,
    ) -> Result<(), CommitError> {
        let lane = self.0.rooms.tenant().lane(of_home(&at.of));
        let mut batch = lane.batch();
        batch.expect::<Connections>(&at.of, at.row.map_or(Expect::Absent, Expect::At));
        if let Some((device, pos)) = &at.device {
            batch.expect::<Devices>(device, Expect::At(*pos));
        }
        for of in at
            .ended
            .iter()
            .chain((at.position.is_none()).then_some(&at.of))
        {
            end(&mut batch, of);
        }
        let mut rooms = at.rooms;
        if !at.told.is_empty() {
            for (room, known) in &at.told {
                let key = InConnection {
                    of: at.of.clone(),
                    room: *room,
                };
                batch.put::<ConnectionRooms>(&key, known);
            }
            rooms.add(at.told);
        }
        for of in &at.ended {
            batch.delete::<Connections>(of);
            self.0.connections.forget(of);
        }
        let row = Connection {
            base: at.position,
            newest: next,
            told: told
                .into_iter()
                .map(|(room, known)| (room.0, known))
                .collect(),
        };
        batch.put::<Connections>(&at.of, &row);
        for (number, required) in (0..).zip(&*at.required) {
            if at.numbered.contains(&usize::from(number)) {
                let of = at.of.clone();
                batch.put::<ConnectionStates>(&OfConnection { of, number }, required);
            }
        }
        match lane.append(batch).await {
            Ok(appended) => {
                let cached = Cached {
                    pos: appended.pos,
                    row,
                    rooms,
                    required: at.required,
                    looked: at.looked,
                    size: 0,
                };
                self.0.connections.put(&at.of, cached.sized());
                Ok(())
            }
            Err(error) => {
                self.0.connections.forget(&at.of);
                Err(error)
            }
        }
    }
}

fn of_home(of: &OfDevice) -> Home<'_> {
    Home::User(&of.user)
}

fn by_room(row: &Connection) -> BTreeMap<RoomKey, Known> {
    let told = row.told.iter();
    told.map(|(room, known)| (RoomKey(*room), *known)).collect()
}

/// Removes what a connection's client knew.
fn end(batch: &mut Batch, of: &OfDevice) {
    batch.delete_all::<ConnectionRooms>(of_home(of), |key| of.write(key));
    batch.delete_all::<ConnectionStates>(of_home(of), |key| of.write(key));
}

/// Connections go with their devices.
pub(crate) struct OfDevices;

impl Belongings for OfDevices {
    fn remove(&self, user_id: &str, device: &str, batch: &mut Batch) {
        let (device, home) = (hash(device), Home::User(user_id));
        batch.delete_all::<Connections>(home, |key| {
            key.str(user_id).fixed(&device);
        });
        batch.delete_all::<ConnectionRooms>(home, |key| {
            key.str(user_id).fixed(&device);
        });
        batch.delete_all::<ConnectionStates>(home, |key| {
            key.str(user_id).fixed(&device);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sliding::{Element, Pattern};

    /// A connection that begins.
    fn at() -> At {
        At {
            of: OfDevice {
                user: "@alice:here".to_owned(),
                device: hash("D"),
                conn: hash(""),
            },
            position: None,
            required: Arc::default(),
            numbered: BTreeSet::new(),
            looked: Arc::default(),
            row: None,
            device: None,
            rooms: Base::default(),
            told: BTreeMap::new(),
            ended: Vec::new(),
        }
    }

    fn piece(n: usize) -> Arc<Required> {
        let pattern = Pattern {
            include: BTreeSet::from([Element::exact("org.example", &n.to_string())]),
            ..Pattern::default()
        };
        Arc::new(pattern.into())
    }

    /// G8: a connection remembers so many required states; one that no room was told by gives way, and a request that needs more by
    /// itself is not sent away to begin anew.
    #[test]
    fn g8_required_states_are_bounded() {
        let mut at = at();
        let mut told = BTreeMap::new();
        for n in 0..REQUIRED {
            let required = at.number(&piece(n), &told).unwrap();
            assert_eq!(usize::from(required), n);
            let known = Known {
                required,
                ..Known::default()
            };
            told.insert(RoomKey::of(&n.to_string()), known);
        }
        let again = at.number(&piece(3), &told).unwrap();
        assert_eq!(again, 3);
        let refused = at.number(&piece(REQUIRED), &told);
        assert!(matches!(refused, Err(SlidingError::TooMuch)));
        at.position = Some(Position {
            id: 1,
            serial: 1,
            incarnation: 0,
            heads: Vec::new(),
            ephemeral: Ephemeral::default(),
            data: None,
        });
        let refused = at.number(&piece(REQUIRED), &told);
        assert!(matches!(refused, Err(SlidingError::UnknownPos)));
        told.remove(&RoomKey::of("7"));
        assert_eq!(at.number(&piece(REQUIRED), &told).unwrap(), 7);
        assert_eq!(at.required(7), Some(&*piece(REQUIRED)));
    }

    /// G8: nor does what it remembers take more than so much, however few there are of them; those that no room was told by give way
    /// all at once, and their rows with them.
    #[test]
    fn g8_bytes_of_required_states_are_bounded() {
        let long = |n: usize| {
            let names = (0..500).map(|name| Element::exact("org.example", &format!("{n} {name}")));
            let pattern = Pattern {
                include: names.collect(),
                ..Pattern::default()
            };
            Arc::new(Required::from(pattern))
        };
        let (mut at, mut told) = (at(), BTreeMap::new());
        let mut n = 0;
        let refused = loop {
            match at.number(&long(n), &told) {
                Ok(required) => {
                    let known = Known {
                        required,
                        ..Known::default()
                    };
                    told.insert(RoomKey::of(&n.to_string()), known);
                }
                Err(refused) => break refused,
            }
            n += 1;
        };
        let bytes = |at: &At| -> usize {
            let all = at.required.iter();
            all.map(|required| required.bytes()).sum()
        };
        assert!(matches!(refused, SlidingError::TooMuch));
        assert!(n > 2 && bytes(&at) <= REQUIRED_BYTES);
        at.numbered.clear();
        told.remove(&RoomKey::of("0"));
        told.remove(&RoomKey::of("2"));
        assert_eq!(at.number(&long(n), &told).unwrap(), 0);
        assert_eq!(at.required(0), Some(&*long(n)));
        assert_eq!(at.required(2), Some(&Required::default()));
        assert_eq!(at.numbered, BTreeSet::from([0, 2]));
        assert!(bytes(&at) <= REQUIRED_BYTES);
    }

    /// What rooms were told by is compared with by its address.
    #[test]
    fn what_was_told_is_held_once() {
        let mut at = at();
        let told = piece(1);
        at.number(&told, &BTreeMap::new()).unwrap();
        assert!(Arc::ptr_eq(&at.held(piece(1)), &told));
    }
}
