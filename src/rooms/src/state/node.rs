//! One node of the trie and its bytes.
//!
//! Keys are dense (a room counts them from 0), so a leaf covers 64 neighbouring keys and an inner
//! node 16 subtrees: sixteen hashes are 256 bytes, and three nodes are enough up to 16,384 keys,
//! four up to 262,144. A wider inner node would save a level and double what every state change
//! writes. An inner node with a single child does not exist: the child stands in its place and
//! carries its own level and prefix. The shape is therefore a function of the set of keys alone,
//! which is what makes equal states equal in hash, however they came about.
//!
//! A node's name is the first 16 bytes of the SHA-256 of its bytes. Nodes are rows of their room,
//! and what is in them (numbers that this server gave out) is not for a sender to choose, so a
//! collision would take 2^64 trials with predicted numbers and then confuse two states of the
//! attacker's own room; a second node for somebody else's hash takes 2^128. Thirty-two bytes would
//! nearly double what every state change writes, to no reader's gain. The hash is checked when a
//! node is loaded, so damage on disk is an error and never another state.

use std::fmt;

use bytes::Bytes;
use sha2::{Digest, Sha256};

use crate::varint;

/// The format byte of a node.
const FORMAT: u8 = 1;
/// Bits of a key's index that a leaf covers.
const LEAF_BITS: u32 = 6;
/// Bits of a leaf's position that a level of inner nodes covers.
const INNER_BITS: u32 = 4;
/// Levels above the leaves: 6 + 7 × 4 bits hold the 31 of an index.
const MAX_LEVEL: u8 = 7;
/// Leaf positions have 25 bits.
const MAX_POSITION: u32 = u32::MAX >> 1 >> LEAF_BITS;

/// The name of a node: the first 16 bytes of the SHA-256 of its bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeHash(pub [u8; 16]);

impl NodeHash {
    /// The name of the node with these bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        let mut name = [0; 16];
        name.iter_mut()
            .zip(Sha256::digest(bytes))
            .for_each(|(to, from)| *to = from);
        Self(name)
    }
}

impl fmt::Debug for NodeHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Why bytes are no node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NodeError {
    /// The format byte is none this version reads.
    #[error("unknown node format {0}")]
    Format(u8),
    /// The bytes do not have the name under which they were stored.
    #[error("the bytes do not match their hash")]
    Hash,
    /// The bytes end early, go on too long, or say something impossible.
    #[error("malformed node")]
    Malformed,
}

/// The leaf in which a key's entry lives.
pub(super) const fn position_of(index: u32) -> u32 {
    index >> LEAF_BITS
}

/// The place of a key within its leaf, 0..64.
pub(super) const fn place_of(index: u32) -> u32 {
    index & ((1 << LEAF_BITS) - 1)
}

/// The lowest level at which two different leaves share a node.
pub(super) const fn level_of_fork(a: u32, b: u32) -> u8 {
    ((31 - (a ^ b | 1).leading_zeros()) / INNER_BITS) as u8 + 1
}

/// A node, decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Node {
    Leaf(Leaf),
    Inner(Inner),
}

/// The entries of 64 neighbouring keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Leaf {
    pub position: u32,
    bitmap: u64,
    nums: Vec<u32>,
}

/// Up to sixteen subtrees of 16^(level−1) leaves each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Inner {
    pub level: u8,
    /// A leaf's position without the bits that this node and those below it decide.
    prefix: u32,
    bitmap: u16,
    children: Vec<NodeHash>,
}

impl Leaf {
    pub fn new(position: u32) -> Self {
        Self {
            position,
            bitmap: 0,
            nums: Vec::new(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.bitmap == 0
    }

    pub fn get(&self, index: u32) -> Option<u32> {
        let bit = 1u64 << place_of(index);
        if position_of(index) != self.position || self.bitmap & bit == 0 {
            return None;
        }
        self.nums
            .get((self.bitmap & (bit - 1)).count_ones() as usize)
            .copied()
    }

    /// Puts, replaces or (with `None`) takes out the entry of a key of this leaf.
    pub fn set(&mut self, index: u32, num: Option<u32>) {
        let bit = 1u64 << place_of(index);
        let at = (self.bitmap & (bit - 1)).count_ones() as usize;
        let present = self.bitmap & bit != 0;
        match (num, present) {
            (Some(num), true) => self
                .nums
                .iter_mut()
                .skip(at)
                .take(1)
                .for_each(|old| *old = num),
            (Some(num), false) => {
                self.bitmap |= bit;
                self.nums.insert(at, num);
            }
            (None, true) => {
                self.bitmap &= !bit;
                self.nums.remove(at);
            }
            (None, false) => {}
        }
    }

    /// The entries in order: index, num.
    pub fn entries(&self) -> impl Iterator<Item = (u32, u32)> + '_ {
        let first = self.position << LEAF_BITS;
        bits(self.bitmap)
            .map(move |place| first | place)
            .zip(self.nums.iter().copied())
    }
}

impl Inner {
    /// A node over the leaf at `position`, as yet without children.
    pub fn new(level: u8, position: u32) -> Self {
        Self {
            level,
            prefix: position >> (INNER_BITS * u32::from(level)),
            bitmap: 0,
            children: Vec::new(),
        }
    }

    /// The slot, 0..16, that a leaf of this node is under.
    pub fn slot_of(&self, position: u32) -> u32 {
        (position >> (INNER_BITS * u32::from(self.level - 1))) & 15
    }

    /// Appends a child; children come in order of their slots.
    pub fn push(&mut self, slot: u32, child: NodeHash) {
        self.bitmap |= 1 << slot;
        self.children.push(child);
    }

    pub fn child(&self, slot: u32) -> Option<NodeHash> {
        let bit = 1u16 << slot;
        if self.bitmap & bit == 0 {
            return None;
        }
        self.children
            .get((self.bitmap & (bit - 1)).count_ones() as usize)
            .copied()
    }

    /// The children in order: slot, hash.
    pub fn children(&self) -> impl Iterator<Item = (u32, NodeHash)> + '_ {
        bits(u64::from(self.bitmap)).zip(self.children.iter().copied())
    }

    /// The first and the last leaf that could be under a slot.
    pub fn span_of(&self, slot: u32) -> (u32, u32) {
        let below = INNER_BITS * u32::from(self.level - 1);
        let first = ((self.prefix << INNER_BITS) | slot) << below;
        (first, first | ((1 << below) - 1))
    }
}

impl Node {
    /// The first and the last leaf that could be under this node.
    pub fn span(&self) -> (u32, u32) {
        match self {
            Self::Leaf(leaf) => (leaf.position, leaf.position),
            Self::Inner(inner) => (inner.span_of(0).0, inner.span_of(15).1),
        }
    }

    /// What the node weighs in a cache, in bytes.
    pub fn weight(&self) -> usize {
        std::mem::size_of::<Self>()
            + match self {
                Self::Leaf(leaf) => leaf.nums.capacity() * 4,
                Self::Inner(inner) => inner.children.capacity() * 16,
            }
    }

    /// The node's bytes: format, level (0 a leaf), position or prefix, bitmap; then the nums, each
    /// as the step from the one before, or the children's hashes.
    pub fn encode(&self) -> Bytes {
        let mut out = vec![FORMAT];
        match self {
            Self::Leaf(leaf) => {
                out.push(0);
                varint::put(&mut out, leaf.position);
                out.extend(leaf.bitmap.to_le_bytes());
                leaf.nums.iter().fold(0, |before, &num| {
                    varint::put_step(&mut out, before, num);
                    num
                });
            }
            Self::Inner(inner) => {
                out.push(inner.level);
                varint::put(&mut out, inner.prefix);
                out.extend(inner.bitmap.to_le_bytes());
                inner.children.iter().for_each(|child| out.extend(child.0));
            }
        }
        out.into()
    }

    /// Reads a node whose hash is known to be `hash`.
    pub fn load(hash: NodeHash, bytes: &[u8]) -> Result<Self, NodeError> {
        if NodeHash::of(bytes) != hash {
            return Err(NodeError::Hash);
        }
        Self::decode(bytes)
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, NodeError> {
        match bytes {
            [FORMAT, 0, rest @ ..] => decode_leaf(rest).map(Self::Leaf),
            [FORMAT, level @ 1..=MAX_LEVEL, rest @ ..] => {
                decode_inner(*level, rest).map(Self::Inner)
            }
            [FORMAT, ..] | [] => None,
            [other, ..] => return Err(NodeError::Format(*other)),
        }
        .ok_or(NodeError::Malformed)
    }
}

/// What the bytes of a node say, written again: the same bytes, for there is one way to write a node. Who has bytes and no
/// state that they are of, as the fuzz target of rows, reads them so.
///
/// # Errors
/// [`NodeError`]: they are no node.
pub fn rewritten_node(bytes: &[u8]) -> Result<Bytes, NodeError> {
    Node::decode(bytes).map(|node| node.encode())
}

fn decode_leaf(mut bytes: &[u8]) -> Option<Leaf> {
    let position = varint::take(&mut bytes).filter(|&position| position <= MAX_POSITION)?;
    let (bitmap, mut bytes) = bytes.split_first_chunk()?;
    let bitmap = u64::from_le_bytes(*bitmap);
    let mut nums = Vec::with_capacity(bitmap.count_ones() as usize);
    for _ in bits(bitmap) {
        nums.push(varint::take_step(
            &mut bytes,
            nums.last().copied().unwrap_or(0),
        )?);
    }
    (bitmap != 0 && bytes.is_empty()).then_some(Leaf {
        position,
        bitmap,
        nums,
    })
}

fn decode_inner(level: u8, mut bytes: &[u8]) -> Option<Inner> {
    let highest = MAX_POSITION >> (INNER_BITS * u32::from(level));
    let prefix = varint::take(&mut bytes).filter(|&prefix| prefix <= highest)?;
    let (bitmap, bytes) = bytes.split_first_chunk()?;
    let bitmap = u16::from_le_bytes(*bitmap);
    let (children, rest) = bytes.as_chunks();
    let inner = Inner {
        level,
        prefix,
        bitmap,
        children: children.iter().copied().map(NodeHash).collect(),
    };
    let last = inner.span_of(15 - bitmap.leading_zeros().min(15)).0;
    let whole = rest.is_empty() && inner.children.len() == bitmap.count_ones() as usize;
    (whole && bitmap.count_ones() > 1 && last <= MAX_POSITION).then_some(inner)
}

/// The places of the set bits, lowest first.
fn bits(mut bitmap: u64) -> impl Iterator<Item = u32> {
    std::iter::from_fn(move || {
        let place = (bitmap != 0).then(|| bitmap.trailing_zeros())?;
        bitmap &= bitmap - 1;
        Some(place)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn node() -> impl Strategy<Value = Node> {
        let leaf = (
            0..=MAX_POSITION,
            proptest::collection::btree_map(0u32..64, any::<u32>(), 1..64),
        );
        let leaf = leaf.prop_map(|(position, entries)| {
            let mut leaf = Leaf::new(position);
            entries
                .iter()
                .for_each(|(&place, &num)| leaf.set(position << 6 | place, Some(num)));
            Node::Leaf(leaf)
        });
        let inner = (
            1u8..7,
            0..=MAX_POSITION,
            proptest::collection::btree_map(0u32..16, any::<[u8; 16]>(), 2..16),
        );
        let inner = inner.prop_map(|(level, position, children)| {
            let mut inner = Inner::new(level, position);
            children
                .iter()
                .for_each(|(&slot, &hash)| inner.push(slot, NodeHash(hash)));
            Node::Inner(inner)
        });
        prop_oneof![leaf, inner]
    }

    proptest! {
        #[test]
        fn a_node_survives_the_round_trip(node in node()) {
            let bytes = node.encode();
            let decoded = Node::load(NodeHash::of(&bytes), &bytes);
            // A level-6 node has room for slots beyond the 31 bits; those never decode.
            if node.span().1 <= MAX_POSITION {
                prop_assert_eq!(decoded, Ok(node));
            }
        }

        /// Law 12: what survived is never trusted. A changed, cut or lengthened node is refused by
        /// its hash; without the hash it is still either refused or a node with one encoding.
        #[test]
        fn damaged_bytes_are_an_error(node in node(), at: prop::sample::Index, to: u8, cut: prop::sample::Index) {
            let whole = node.encode();
            let hash = NodeHash::of(&whole);
            let mut bytes = whole.to_vec();
            let at = at.index(bytes.len());
            bytes[at] = to;
            bytes.truncate(cut.index(whole.len() + 1));
            if bytes != whole {
                prop_assert_eq!(Node::load(hash, &bytes), Err(NodeError::Hash));
            }
            if let Ok(node) = Node::decode(&bytes) {
                prop_assert_eq!(node.encode(), bytes);
            }
        }

        #[test]
        fn any_bytes_decode_without_a_panic(mut bytes: Vec<u8>, head in proptest::collection::vec(0u8..8, 0..3)) {
            bytes.splice(0..0, head);
            if let Ok(node) = Node::decode(&bytes) {
                prop_assert_eq!(node.encode(), bytes);
            }
        }
    }
}
