//! The latest changes of device lists, in memory: so many, whichever lane they came from. Those before are found in their rows.

use std::collections::{BTreeMap, VecDeque, btree_map::Entry};

use comity_keys::Changed;
use comity_storage::{Lane, Pos};

/// Commits kept.
const MOST: usize = 20_000;

#[derive(Debug, Default)]
pub(crate) struct RecentLists {
    by_place: BTreeMap<(Lane, Pos), Vec<Changed>>,
    /// Their places in the order in which they came, by which they go.
    arrived: VecDeque<(Lane, Pos)>,
    /// Up to where those of a lane are gone.
    gone: BTreeMap<Lane, Pos>,
}

impl RecentLists {
    /// A list changed by the commit at this position of the lane.
    pub fn put(&mut self, lane: Lane, pos: Pos, changed: Changed) {
        match self.by_place.entry((lane, pos)) {
            Entry::Occupied(mut there) => there.get_mut().push(changed),
            Entry::Vacant(place) => {
                place.insert(vec![changed]);
                self.arrived.push_back((lane, pos));
            }
        }
        if self.arrived.len() > MOST
            && let Some((lane, pos)) = self.arrived.pop_front()
        {
            self.by_place.remove(&(lane, pos));
            self.gone.insert(lane, pos);
        }
    }

    /// Those of a lane after one position and up to another; `None` if not all of them are kept.
    pub fn between(
        &self,
        lane: Lane,
        after: Pos,
        to: Pos,
    ) -> Option<impl Iterator<Item = &Changed>> {
        if after < self.gone.get(&lane).copied().unwrap_or(0) {
            return None;
        }
        let places = self.by_place.range((lane, after + 1)..=(lane, to));
        Some(places.flat_map(|(_, changed)| changed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(user: &str) -> Changed {
        Changed {
            user: user.to_owned(),
            only: None,
        }
    }

    /// Architecture, Keys of devices: a token of late is answered from memory, whichever lane its changes are in.
    #[test]
    fn what_came_first_gives_way_whatever_its_lane() {
        let mut lists = RecentLists::default();
        let count = |lists: &RecentLists, lane, after| {
            let found = lists.between(Lane(lane), after, u64::MAX)?;
            Some(found.count())
        };
        for pos in 1..=MOST as u64 {
            lists.put(Lane(3), pos, changed("early"));
        }
        for pos in 1..=10 {
            lists.put(Lane(0), pos, changed("late"));
            lists.put(Lane(0), pos, changed("another, by the same commit"));
        }
        assert_eq!(count(&lists, 0, 0), Some(20));
        assert_eq!(count(&lists, 3, 9), None);
        assert_eq!(count(&lists, 3, 10), Some(MOST - 10));
        assert_eq!(lists.by_place.len(), MOST);
    }
}
