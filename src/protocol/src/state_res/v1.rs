//! State resolution v1 ([algorithm](https://spec.matrix.org/v1.19/rooms/v1/#state-resolution)).
//!
//! A conflict here is two *different* events for one key: an entry only some forks have is simply
//! in the union. Where the text is silent we do as the servers these rooms were made by: entries of
//! one pass are resolved each by itself, and where no candidate is allowed the last one stays.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use sha1::{Digest as _, Sha1};

use super::checks::{Room, State};
use super::{Conflict, Events, IdOf, Missing, StateDifference, StateKey};
use crate::auth::{AuthEvent, auth_types_for_event, types};
use crate::room_version::RoomVersionRules;

pub(super) fn resolve<S: Events>(
    rules: &RoomVersionRules,
    events: &S,
    conflict: Conflict<IdOf<S>>,
) -> Result<StateDifference<IdOf<S>>, Missing<IdOf<S>>> {
    let mut resolved = State::new();
    let mut open: BTreeMap<StateKey, Vec<IdOf<S>>> = BTreeMap::new();
    for (key, entries) in &conflict.disputed {
        let mut candidates: Vec<_> = entries.iter().flatten().cloned().collect();
        candidates.sort();
        candidates.dedup();
        if candidates.len() > 1 {
            open.insert(key.clone(), candidates);
        } else if let Some(only) = candidates.pop() {
            resolved.insert(key.clone(), only);
        }
    }
    let mut room = Room::new(rules, events, &conflict.agreed);
    room.require(&open.values().flatten().cloned().collect())?;

    let agreed = conflict.agreed;
    let touched: std::collections::BTreeSet<_> = conflict.disputed.into_keys().collect();
    let unconflicted = |key: &StateKey| match agreed.get(key) {
        Some(entry) => entry.clone(),
        None if touched.contains(key) => None,
        None => events.base(&key.0, &key.1),
    };
    for pass in [
        Some(types::POWER_LEVELS),
        Some(types::JOIN_RULES),
        Some(types::MEMBER),
        None,
    ] {
        let (now, later) = open.into_iter().partition::<BTreeMap<_, _>, _>(|(key, _)| {
            pass.is_none_or(|event_type| key.0 == event_type)
        });
        open = later;
        let mut chosen = State::new();
        for (key, mut candidates) in now {
            order(&room, &mut candidates)?;
            let state = |key: &StateKey| resolved.get(key).cloned().or_else(|| unconflicted(key));
            let choice = match pass {
                Some(_) => last_of_chain(rules, &mut room, &key, candidates, state)?,
                None => highest_allowed(rules, &mut room, candidates, state)?,
            };
            chosen.extend(choice.map(|id| (key, id)));
        }
        resolved.extend(chosen);
    }
    let mut difference: StateDifference<_> = touched.into_iter().map(|key| (key, None)).collect();
    difference.extend(resolved.into_iter().map(|(key, id)| (key, Some(id))));
    difference.extend(agreed);
    Ok(difference)
}

/// Ascending depth, then descending SHA-1 of the event id.
fn order<S: Events>(room: &Room<'_, S>, ids: &mut Vec<IdOf<S>>) -> Result<(), Missing<IdOf<S>>> {
    let mut ranked = Vec::with_capacity(ids.len());
    for id in ids.drain(..) {
        let event = room.event(&id)?;
        ranked.push((
            event.depth(),
            Reverse(Sha1::digest(event.event_id().as_str())),
            id,
        ));
    }
    ranked.sort();
    ids.extend(ranked.into_iter().map(|(_, _, id)| id));
    Ok(())
}

/// Goes up the list as long as each event is allowed with the one before it in the state.
fn last_of_chain<S: Events>(
    rules: &RoomVersionRules,
    room: &mut Room<'_, S>,
    key: &StateKey,
    ascending: Vec<IdOf<S>>,
    state: impl Fn(&StateKey) -> Option<IdOf<S>>,
) -> Result<Option<IdOf<S>>, Missing<IdOf<S>>> {
    let mut last: Option<IdOf<S>> = None;
    for id in ascending {
        let with_last = |asked: &StateKey| {
            if asked == key {
                last.clone()
            } else {
                state(asked)
            }
        };
        if last.is_some() && !is_allowed(rules, room, &id, with_last)? {
            break;
        }
        last = Some(id);
    }
    Ok(last)
}

/// The highest event the state allows, or the lowest of all if it allows none.
fn highest_allowed<S: Events>(
    rules: &RoomVersionRules,
    room: &mut Room<'_, S>,
    ascending: Vec<IdOf<S>>,
    state: impl Fn(&StateKey) -> Option<IdOf<S>>,
) -> Result<Option<IdOf<S>>, Missing<IdOf<S>>> {
    for id in ascending.iter().rev() {
        if is_allowed(rules, room, id, &state)? {
            return Ok(Some(id.clone()));
        }
    }
    Ok(ascending.into_iter().next())
}

fn is_allowed<S: Events>(
    rules: &RoomVersionRules,
    room: &mut Room<'_, S>,
    id: &IdOf<S>,
    state: impl Fn(&StateKey) -> Option<IdOf<S>>,
) -> Result<bool, Missing<IdOf<S>>> {
    let event = room.event(id)?;
    let judges: Vec<_> = auth_types_for_event(rules, event)
        .into_iter()
        .filter_map(|(event_type, state_key)| state(&(event_type.to_owned(), state_key)))
        .collect();
    room.allows(event, &judges)
}
