//! The two orders of state resolution v2.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use super::checks::{Room, State};
use super::{Events, IdOf, Missing};
use crate::auth::{AuthEvent, types};

/// The *reverse topological power ordering*: what others are authorised by comes first; among what
/// could come next, the one of the most powerful sender, then the oldest, then the least event id.
///
/// Edges are direct `auth_events` within `ids`. Events in a cycle, or depending on one, are left out.
pub(super) fn by_power<S: Events>(
    room: &mut Room<'_, S>,
    ids: &BTreeSet<IdOf<S>>,
) -> Result<Vec<IdOf<S>>, Missing<IdOf<S>>> {
    let mut blocked: BTreeMap<&IdOf<S>, usize> = BTreeMap::new();
    let mut blocks: BTreeMap<&IdOf<S>, Vec<&IdOf<S>>> = BTreeMap::new();
    let mut ready = BinaryHeap::new();
    for id in ids {
        let event = room.event(id)?;
        let cited: BTreeSet<_> = event
            .auth_events()
            .iter()
            .filter(|cited| ids.contains(cited))
            .collect();
        blocked.insert(id, cited.len());
        if cited.is_empty() {
            ready.push(Reverse((rank(room, id)?, id)));
        }
        for cited in cited {
            blocks.entry(cited).or_default().push(id);
        }
    }
    let mut order = Vec::with_capacity(ids.len());
    while let Some(Reverse((_, id))) = ready.pop() {
        order.push(id.clone());
        for citing in blocks.remove(id).unwrap_or_default() {
            let Some(left) = blocked.get_mut(citing) else {
                continue;
            };
            *left = left.saturating_sub(1);
            if *left == 0 {
                ready.push(Reverse((rank(room, citing)?, citing)));
            }
        }
    }
    Ok(order)
}

type Rank<'a> = (Reverse<crate::auth::UserLevel>, i64, &'a str);

fn rank<'a, S: Events>(room: &mut Room<'a, S>, id: &IdOf<S>) -> Result<Rank<'a>, Missing<IdOf<S>>> {
    let event = room.event(id)?;
    let level = room.sender_level(event)?;
    Ok((
        Reverse(level),
        event.origin_server_ts(),
        event.event_id().as_str(),
    ))
}

/// The *mainline ordering* based on the power levels of `state`: events resting on earlier power
/// levels first, then the older, then the one of the lesser event id.
pub(super) fn by_mainline<S: Events>(
    room: &Room<'_, S>,
    state: &State<IdOf<S>>,
    ids: impl Iterator<Item = IdOf<S>>,
) -> Result<Vec<IdOf<S>>, Missing<IdOf<S>>> {
    let mut positions = BTreeMap::new();
    let mut current = state
        .get(&(types::POWER_LEVELS.to_owned(), String::new()))
        .cloned();
    while let Some(id) = current {
        let next = power_levels_behind(room, &id)?;
        let position = positions.len();
        if positions.insert(id, Some(position)).is_some() {
            break;
        }
        current = next;
    }
    let mut ranked = Vec::new();
    for id in ids {
        let position = match power_levels_behind(room, &id)? {
            Some(first) => position_of(room, &mut positions, first)?,
            None => None,
        };
        let event = room.event(&id)?;
        // Furthest back comes first, and no position at all is further back than any.
        let rank = Reverse(position.unwrap_or(usize::MAX));
        ranked.push((
            (rank, event.origin_server_ts(), event.event_id().as_str()),
            id,
        ));
    }
    ranked.sort();
    Ok(ranked.into_iter().map(|(_, id)| id).collect())
}

/// The mainline position of power levels, found by walking back to the mainline; remembered for all
/// that was passed.
fn position_of<S: Events>(
    room: &Room<'_, S>,
    positions: &mut BTreeMap<IdOf<S>, Option<usize>>,
    from: IdOf<S>,
) -> Result<Option<usize>, Missing<IdOf<S>>> {
    let mut passed = BTreeSet::new();
    let mut current = Some(from);
    let mut found = None;
    while let Some(id) = current {
        if let Some(position) = positions.get(&id) {
            found = *position;
            break;
        }
        current = power_levels_behind(room, &id)?;
        if !passed.insert(id) {
            break;
        }
    }
    positions.extend(passed.into_iter().map(|id| (id, found)));
    Ok(found)
}

/// The power levels an event cites.
fn power_levels_behind<S: Events>(
    room: &Room<'_, S>,
    id: &IdOf<S>,
) -> Result<Option<IdOf<S>>, Missing<IdOf<S>>> {
    let event = room.event(id)?;
    Ok(room
        .auth_event(event, types::POWER_LEVELS, "")?
        .map(|levels| levels.id()))
}
