//! State resolution v1 a second time, on whole states and straight from the
//! [text](https://spec.matrix.org/v1.19/rooms/v1/#state-resolution), with the oracle's auth checks.
//!
//! What the text leaves open is decided as in `comity_protocol::state_res`: conflicts of one pass
//! are resolved each by itself, and where none passes the last of the list stays.

use std::collections::{BTreeMap, BTreeSet};

use sha1::{Digest, Sha1};

use crate::event::Num;
use crate::oracle;
use crate::world::{Key, State, World};

pub fn resolve(world: &World, forks: &[&State]) -> State {
    let mut all: BTreeMap<Key, BTreeSet<Num>> = BTreeMap::new();
    for fork in forks {
        for (key, num) in *fork {
            all.entry(key.clone()).or_default().insert(*num);
        }
    }
    // "Start by setting R to the union of the states to be resolved, excluding any conflicting
    // events."
    let (union, conflicts): (BTreeMap<_, _>, BTreeMap<_, _>) =
        all.into_iter().partition(|(_, events)| events.len() == 1);
    let mut r: State = union
        .into_iter()
        .map(|(key, events)| (key, *events.first().unwrap()))
        .collect();

    for event_type in ["m.room.power_levels", "m.room.join_rules", "m.room.member"] {
        let before = r.clone();
        for (key, events) in conflicts.iter().filter(|(key, _)| key.0 == event_type) {
            let mut list: Vec<Num> = events.iter().copied().collect();
            // "Sort the list by ascending depth then descending sha1(event_id)."
            list.sort_by_key(|num| std::cmp::Reverse(sha1(world, *num)));
            list.sort_by_key(|num| world.event(*num).depth);
            // "Add the first event in the list to R."
            let mut with_it = before.clone();
            with_it.insert(key.clone(), list[0]);
            // "For each subsequent event in the list, check that the event would be allowed by the
            // authorisation rules for a room in state R."
            for num in &list[1..] {
                if !oracle::allows(world, with_it.values().copied(), world.event(*num)) {
                    break;
                }
                with_it.insert(key.clone(), *num);
            }
            r.insert(key.clone(), with_it[key]);
        }
    }
    let before = r.clone();
    for (key, events) in &conflicts {
        if ["m.room.power_levels", "m.room.join_rules", "m.room.member"].contains(&key.0.as_str()) {
            continue;
        }
        // "Pick the event with the highest depth and lowest sha1(event_id) that passes
        // authentication in R."
        let mut list: Vec<Num> = events.iter().copied().collect();
        list.sort_by_key(|num| sha1(world, *num));
        list.sort_by_key(|num| std::cmp::Reverse(world.event(*num).depth));
        let passes =
            |num: &&Num| oracle::allows(world, before.values().copied(), world.event(**num));
        let picked = list.iter().find(passes).or(list.last()).unwrap();
        r.insert(key.clone(), *picked);
    }
    r
}

fn sha1(world: &World, num: Num) -> [u8; 20] {
    Sha1::digest(world.event(num).event_id.as_bytes()).into()
}
