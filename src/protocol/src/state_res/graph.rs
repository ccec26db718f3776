//! The graph of `auth_events`, and the two questions resolution has for it.

use std::collections::{BTreeMap, BTreeSet};

/// What resolution asks of a room's auth graph.
///
/// Edges lead from an event to its `auth_events`; an event's *auth chain* is what can be reached
/// from it, without itself. Answers have to be right whatever the graph holds: cycles and missing
/// events are no reason to fail, only events that aren't reached.
pub trait AuthGraph<Id> {
    /// The [auth difference](https://spec.matrix.org/v1.19/rooms/v2/#definitions) of the forks'
    /// states: events that are in the auth chain of some but not of all of them.
    ///
    /// `forks` has each fork's events where the forks disagree. `is_common` tells whether an event
    /// is part of the state all forks share; whatever such an event reaches is in every chain. (By the
    /// letter a shared event is itself in the chains only if something in them cites it.)
    fn auth_difference(
        &self,
        forks: &[BTreeSet<Id>],
        is_common: &dyn Fn(&Id) -> bool,
    ) -> BTreeSet<Id>;

    /// The [conflicted state subgraph](https://spec.matrix.org/v1.19/rooms/v12/#definitions):
    /// events on a path between any two of `conflicted`, these included. Asked from version 12.
    fn conflicted_subgraph(&self, conflicted: &BTreeSet<Id>) -> BTreeSet<Id>;
}

/// An auth graph held in memory, walked in full: for small graphs.
#[derive(Clone, Debug)]
pub struct MemoryGraph<Id> {
    cites: BTreeMap<Id, Vec<Id>>,
    cited_by: BTreeMap<Id, Vec<Id>>,
}

impl<Id> Default for MemoryGraph<Id> {
    fn default() -> Self {
        Self {
            cites: BTreeMap::new(),
            cited_by: BTreeMap::new(),
        }
    }
}

impl<Id: Clone + Ord> MemoryGraph<Id> {
    /// Adds an event with its `auth_events`, which may be added later or never.
    pub fn add(&mut self, id: Id, auth_events: &[Id]) {
        for auth_event in auth_events {
            self.cited_by
                .entry(auth_event.clone())
                .or_default()
                .push(id.clone());
        }
        self.cites.insert(id, auth_events.to_vec());
    }

    /// The union of some events' auth chains.
    pub fn auth_chain<'a>(&'a self, of: impl IntoIterator<Item = &'a Id>) -> BTreeSet<Id> {
        reachable(of.into_iter().flat_map(|id| next(&self.cites, id)), |id| {
            next(&self.cites, id)
        })
    }

    /// Whether an event is in the auth chain of one that `is_common`. What turned out not to be is
    /// remembered in `unreached`, so that many such questions walk the graph once.
    fn is_reached(
        &self,
        id: &Id,
        is_common: &dyn Fn(&Id) -> bool,
        unreached: &mut BTreeSet<Id>,
    ) -> bool {
        let mut seen = BTreeSet::new();
        let mut ahead: Vec<&Id> = next(&self.cited_by, id).collect();
        while let Some(citing) = ahead.pop() {
            if unreached.contains(citing) || !seen.insert(citing.clone()) {
                continue;
            }
            if is_common(citing) {
                return true;
            }
            ahead.extend(next(&self.cited_by, citing));
        }
        unreached.extend(seen);
        false
    }
}

impl<Id: Clone + Ord> AuthGraph<Id> for MemoryGraph<Id> {
    fn auth_difference(
        &self,
        forks: &[BTreeSet<Id>],
        is_common: &dyn Fn(&Id) -> bool,
    ) -> BTreeSet<Id> {
        let mut counts: BTreeMap<Id, usize> = BTreeMap::new();
        for fork in forks {
            for id in self.auth_chain(fork) {
                *counts.entry(id).or_default() += 1;
            }
        }
        // An event of which this is kept isn't common itself and isn't reached from one that is.
        let mut unreached = BTreeSet::new();
        let differs = |(id, count)| (count < forks.len()).then_some(id);
        counts
            .into_iter()
            .filter_map(differs)
            .filter(|id| !self.is_reached(id, is_common, &mut unreached))
            .collect()
    }

    fn conflicted_subgraph(&self, conflicted: &BTreeSet<Id>) -> BTreeSet<Id> {
        let below = reachable(conflicted.iter(), |id| next(&self.cites, id));
        reachable(conflicted.iter(), |id| {
            next(&self.cited_by, id).filter(|citing| below.contains(citing))
        })
    }
}

fn next<'a, Id: Ord>(edges: &'a BTreeMap<Id, Vec<Id>>, id: &Id) -> impl Iterator<Item = &'a Id> {
    edges.get(id).into_iter().flatten()
}

/// What can be reached from `start`, which is included. Visits every event once.
fn reachable<'a, Id: Clone + Ord + 'a, I: Iterator<Item = &'a Id>>(
    start: impl Iterator<Item = &'a Id>,
    next: impl Fn(&'a Id) -> I,
) -> BTreeSet<Id> {
    let mut seen = BTreeSet::new();
    let mut ahead: Vec<&Id> = start.collect();
    while let Some(id) = ahead.pop() {
        if seen.insert(id.clone()) {
            ahead.extend(next(id));
        }
    }
    seen
}
