//! Where the forks disagree, found from their differences alone.

use std::collections::{BTreeMap, BTreeSet};

use super::{StateDifference, StateKey};

/// The entries some fork changed: those on which all agree, and those on which they don't.
#[derive(Clone, Debug)]
pub struct Conflict<Id> {
    /// Entries changed alike in all forks. What no fork touched is unconflicted too, and in the base.
    pub agreed: StateDifference<Id>,
    /// Entries that aren't the same in all forks: what each fork has.
    pub disputed: BTreeMap<StateKey, Vec<Option<Id>>>,
}

impl<Id: Clone + Ord> Conflict<Id> {
    /// Compares forks, each a difference from the base that `base` reads.
    pub fn between(forks: &[StateDifference<Id>], base: impl Fn(&StateKey) -> Option<Id>) -> Self {
        let mut conflict = Self {
            agreed: BTreeMap::new(),
            disputed: BTreeMap::new(),
        };
        let touched: BTreeSet<_> = forks.iter().flat_map(BTreeMap::keys).collect();
        for key in touched {
            let in_base = base(key);
            let entries: Vec<_> = forks
                .iter()
                .map(|fork| fork.get(key).unwrap_or(&in_base).clone())
                .collect();
            match entries.first() {
                Some(first) if entries.iter().all(|entry| entry == first) => {
                    conflict.agreed.insert(key.clone(), first.clone());
                }
                _ => {
                    conflict.disputed.insert(key.clone(), entries);
                }
            }
        }
        conflict
    }

    /// The *conflicted state set*: every event some fork has where the forks disagree.
    pub fn conflicted_set(&self) -> BTreeSet<Id> {
        self.disputed
            .values()
            .flatten()
            .flatten()
            .cloned()
            .collect()
    }

    /// Each fork's part of the conflicted state set.
    pub fn by_fork(&self) -> Vec<BTreeSet<Id>> {
        let forks = self.disputed.values().next().map_or(0, Vec::len);
        (0..forks)
            .map(|fork| {
                self.disputed
                    .values()
                    .filter_map(|entries| entries.get(fork)?.clone())
                    .collect()
            })
            .collect()
    }
}
