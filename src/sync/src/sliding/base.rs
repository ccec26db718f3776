//! What a client knows of rooms at a connection's base. Whoever reads it keeps it as it is, so it is copied to be changed: what changed
//! lately stands apart from the rest until there is much of it, and little is copied for each answer.

use std::{collections::BTreeMap, sync::Arc};

use comity_storage::RoomKey;

use crate::tables::Known;

/// See the module.
#[derive(Clone, Default)]
pub(super) struct Base {
    rooms: Arc<BTreeMap<RoomKey, Known>>,
    /// Newer than those.
    lately: Arc<BTreeMap<RoomKey, Known>>,
}

impl Base {
    pub fn get(&self, room: RoomKey) -> Option<Known> {
        let known = self.lately.get(&room).or_else(|| self.rooms.get(&room));
        known.copied()
    }

    /// All that is known.
    pub fn all(&self) -> impl Iterator<Item = &Known> {
        let before = self.rooms.iter();
        let before = before.filter(|(room, _)| !self.lately.contains_key(room));
        before.map(|(_, known)| known).chain(self.lately.values())
    }

    /// As many rooms as are known, or more.
    pub fn size(&self) -> usize {
        self.rooms.len() + self.lately.len()
    }

    /// What was told is known.
    pub fn add(&mut self, told: BTreeMap<RoomKey, Known>) {
        let lately = Arc::make_mut(&mut self.lately);
        lately.extend(told);
        // Of n rooms the root of n lately, so that each answer copies as much, on the average.
        if lately.len().saturating_mul(lately.len()) > self.rooms.len() {
            let lately = std::mem::take(lately);
            Arc::make_mut(&mut self.rooms).extend(lately);
        }
    }
}

impl FromIterator<(RoomKey, Known)> for Base {
    fn from_iter<T: IntoIterator<Item = (RoomKey, Known)>>(rooms: T) -> Self {
        Self {
            rooms: Arc::new(rooms.into_iter().collect()),
            lately: Arc::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// It is a map, whatever is told in which order, and what was read of it stays.
    #[test]
    fn the_latest_is_known() {
        let room = |n: u64| RoomKey::of(&n.to_string());
        let known = |upto: u64| Known {
            upto,
            ..Known::default()
        };
        let first = (0..50).map(|n| (room(n), known(0)));
        let mut plain: BTreeMap<RoomKey, Known> = first.collect();
        let mut base: Base = plain.clone().into_iter().collect();
        let before = base.clone();
        for upto in 1..200 {
            let told = BTreeMap::from([(room(upto * 7 % 60), known(upto))]);
            plain.extend(told.clone());
            base.add(told);
            let mut all: Vec<u64> = base.all().map(|known| known.upto).collect();
            let mut expected: Vec<u64> = plain.values().map(|known| known.upto).collect();
            all.sort_unstable();
            expected.sort_unstable();
            assert_eq!(all, expected);
            for n in 0..60 {
                assert_eq!(base.get(room(n)), plain.get(&room(n)).copied());
            }
            assert!(base.lately.len() < 10);
        }
        assert!(before.all().all(|known| known.upto == 0));
    }
}
