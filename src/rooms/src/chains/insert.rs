//! Placing events as they arrive.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::{
    ChainError, ChainIndex, ChainKey, ChainRow, ChainSource, EventNum, StateKeyNum,
    rows::{Linked, Place, Placed, SEGMENT, Segment, cited},
    walk::{Cover, raise},
};

/// A state event to be placed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewEvent {
    /// Its number.
    pub num: EventNum,
    /// Its state key.
    pub key: StateKeyNum,
    /// Its auth events, which are indexed or come before it in the same call.
    pub auth: Vec<EventNum>,
}

impl<S: ChainSource> ChainIndex<S> {
    /// Places events, each after its auth events, and returns the rows for their batch. Events
    /// that have a place keep it. Two round trips, however many events.
    ///
    /// # Errors
    /// [`ChainError::NotIndexed`] when an auth event has no place; nothing is placed then.
    pub async fn insert(&self, events: &[NewEvent]) -> Result<Vec<ChainRow>, ChainError<S::Error>> {
        let named: BTreeSet<_> = events
            .iter()
            .flat_map(|event| event.auth.iter().copied().chain([event.num]))
            .collect();
        let named: Vec<_> = named.into_iter().map(ChainKey::Event).collect();
        let mut placed = HashMap::new();
        for (key, row) in named
            .iter()
            .zip(self.source.rows(&named).await.map_err(ChainError::Source)?)
        {
            if let (ChainKey::Event(num), Some(row)) = (*key, row) {
                placed.insert(num, Placed::decode(&row).ok_or(ChainError::Damaged(*key))?);
            }
        }
        // The segments into which the next event of each chain in question would go.
        let next = placed
            .values()
            .map(|placed| (placed.place.chain, (placed.place.position + 1) / SEGMENT));
        let next: BTreeSet<_> = next.collect();
        let next: Vec<_> = next
            .into_iter()
            .map(|(chain, number)| ChainKey::Segment(chain, number))
            .collect();
        let mut segments = BTreeMap::new();
        for (key, row) in next
            .iter()
            .zip(self.source.rows(&next).await.map_err(ChainError::Source)?)
        {
            if let Some(row) = row {
                segments.insert(
                    *key,
                    Segment::decode(&row).ok_or(ChainError::Damaged(*key))?,
                );
            }
        }

        let mut rows = Vec::new();
        let mut changed = BTreeSet::new();
        for event in events {
            if placed.contains_key(&event.num) {
                continue;
            }
            let auth = event
                .auth
                .iter()
                .map(|num| placed.get(num).copied().ok_or(ChainError::NotIndexed(*num)));
            let auth = auth.collect::<Result<Vec<_>, _>>()?;
            let place = place(event, &auth, &segments);
            let key = ChainKey::Segment(place.chain, place.position / SEGMENT);
            let segment = segments.entry(key).or_insert(Segment {
                key: event.key,
                events: Vec::new(),
            });
            let links = links(place.chain, &auth, segment);
            rows.extend(links.iter().map(|to| ChainRow {
                key: ChainKey::Cited(to.chain, to.position, place.chain, place.position),
                value: cited(),
            }));
            segment.events.push(Linked {
                num: event.num.0,
                links,
            });
            changed.insert(key);
            let new = Placed {
                place,
                key: event.key,
            };
            placed.insert(event.num, new);
            rows.push(ChainRow {
                key: ChainKey::Event(event.num),
                value: new.encode(),
            });
        }
        let changed = changed
            .into_iter()
            .filter_map(|key| Some((key, segments.get(&key)?)));
        rows.extend(changed.map(|(key, segment)| ChainRow {
            key,
            value: segment.encode(),
        }));
        Ok(rows)
    }
}

/// On top of a chain of the event's own key, if an auth event ends one; else a new chain's start.
fn place(event: &NewEvent, auth: &[Placed], segments: &BTreeMap<ChainKey, Segment>) -> Place {
    let above = |below: &Placed| Place {
        position: below.place.position + 1,
        ..below.place
    };
    let free = |place: &Place| {
        let segment = segments.get(&ChainKey::Segment(place.chain, place.position / SEGMENT));
        segment.map_or(0, |segment| segment.events.len()) == (place.position % SEGMENT) as usize
    };
    let tops = auth
        .iter()
        .filter(|placed| placed.key == event.key)
        .map(above)
        .filter(free);
    tops.max_by_key(|place| place.position).unwrap_or(Place {
        chain: event.num.0,
        position: 0,
    })
}

/// The auth events on other chains, the highest on each, but for those that an event below in the
/// same segment links to already, or to one above them.
fn links(chain: u32, auth: &[Placed], segment: &Segment) -> Vec<Place> {
    let mut wanted = Cover::new();
    for placed in auth.iter().filter(|placed| placed.place.chain != chain) {
        raise(&mut wanted, placed.place.chain, placed.place.position + 1);
    }
    for link in segment.events.iter().flat_map(|event| &event.links) {
        if wanted
            .get(&link.chain)
            .is_some_and(|count| *count <= link.position + 1)
        {
            wanted.remove(&link.chain);
        }
    }
    wanted
        .into_iter()
        .map(|(chain, count)| Place {
            chain,
            position: count - 1,
        })
        .collect()
}
