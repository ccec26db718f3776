//! Parents before children.

use std::collections::{BTreeMap, BTreeSet};

use comity_protocol::{event::Event, id::OwnedEventId};

use super::Arrival;

/// Sorts events so that each comes after those it rests on, as far as these are among them, and
/// else as they came. What is on a cycle, or rests on one, is given apart (threat D12).
pub(super) fn parents_first(arrivals: Vec<Arrival>) -> (Vec<Arrival>, Vec<Arrival>) {
    let mut places: BTreeMap<OwnedEventId, usize> = BTreeMap::new();
    for (at, arrival) in arrivals.iter().enumerate() {
        let event_id = arrival.event.event().event_id().to_owned();
        places.entry(event_id).or_insert(at);
    }
    let mut waiting: Vec<usize> = Vec::with_capacity(arrivals.len());
    let mut children: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (at, arrival) in arrivals.iter().enumerate() {
        let parents: BTreeSet<usize> = rests_on(arrival.event.event())
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
    let mut arrivals: Vec<Option<Arrival>> = arrivals.into_iter().map(Some).collect();
    let mut ordered = Vec::with_capacity(arrivals.len());
    while let Some(at) = ready.pop_first() {
        ordered.extend(arrivals.get_mut(at).and_then(Option::take));
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
    (ordered, arrivals.into_iter().flatten().collect())
}

fn rests_on(event: &Event) -> impl Iterator<Item = &OwnedEventId> {
    event.prev_events().iter().chain(event.auth_events())
}
