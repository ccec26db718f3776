//! State resolution v2 and v2.1 ([algorithm](https://spec.matrix.org/v1.19/rooms/v12/#algorithm)).

use std::cell::RefCell;
use std::collections::BTreeSet;

use super::checks::{Room, State, is_power_event};
use super::order::{by_mainline, by_power};
use super::{AuthGraph, Conflict, Events, IdOf, Missing, StateDifference, StateKey};
use crate::auth::AuthEvent;
use crate::room_version::RoomVersionRules;

/// What the first round of checks starts from: the difference between v2 and v2.1, which also adds
/// the conflicted state subgraph to what is looked at.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Start {
    /// The unconflicted state (v2).
    Unconflicted,
    /// Nothing (v2.1).
    Empty,
}

pub(super) fn resolve<S: Events>(
    rules: &RoomVersionRules,
    events: &S,
    graph: &impl AuthGraph<IdOf<S>>,
    conflict: Conflict<IdOf<S>>,
    start: Start,
) -> Result<StateDifference<IdOf<S>>, Missing<IdOf<S>>> {
    if conflict.disputed.is_empty() {
        return Ok(conflict.agreed);
    }
    let mut room = Room::new(rules, events, &conflict.agreed);
    let unconflicted = |key: &StateKey| match conflict.agreed.get(key) {
        Some(entry) => entry.clone(),
        None if conflict.disputed.contains_key(key) => None,
        None => events.base(&key.0, &key.1),
    };

    let full = full_conflicted_set(&room, events, graph, &conflict, start, &unconflicted)?;

    // 1. Power events, with what they rest on.
    let power = with_auth_chains(&room, &full)?;
    let order = by_power(&mut room, &power)?;
    // Those a cycle kept out of the order are not taken up again as remaining events.
    let remaining: Vec<_> = full.difference(&power).cloned().collect();

    // 2. The unconflicted state is asked for by the entry: what it starts from stays in the base.
    let mut state = State::new();
    let background = |key: &StateKey| match start {
        Start::Unconflicted => unconflicted(key),
        Start::Empty => None,
    };
    room.admit(&mut state, background, order)?;

    // 3. The rest, by the power levels that came out.
    let mut mainline = state.clone();
    let levels_key = (crate::auth::types::POWER_LEVELS.to_owned(), String::new());
    if let Some(levels) = background(&levels_key) {
        mainline.entry(levels_key).or_insert(levels);
    }
    let order = by_mainline(&room, &mainline, remaining.into_iter())?;

    // 4.
    room.admit(&mut state, background, order)?;

    // 5. What nobody disputed stands. An entry that no fork has may still come out: an event of the
    // auth difference can have a key of its own.
    let decided = state
        .into_iter()
        .filter(|(key, _)| unconflicted(key).is_none());
    let decided: Vec<_> = decided.map(|(key, id)| (key, Some(id))).collect();
    let mut resolved = conflict.agreed;
    resolved.extend(conflict.disputed.into_keys().map(|key| (key, None)));
    resolved.extend(decided);
    Ok(resolved)
}

/// The *full conflicted set*: what the forks disagree on, and what that rests on.
fn full_conflicted_set<S: Events>(
    room: &Room<'_, S>,
    events: &S,
    graph: &impl AuthGraph<IdOf<S>>,
    conflict: &Conflict<IdOf<S>>,
    start: Start,
    unconflicted: &impl Fn(&StateKey) -> Option<IdOf<S>>,
) -> Result<BTreeSet<IdOf<S>>, Missing<IdOf<S>>> {
    let mut full = conflict.conflicted_set();
    room.require(&full)?;
    let missing = RefCell::new(BTreeSet::new());
    let is_common = |id: &IdOf<S>| match events.event(id) {
        Some(event) => event.state_key().is_some_and(|state_key| {
            let key = (event.event_type().to_owned(), state_key.to_owned());
            unconflicted(&key).as_ref() == Some(id)
        }),
        None => {
            missing.borrow_mut().insert(id.clone());
            false
        }
    };
    let subgraph = match start {
        Start::Unconflicted => BTreeSet::new(),
        Start::Empty => graph.conflicted_subgraph(&full),
    };
    full.extend(graph.auth_difference(&conflict.by_fork(), &is_common));
    full.extend(subgraph);
    let missing = missing.into_inner();
    if !missing.is_empty() {
        return Err(Missing(missing));
    }
    room.require(&full)?;
    Ok(full)
}

/// The power events of a set, with the events of the set they rest on.
///
/// As in every server in the field, the way down an auth chain leads through the set only; the
/// letter of v2 would also count what is behind an event outside it.
fn with_auth_chains<S: Events>(
    room: &Room<'_, S>,
    full: &BTreeSet<IdOf<S>>,
) -> Result<BTreeSet<IdOf<S>>, Missing<IdOf<S>>> {
    let mut ahead = Vec::new();
    for id in full {
        if is_power_event(room.event(id)?) {
            ahead.push(id);
        }
    }
    let mut chosen = BTreeSet::new();
    while let Some(id) = ahead.pop() {
        if chosen.insert(id.clone()) {
            let cited = room.event(id)?.auth_events();
            ahead.extend(cited.iter().filter_map(|cited| full.get(cited)));
        }
    }
    Ok(chosen)
}
