//! What a connection remembers beside what its client knows, so that nobody looks twice: rooms that were looked at and had nothing to
//! tell, who was told to type. Only in memory: forgetting means looking again. Little is kept a room, whatever is wanted of it.

use std::{
    collections::BTreeMap,
    hash::{DefaultHasher, Hash, Hasher},
};

use comity_storage::{Heads, Pos, RoomKey};
use parking_lot::Mutex;

use super::RoomConfig;
use crate::tables::{Known, Position};

/// See the module.
#[derive(Default)]
pub(super) struct Looked {
    rooms: Mutex<BTreeMap<RoomKey, Look>>,
    /// Up to where no thread was written in since the position of this id.
    threads: Mutex<Option<(u64, Heads)>>,
    /// Rooms of which an answer that wrote nothing told who types, up to which serial.
    typing: Mutex<BTreeMap<RoomKey, u64>>,
}

/// Up to where there is nothing to tell to a client that knows so much and wants so much.
#[derive(Debug, Clone)]
pub(super) struct Look {
    pub known: Known,
    pub wants: Wants,
    pub upto: Pos,
    pub data: Pos,
    pub receipts: Pos,
}

/// What is wanted of a room, told apart from whatever else may be: the wish itself may be long. Who asks so that two wishes are taken
/// for one isn't told, and nobody else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wants(u64);

impl Wants {
    pub fn of(config: &RoomConfig) -> Self {
        let mut hasher = DefaultHasher::new();
        config.hash(&mut hasher);
        Self(hasher.finish())
    }
}

impl Looked {
    /// Up to where nothing is to be told of a room beyond what is known; `None` if nobody looked.
    pub fn at(&self, room: RoomKey, known: &Known, wants: Wants) -> Option<Look> {
        let looked = self.rooms.lock();
        let look = looked.get(&room);
        look.filter(|look| look.known == *known && look.wants == wants)
            .cloned()
    }

    /// Remembers that nothing is to be told up to here.
    pub fn put(&self, room: RoomKey, look: Look) {
        self.rooms.lock().insert(room, look);
    }

    /// From where to look for threads that were written in since a position.
    pub fn threads_since(&self, position: &Position) -> Heads {
        let looked = self.threads.lock();
        let of_position = looked.as_ref().filter(|(id, _)| *id == position.id);
        let heads = of_position.map(|(_, heads)| heads.clone());
        heads.unwrap_or_else(|| Heads::new(position.heads.clone()))
    }

    /// Remembers that none was up to here.
    pub fn no_threads(&self, position: &Position, upto: Heads) {
        *self.threads.lock() = Some((position.id, upto));
    }

    /// Up to which serial an answer that wrote nothing told who types in a room; 0: none did.
    pub fn typing(&self, room: RoomKey) -> u64 {
        self.typing.lock().get(&room).copied().unwrap_or_default()
    }

    /// Such an answer told of these rooms.
    pub fn typing_told(&self, rooms: impl Iterator<Item = RoomKey>, serial: u64) {
        let mut typing = self.typing.lock();
        typing.extend(rooms.map(|room| (room, serial)));
    }

    /// The client has come no further: what was told since was lost.
    pub fn typing_came(&self, upto: u64) {
        self.typing.lock().retain(|_, told| *told <= upto);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sliding::of_pairs;

    /// That somebody looked counts for what was known and wanted then, and for nothing else.
    #[test]
    fn who_wants_or_knows_something_else_looks_again() {
        let wants = |limit: u32, of: &str| {
            let pairs = [(of.to_owned(), String::new())];
            Wants::of(&RoomConfig {
                timeline_limit: limit,
                required: of_pairs(&pairs, "@me:here").into(),
            })
        };
        let (looked, room) = (Looked::default(), RoomKey::of("!a"));
        let known = Known::default();
        let look = Look {
            known,
            wants: wants(1, "m.room.name"),
            upto: 7,
            data: 7,
            receipts: 7,
        };
        looked.put(room, look);
        assert!(looked.at(room, &known, wants(1, "m.room.name")).is_some());
        for other in [wants(2, "m.room.name"), wants(1, "m.room.topic")] {
            assert!(looked.at(room, &known, other).is_none());
        }
        let knows = Known { upto: 1, ..known };
        assert!(looked.at(room, &knows, wants(1, "m.room.name")).is_none());
    }
}
