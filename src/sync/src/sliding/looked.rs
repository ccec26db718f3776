//! What a connection remembers beside what its client knows, so that nobody looks twice: rooms that were looked at and had nothing to
//! tell, who was told to type. Only in memory: forgetting means looking again.

use std::{collections::BTreeMap, sync::Arc};

use comity_storage::{Heads, Pos, RoomKey};
use parking_lot::Mutex;

use super::{Required, RoomConfig};
use crate::tables::{Known, Position};

/// Required states held to be compared.
const WANTED: usize = 16;

/// See the module.
#[derive(Default)]
pub(super) struct Looked {
    rooms: Mutex<BTreeMap<RoomKey, Look>>,
    /// Up to where no thread was written in since the position of this id.
    threads: Mutex<Option<(u64, Heads)>>,
    /// Rooms of which an answer that wrote nothing told who types, up to which serial.
    typing: Mutex<BTreeMap<RoomKey, u64>>,
    /// Required states that were wanted and that no room was told by.
    wanted: Mutex<Vec<Arc<Required>>>,
}

/// Up to where there is nothing to tell to a client that knows so much and wants so much.
#[derive(Debug, Clone)]
pub(super) struct Look {
    pub known: Known,
    pub config: RoomConfig,
    pub upto: Pos,
    pub data: Pos,
    pub receipts: Pos,
}

impl Looked {
    /// Up to where nothing is to be told of a room beyond what is known; `None` if nobody looked.
    pub fn at(&self, room: RoomKey, known: &Known, config: &RoomConfig) -> Option<Look> {
        let looked = self.rooms.lock();
        let look = looked.get(&room);
        look.filter(|look| look.known == *known && look.config == *config)
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

    /// The same required state, as it was wanted before if it was lately.
    pub fn held(&self, required: Arc<Required>) -> Arc<Required> {
        let mut wanted = self.wanted.lock();
        if let Some(held) = wanted.iter().find(|held| **held == required) {
            return held.clone();
        }
        if wanted.len() >= WANTED {
            wanted.clear();
        }
        wanted.push(required.clone());
        required
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::sliding::{Element, Pattern};

    /// G8: what many rooms are wanted by is held once, from request to request, and not all that ever was.
    #[test]
    fn g8_what_is_wanted_is_held_once() {
        let piece = |n: usize| -> Arc<Required> {
            let pattern = Pattern {
                include: BTreeSet::from([Element::exact("org.example", &n.to_string())]),
                ..Pattern::default()
            };
            Arc::new(pattern.into())
        };
        let looked = Looked::default();
        let wanted = looked.held(piece(0));
        assert!(Arc::ptr_eq(&looked.held(piece(0)), &wanted));
        for n in 0..WANTED * 2 {
            looked.held(piece(n));
        }
        assert!(looked.wanted.lock().len() <= WANTED);
    }
}
