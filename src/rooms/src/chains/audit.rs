//! Whether the cover is complete and says no more than the events do.
//!
//! The rows come in the order of their keys: places, then segments, then citations. Every step up a chain and every
//! link must be an auth edge of the event it begins at, and every auth edge of an event must be covered by its chain or
//! by a link, its own or one of an event below it in the segment. From single edges the rest follows: what the cover
//! reaches is what the auth events reach.

use super::{
    ChainKey, EventNum, StateKeyNum,
    rows::{Place, Placed, SEGMENT, Segment},
};

/// What is wrong with a cover.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flaw {
    /// A row can't be read.
    Damaged(ChainKey),
    /// A chain has a gap, or a segment in its midst isn't full.
    Gap(ChainKey),
    /// An event's place isn't where its chain has it.
    Place(EventNum),
    /// An event stands on another, or links to one, that is none of its auth events.
    Edge(EventNum),
    /// An auth event of this one isn't reached.
    Uncovered(EventNum),
    /// The links and the rows under their targets differ.
    Citations,
}

/// A walk over a cover's rows.
#[derive(Debug, Default)]
pub(crate) struct Audit {
    /// By number, and whether a segment has the event there.
    places: Vec<(u32, Placed, bool)>,
    /// The chain being walked: its name, the segments seen, its last event.
    chain: Option<(u32, u32, u32)>,
    links: Sum,
    cited: Sum,
}

/// A set, by what doesn't depend on its order.
#[derive(Debug, Default, PartialEq, Eq)]
struct Sum {
    count: usize,
    sum: u64,
}

impl Sum {
    fn add(&mut self, to: Place, by: Place) {
        self.count += 1;
        let of = (to.chain, to.position, by.chain, by.position);
        self.sum = self.sum.wrapping_add(crate::check::hash(&of));
    }
}

impl Audit {
    /// The state key of an event that has a place. All places have been walked once a segment has.
    pub fn key_of(&self, num: EventNum) -> Option<StateKeyNum> {
        self.placed(num.0).map(|placed| placed.key)
    }

    /// The events that have a place.
    pub fn events(&self) -> impl Iterator<Item = EventNum> {
        self.places.iter().map(|(num, ..)| EventNum(*num))
    }

    fn placed(&self, num: u32) -> Option<Placed> {
        let at = self.places.binary_search_by_key(&num, |(num, ..)| *num);
        let found = at.ok().and_then(|at| self.places.get(at));
        found.map(|(_, placed, _)| *placed)
    }

    /// A segment has an event at this place; whether that is the event's.
    fn meet(&mut self, num: u32, place: Place, key: StateKeyNum) -> bool {
        let at = self.places.binary_search_by_key(&num, |(num, ..)| *num);
        let Some((_, placed, met)) = at.ok().and_then(|at| self.places.get_mut(at)) else {
            return false;
        };
        *met = true;
        placed.place == place && placed.key == key
    }

    /// Takes the next row. `auth` tells an event's auth events.
    pub fn row<'a>(
        &mut self,
        key: ChainKey,
        value: &[u8],
        auth: impl Fn(u32) -> &'a [u32],
        flaws: &mut Vec<Flaw>,
    ) {
        match key {
            ChainKey::Event(num) => match Placed::decode(value) {
                Some(placed) => self.places.push((num.0, placed, false)),
                None => flaws.push(Flaw::Damaged(key)),
            },
            ChainKey::Segment(chain, number) => match Segment::decode(value) {
                Some(segment) => self.segment((chain, number), &segment, auth, flaws),
                None => flaws.push(Flaw::Damaged(key)),
            },
            ChainKey::Cited(chain, position, by, at) => {
                let by = Place {
                    chain: by,
                    position: at,
                };
                self.cited.add(Place { chain, position }, by);
            }
        }
    }

    fn segment<'a>(
        &mut self,
        (chain, number): (u32, u32),
        segment: &Segment,
        auth: impl Fn(u32) -> &'a [u32],
        flaws: &mut Vec<Flaw>,
    ) {
        let (mut seen, mut below) = match self.chain {
            Some((name, seen, last)) if name == chain => (seen, Some(last)),
            _ => (0, None),
        };
        if number.saturating_mul(SEGMENT) != seen {
            flaws.push(Flaw::Gap(ChainKey::Segment(chain, number)));
            seen = number.saturating_mul(SEGMENT);
            below = None;
        }
        let mut linked: Vec<Place> = Vec::new();
        for event in &segment.events {
            let num = EventNum(event.num);
            let place = Place {
                chain,
                position: seen,
            };
            let auth = auth(event.num);
            if !self.meet(event.num, place, segment.key) {
                flaws.push(Flaw::Place(num));
            }
            let is_edge = match below {
                Some(below) => auth.contains(&below),
                None => event.num == chain || seen > 0,
            };
            if !is_edge {
                flaws.push(Flaw::Edge(num));
            }
            let named: Vec<Option<Place>> = auth
                .iter()
                .map(|num| self.placed(*num).map(|placed| placed.place))
                .collect();
            for link in &event.links {
                if link.chain == chain || !named.contains(&Some(*link)) {
                    flaws.push(Flaw::Edge(num));
                }
                self.links.add(*link, place);
            }
            linked.extend(&event.links);
            let is_covered = |of: &Option<Place>| {
                of.is_some_and(|of| {
                    let reaches =
                        |link: &Place| link.chain == of.chain && link.position >= of.position;
                    (of.chain == chain && of.position < seen) || linked.iter().any(reaches)
                })
            };
            if !named.iter().all(is_covered) {
                flaws.push(Flaw::Uncovered(num));
            }
            below = Some(event.num);
            seen += 1;
        }
        self.chain = below.map(|last| (chain, seen, last));
    }

    /// What shows only when all rows have been walked.
    pub fn end(&self, flaws: &mut Vec<Flaw>) {
        if self.links != self.cited {
            flaws.push(Flaw::Citations);
        }
        let unmet = self.places.iter().filter(|(.., met)| !met);
        flaws.extend(unmet.map(|(num, ..)| Flaw::Place(EventNum(*num))));
    }
}
