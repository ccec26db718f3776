//! The rows of the cover and their bytes.

use bytes::Bytes;

use super::{EventNum, StateKeyNum};
use crate::varint;

/// The format byte of every value.
const FORMAT: u8 = 1;
/// Events in a segment.
pub(super) const SEGMENT: u32 = 16;

/// An event's place: its chain (named by the number of the chain's first event) and how many
/// events of the chain are below it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Place {
    pub chain: u32,
    pub position: u32,
}

/// The key of a row, within the room's rows for auth chains.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ChainKey {
    /// The place of an event.
    Event(EventNum),
    /// Sixteen events of a chain with their links: chain, position of the first / 16.
    Segment(u32, u32),
    /// A link, under its target: (chain, position) of the event linked to, then of the one that
    /// links.
    Cited(u32, u32, u32, u32),
}

/// A row to put into the event's batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChainRow {
    /// Its key.
    pub key: ChainKey,
    /// Its value, never empty: the first byte is the format.
    pub value: Bytes,
}

impl ChainRow {
    /// What the value says, written again: the same bytes, for there is one way to write it. `None` where it is no value of
    /// such a key. Who has a row and no room that it is of, as the fuzz target of rows, reads it so.
    #[must_use]
    pub fn rewritten(&self) -> Option<Bytes> {
        match self.key {
            ChainKey::Event(_) => Placed::decode(&self.value).map(|placed| placed.encode()),
            ChainKey::Segment(..) => Segment::decode(&self.value).map(|segment| segment.encode()),
            ChainKey::Cited(..) => Some(cited()).filter(|only| *only == self.value),
        }
    }
}

impl ChainKey {
    /// The key's bytes, ordered as the keys are: a kind, then big-endian numbers; at most 17.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let (kind, numbers) = match *self {
            Self::Event(num) => (0u8, vec![num.0]),
            Self::Segment(chain, segment) => (1, vec![chain, segment]),
            Self::Cited(chain, position, by, at) => (2, vec![chain, position, by, at]),
        };
        std::iter::once(kind)
            .chain(numbers.into_iter().flat_map(u32::to_be_bytes))
            .collect()
    }

    /// The key with these bytes, if there is one.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (kind, bytes) = bytes.split_first()?;
        let (numbers, []) = bytes.as_chunks() else {
            return None;
        };
        let numbers: Vec<u32> = numbers.iter().copied().map(u32::from_be_bytes).collect();
        match (kind, numbers.as_slice()) {
            (0, [num]) => Some(Self::Event(EventNum(*num))),
            (1, [chain, segment]) => Some(Self::Segment(*chain, *segment)),
            (2, [chain, position, by, at]) => Some(Self::Cited(*chain, *position, *by, *at)),
            _ => None,
        }
    }
}

/// What is known of a placed event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Placed {
    pub place: Place,
    pub key: StateKeyNum,
}

impl Placed {
    pub fn encode(&self) -> Bytes {
        let mut out = vec![FORMAT];
        [self.place.chain, self.place.position, self.key.0]
            .into_iter()
            .for_each(|n| varint::put(&mut out, n));
        out.into()
    }

    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut bytes = bytes.strip_prefix(&[FORMAT])?;
        let place = Place {
            chain: varint::take(&mut bytes)?,
            position: take_position(&mut bytes)?,
        };
        let key = StateKeyNum(varint::take(&mut bytes)?);
        bytes.is_empty().then_some(Self { place, key })
    }
}

/// Up to sixteen neighbouring events of one chain, which all have one state key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Segment {
    pub key: StateKeyNum,
    pub events: Vec<Linked>,
}

/// An event on a chain, and where on other chains its auth events are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Linked {
    pub num: u32,
    pub links: Vec<Place>,
}

impl Segment {
    pub fn encode(&self) -> Bytes {
        let mut out = vec![FORMAT];
        varint::put(&mut out, self.key.0);
        let (mut num, mut chain) = (0, 0);
        for event in &self.events {
            varint::put_step(&mut out, num, event.num);
            num = event.num;
            varint::put(&mut out, event.links.len() as u32);
            for link in &event.links {
                varint::put_step(&mut out, chain, link.chain);
                varint::put(&mut out, link.position);
                chain = link.chain;
            }
        }
        out.into()
    }

    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut bytes = bytes.strip_prefix(&[FORMAT])?;
        let key = StateKeyNum(varint::take(&mut bytes)?);
        let (mut num, mut chain) = (0, 0);
        let mut events = Vec::new();
        while !bytes.is_empty() {
            num = varint::take_step(&mut bytes, num)?;
            let mut links = Vec::new();
            for _ in 0..varint::take(&mut bytes)? {
                chain = varint::take_step(&mut bytes, chain)?;
                links.push(Place {
                    chain,
                    position: take_position(&mut bytes)?,
                });
            }
            events.push(Linked { num, links });
        }
        (1..=SEGMENT as usize)
            .contains(&events.len())
            .then_some(Self { key, events })
    }
}

/// A position, above which there is always another.
fn take_position(bytes: &mut &[u8]) -> Option<u32> {
    varint::take(bytes).filter(|&position| position < u32::MAX)
}

/// The value of a [`ChainKey::Cited`] row, which says all in its key.
pub(super) fn cited() -> Bytes {
    Bytes::from_static(&[FORMAT])
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn key() -> impl Strategy<Value = ChainKey> {
        prop_oneof![
            any::<u32>().prop_map(|num| ChainKey::Event(EventNum(num))),
            any::<(u32, u32)>().prop_map(|(a, b)| ChainKey::Segment(a, b)),
            any::<(u32, u32, u32, u32)>().prop_map(|(a, b, c, d)| ChainKey::Cited(a, b, c, d)),
        ]
    }

    fn segment() -> impl Strategy<Value = Segment> {
        let link =
            (any::<u32>(), 0..u32::MAX).prop_map(|(chain, position)| Place { chain, position });
        let event = (any::<u32>(), vec(link, 0..5)).prop_map(|(num, links)| Linked { num, links });
        (any::<u32>(), vec(event, 1..=16)).prop_map(|(key, events)| Segment {
            key: StateKeyNum(key),
            events,
        })
    }

    proptest! {
        #[test]
        fn keys_keep_their_order_in_bytes(a in key(), b in key()) {
            prop_assert_eq!(ChainKey::decode(&a.encode()), Some(a));
            prop_assert_eq!(a.cmp(&b), a.encode().cmp(&b.encode()));
        }

        #[test]
        fn rows_survive_the_round_trip(chain: u32, position in 0..u32::MAX, key: u32, segment in segment()) {
            let placed = Placed { place: Place { chain, position }, key: StateKeyNum(key) };
            prop_assert_eq!(Placed::decode(&placed.encode()), Some(placed));
            prop_assert_eq!(Segment::decode(&segment.encode()), Some(segment));
        }

        /// Law 12: what survived is never trusted; damaged rows are an error, never a panic.
        #[test]
        fn damaged_bytes_decode_without_a_panic(segment in segment(), at: prop::sample::Index, to: u8, cut: prop::sample::Index, noise: Vec<u8>) {
            let mut bytes = segment.encode().to_vec();
            let at = at.index(bytes.len());
            bytes[at] = to;
            bytes.truncate(cut.index(bytes.len() + 1));
            for bytes in [bytes, noise] {
                if let Some(segment) = Segment::decode(&bytes) {
                    prop_assert_eq!(segment.encode(), bytes.clone());
                }
                if let Some(placed) = Placed::decode(&bytes) {
                    prop_assert_eq!(placed.encode(), bytes.clone());
                }
                if let Some(key) = ChainKey::decode(&bytes) {
                    prop_assert_eq!(key.encode(), bytes);
                }
            }
        }
    }
}
