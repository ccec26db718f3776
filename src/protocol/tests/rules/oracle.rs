//! `ruma-state-res` asked the same questions.

use std::borrow::Borrow;
use std::collections::BTreeSet;

use comity_protocol::id::{EventId, OwnedEventId};
use ruma_common::RoomVersionId;
use ruma_common::room_version_rules::RoomVersionRules;
use ruma_events::StateEventType;
use ruma_state_res::utils::event_id_set::EventIdSet;
use ruma_state_res::{
    StateMap, check_state_dependent_auth_rules, check_state_independent_auth_rules,
};

use crate::event::{Num, TestEvent};
use crate::world::{State, World};

pub fn rules(world: &World) -> RoomVersionRules {
    RoomVersionId::try_from(world.version.as_str())
        .unwrap()
        .rules()
        .unwrap()
}

fn fetch<'a>(world: &'a World, id: &EventId) -> Option<&'a TestEvent> {
    Some(world.event(*world.by_id.get(id)?))
}

/// Whether events (and the create event) allow another.
pub fn allows(world: &World, judges: impl IntoIterator<Item = Num>, event: &TestEvent) -> bool {
    let rules = rules(world).authorization;
    if event.event_type == "m.room.create" {
        return check_state_independent_auth_rules(&rules, event, |id| fetch(world, id)).is_ok();
    }
    let judges: Vec<_> = std::iter::once(0)
        .chain(judges)
        .map(|num| world.event(num))
        .collect();
    let find = |event_type: &StateEventType, state_key: &str| {
        let is_it = |judge: &&&TestEvent| {
            judge.event_type == event_type.to_string()
                && judge.state_key.as_deref() == Some(state_key)
        };
        judges.iter().rev().find(is_it).copied()
    };
    check_state_dependent_auth_rules(&rules, event, find).is_ok()
}

/// Whether the list of `auth_events` itself is in order.
pub fn accepts_auth_events(world: &World, event: &TestEvent) -> bool {
    let rules = rules(world).authorization;
    check_state_independent_auth_rules(&rules, event, |id| fetch(world, id)).is_ok()
}

/// The resolution of whole states by v2 or v2.1.
pub fn resolve(world: &World, forks: &[&State]) -> State {
    let rules = rules(world);
    let maps: Vec<StateMap<OwnedEventId>> = forks
        .iter()
        .map(|fork| {
            fork.iter()
                .map(|((event_type, state_key), num)| {
                    let key = (event_type.as_str().into(), state_key.clone());
                    (key, world.event(*num).event_id.clone())
                })
                .collect()
        })
        .collect();
    let chains = forks
        .iter()
        .map(|fork| {
            ids(
                world,
                fork.values()
                    .flat_map(|num| walk(world, *num, false))
                    .collect(),
            )
        })
        .collect();
    let resolved = ruma_state_res::resolve(
        &rules.authorization,
        rules.state_res.v2_rules().unwrap(),
        &maps,
        chains,
        |id| fetch(world, id),
        |conflicted| {
            let conflicted: BTreeSet<Num> = conflicted
                .values()
                .flatten()
                .map(|id| world.by_id[<OwnedEventId as Borrow<EventId>>::borrow(id)])
                .collect();
            Some(ids(world, subgraph(world, &conflicted)))
        },
    );
    resolved
        .unwrap()
        .into_iter()
        .map(|((event_type, state_key), id)| {
            ((event_type.to_string(), state_key), world.by_id[&id])
        })
        .collect()
}

fn ids(world: &World, nums: BTreeSet<Num>) -> EventIdSet<OwnedEventId> {
    nums.into_iter()
        .map(|num| world.event(num).event_id.clone())
        .collect()
}

/// An event's auth chain, with or without itself.
fn walk(world: &World, num: Num, with_itself: bool) -> BTreeSet<Num> {
    let mut seen = BTreeSet::new();
    let mut ahead = if with_itself {
        vec![num]
    } else {
        world.event(num).auth.clone()
    };
    while let Some(num) = ahead.pop() {
        if seen.insert(num) {
            ahead.extend(&world.event(num).auth);
        }
    }
    seen
}

/// The conflicted state subgraph by its definition: what lies between two conflicted events.
fn subgraph(world: &World, conflicted: &BTreeSet<Num>) -> BTreeSet<Num> {
    let below: BTreeSet<Num> = conflicted
        .iter()
        .flat_map(|num| walk(world, *num, true))
        .collect();
    below
        .into_iter()
        .filter(|num| !walk(world, *num, true).is_disjoint(conflicted))
        .collect()
}
