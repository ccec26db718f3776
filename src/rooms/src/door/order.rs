//! Parents before children.

use std::collections::{BTreeMap, BTreeSet};

use comity_protocol::{
    event::{Event, Signed},
    id::OwnedEventId,
};

use super::Arrival;
use crate::change::Known;

/// Sorts events so that each comes after those it follows and rests on, as far as these are among
/// them, and else as they came. What is on a cycle, or rests on one, is given apart (threat D12).
pub(super) fn parents_first(arrivals: Vec<Arrival>) -> (Vec<Arrival>, Vec<Arrival>) {
    let event = |arrival: &Arrival| arrival.event.event().clone();
    sort(arrivals, event, rests_on)
}

/// Sorts events so that each comes after those it is authorised by, likewise.
pub(super) fn authority_first(events: Vec<Signed>) -> (Vec<Signed>, Vec<Signed>) {
    let event = |signed: &Signed| signed.event().clone();
    sort(events, event, |event| {
        event.auth_events().iter().cloned().collect()
    })
}

/// Sorts events of the room so that each comes after its parents and those it is authorised by.
pub(super) fn graph_first(events: Vec<Known>) -> Vec<Known> {
    let (ordered, cyclic) = sort(events, |known| known.event.clone(), rests_on);
    debug_assert!(cyclic.is_empty(), "a stored event rests on itself");
    ordered
}

fn rests_on(event: &Event) -> BTreeSet<OwnedEventId> {
    let parents = event.prev_events().iter().chain(event.auth_events());
    parents.cloned().collect()
}

fn sort<T>(
    items: Vec<T>,
    event: impl Fn(&T) -> Event,
    rests_on: impl Fn(&Event) -> BTreeSet<OwnedEventId>,
) -> (Vec<T>, Vec<T>) {
    let events: Vec<Event> = items.iter().map(event).collect();
    let mut places: BTreeMap<OwnedEventId, usize> = BTreeMap::new();
    for (at, event) in events.iter().enumerate() {
        places.entry(event.event_id().to_owned()).or_insert(at);
    }
    let mut waiting: Vec<usize> = Vec::with_capacity(items.len());
    let mut children: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (at, event) in events.iter().enumerate() {
        let parents: BTreeSet<usize> = rests_on(event)
            .iter()
            .filter_map(|id| places.get(id).copied())
            .collect();
        for parent in &parents {
            children.entry(*parent).or_default().push(at);
        }
        waiting.push(parents.len());
    }
    let mut ready: BTreeSet<usize> = waiting
        .iter()
        .enumerate()
        .filter(|(_, parents)| **parents == 0)
        .map(|(at, _)| at)
        .collect();
    let mut items: Vec<Option<T>> = items.into_iter().map(Some).collect();
    let mut ordered = Vec::with_capacity(items.len());
    while let Some(at) = ready.pop_first() {
        ordered.extend(items.get_mut(at).and_then(Option::take));
        for child in children.remove(&at).unwrap_or_default() {
            let Some(parents) = waiting.get_mut(child) else {
                continue;
            };
            *parents -= 1;
            if *parents == 0 {
                ready.insert(child);
            }
        }
    }
    (ordered, items.into_iter().flatten().collect())
}
