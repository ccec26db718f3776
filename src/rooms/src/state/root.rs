//! What a snapshot is known by: the names of its two subtrees.
//!
//! [`Root`] is a whole state. [`PartialRoot`] is what a join with `omit_members` leaves us with: a
//! state in which some entries have not come yet. The two are different types and neither turns
//! into the other, so code that decides by the absence of an entry can't be handed a state whose
//! absences mean nothing. [`AnyRoot`] is a state that may be either, as rooms have them; what is asked
//! of it answers [`Lookup::Unknown`](super::Lookup::Unknown) where nothing is known.

use super::{NodeHash, StateKeyNum};

/// The format byte of a root; its low bits say which hashes follow and what is open.
const FORMAT: u8 = 0x10;
const HAS_REST: u8 = 1;
const HAS_MEMBERS: u8 = 2;
const OPEN_MEMBERS: u8 = 4;
const OPEN_REST: u8 = 8;

/// The halves of a state, in the order of their keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Half {
    /// Everything but memberships.
    Rest,
    /// The `m.room.member` events.
    Members,
}

impl Half {
    /// The half in which a key's entry lives.
    #[must_use]
    pub const fn of(key: StateKeyNum) -> Self {
        if key.is_member() {
            Self::Members
        } else {
            Self::Rest
        }
    }

    pub(super) const fn key(self, index: u32) -> StateKeyNum {
        match self {
            Self::Rest => StateKeyNum::other(index),
            Self::Members => StateKeyNum::member(index),
        }
    }
}

/// The two subtrees; an empty one has no node.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Halves {
    pub rest: Option<NodeHash>,
    pub members: Option<NodeHash>,
}

impl Halves {
    pub fn get(&self, half: Half) -> Option<NodeHash> {
        match half {
            Half::Rest => self.rest,
            Half::Members => self.members,
        }
    }

    pub fn set(&mut self, half: Half, node: Option<NodeHash>) {
        match half {
            Half::Rest => self.rest = node,
            Half::Members => self.members = node,
        }
    }
}

/// A whole state. Equal states have equal roots.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Root(pub(super) Halves);

/// A state of which not everything is known: in an *open* half an entry that isn't there may only
/// not have arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PartialRoot {
    pub(super) halves: Halves,
    open_rest: bool,
    open_members: bool,
}

/// The state of a room at some point: whole, or partial until a join is completed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AnyRoot {
    /// All of it is known.
    Whole(Root),
    /// Some of it may be unknown.
    Partial(PartialRoot),
}

/// Why bytes are no root of the wanted kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RootError {
    /// Neither a root nor a partial root.
    #[error("malformed state root")]
    Malformed,
    /// A partial root where a whole one is stored, or the other way round.
    #[error("a whole state root where a partial one belongs, or the other way round")]
    Kind,
}

mod sealed {
    /// The inside of a snapshot, for this module's own readers and writers.
    pub trait Inside: Copy + Send + Sync {
        fn halves(&self) -> super::Halves;
        fn with(self, halves: super::Halves) -> Self;
    }
}
pub(super) use sealed::Inside;

/// A root that can be read and written: [`Root`] or [`PartialRoot`].
pub trait Snapshot: sealed::Inside {
    /// Whether an entry that isn't there may still exist.
    fn is_open(&self, half: Half) -> bool;
}

impl Inside for Root {
    fn halves(&self) -> Halves {
        self.0
    }
    fn with(self, halves: Halves) -> Self {
        Self(halves)
    }
}

impl Snapshot for Root {
    fn is_open(&self, _: Half) -> bool {
        false
    }
}

impl Inside for PartialRoot {
    fn halves(&self) -> Halves {
        self.halves
    }
    fn with(self, halves: Halves) -> Self {
        Self { halves, ..self }
    }
}

impl Snapshot for PartialRoot {
    fn is_open(&self, half: Half) -> bool {
        match half {
            Half::Rest => self.open_rest,
            Half::Members => self.open_members,
        }
    }
}

impl Inside for AnyRoot {
    fn halves(&self) -> Halves {
        match self {
            Self::Whole(root) => root.halves(),
            Self::Partial(root) => root.halves(),
        }
    }
    fn with(self, halves: Halves) -> Self {
        match self {
            Self::Whole(root) => Self::Whole(root.with(halves)),
            Self::Partial(root) => Self::Partial(root.with(halves)),
        }
    }
}

impl Snapshot for AnyRoot {
    fn is_open(&self, half: Half) -> bool {
        match self {
            Self::Whole(root) => root.is_open(half),
            Self::Partial(root) => root.is_open(half),
        }
    }
}

impl From<Root> for AnyRoot {
    fn from(root: Root) -> Self {
        Self::Whole(root)
    }
}

impl From<PartialRoot> for AnyRoot {
    fn from(root: PartialRoot) -> Self {
        Self::Partial(root)
    }
}

impl AnyRoot {
    /// The state before the create event.
    pub const EMPTY: Self = Self::Whole(Root::EMPTY);

    /// The state, if all of it is known.
    #[must_use]
    pub const fn whole(self) -> Option<Root> {
        match self {
            Self::Whole(root) => Some(root),
            Self::Partial(_) => None,
        }
    }

    /// Whether there may be more in it than is known.
    #[must_use]
    pub const fn is_partial(self) -> bool {
        matches!(self, Self::Partial(_))
    }

    /// The same entries, as far as they are known, of which it isn't said that they are all members.
    #[must_use]
    pub fn as_partial(self) -> Self {
        match self {
            Self::Whole(root) => Self::Partial(PartialRoot::without_all_members(root)),
            partial @ Self::Partial(_) => partial,
        }
    }

    /// The memberships that are known, and nothing else.
    #[must_use]
    pub fn known_members(self) -> Root {
        Root(Halves {
            rest: None,
            members: self.halves().members,
        })
    }

    /// All but the memberships; it is known of a partial state as well, unless that is a fragment.
    #[must_use]
    pub fn known_rest(self) -> Root {
        Root(Halves {
            rest: self.halves().rest,
            members: None,
        })
    }

    /// The bytes that stand in room heads and status rows: at most 33.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Whole(root) => root.encode(),
            Self::Partial(root) => root.encode(),
        }
    }

    /// # Errors
    /// When the bytes are damaged.
    pub fn decode(bytes: &[u8]) -> Result<Self, RootError> {
        match Root::decode(bytes) {
            Err(RootError::Kind) => PartialRoot::decode(bytes).map(Self::Partial),
            root => root.map(Self::Whole),
        }
    }
}

impl Root {
    /// The entries of this state, and in place of its memberships those of another.
    #[must_use]
    pub fn with_members_of(self, other: AnyRoot) -> Self {
        Self(Halves {
            rest: self.0.rest,
            members: other.halves().members,
        })
    }

    /// The state before the create event.
    pub const EMPTY: Self = Self(Halves {
        rest: None,
        members: None,
    });

    /// The bytes that stand in room heads and status rows: at most 33.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        encode(self.0, 0)
    }

    /// # Errors
    /// When the bytes are damaged, or a partial root's.
    pub fn decode(bytes: &[u8]) -> Result<Self, RootError> {
        match decode(bytes)? {
            (halves, 0) => Ok(Self(halves)),
            _ => Err(RootError::Kind),
        }
    }
}

impl PartialRoot {
    /// The state of which `known` has arrived and memberships are still to come, as after a join
    /// with `omit_members`
    /// (<https://spec.matrix.org/v1.19/server-server-api/#put_matrixfederationv2send_joinroomideventid>).
    #[must_use]
    pub fn without_all_members(known: Root) -> Self {
        Self {
            halves: known.0,
            open_rest: false,
            open_members: true,
        }
    }

    /// The state of which only `known` has arrived, as of a room seen through an invite.
    #[must_use]
    pub fn fragment(known: Root) -> Self {
        Self {
            halves: known.0,
            open_rest: true,
            open_members: true,
        }
    }

    /// The bytes that stand in room heads and status rows: at most 33.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let open = |open, flag| if open { flag } else { 0 };
        encode(
            self.halves,
            open(self.open_rest, OPEN_REST) | open(self.open_members, OPEN_MEMBERS),
        )
    }

    /// # Errors
    /// When the bytes are damaged, or a whole root's.
    pub fn decode(bytes: &[u8]) -> Result<Self, RootError> {
        match decode(bytes)? {
            (_, 0) => Err(RootError::Kind),
            (halves, open) => Ok(Self {
                halves,
                open_rest: open & OPEN_REST != 0,
                open_members: open & OPEN_MEMBERS != 0,
            }),
        }
    }
}

fn encode(halves: Halves, open: u8) -> Vec<u8> {
    let has = |node: Option<NodeHash>, flag| if node.is_some() { flag } else { 0 };
    let mut out =
        vec![FORMAT | open | has(halves.rest, HAS_REST) | has(halves.members, HAS_MEMBERS)];
    [halves.rest, halves.members]
        .into_iter()
        .flatten()
        .for_each(|node| out.extend(node.0));
    out
}

/// The halves and the flags of the open ones.
fn decode(bytes: &[u8]) -> Result<(Halves, u8), RootError> {
    let (&flags, mut bytes) = bytes.split_first().ok_or(RootError::Malformed)?;
    let mut take = |flag| -> Result<Option<NodeHash>, RootError> {
        if flags & flag == 0 {
            return Ok(None);
        }
        let (hash, rest) = bytes.split_first_chunk().ok_or(RootError::Malformed)?;
        bytes = rest;
        Ok(Some(NodeHash(*hash)))
    };
    let halves = Halves {
        rest: take(HAS_REST)?,
        members: take(HAS_MEMBERS)?,
    };
    if flags & 0xf0 != FORMAT || !bytes.is_empty() {
        return Err(RootError::Malformed);
    }
    Ok((halves, flags & (OPEN_REST | OPEN_MEMBERS)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_root_survives_and_keeps_its_kind(rest: Option<[u8; 16]>, members: Option<[u8; 16]>) {
            let root = Root(Halves { rest: rest.map(NodeHash), members: members.map(NodeHash) });
            prop_assert_eq!(Root::decode(&root.encode()), Ok(root));
            prop_assert_eq!(PartialRoot::decode(&root.encode()), Err(RootError::Kind));
            prop_assert_eq!(AnyRoot::decode(&root.encode()), Ok(AnyRoot::Whole(root)));
            for partial in [PartialRoot::without_all_members(root), PartialRoot::fragment(root)] {
                prop_assert_eq!(PartialRoot::decode(&partial.encode()), Ok(partial));
                prop_assert_eq!(Root::decode(&partial.encode()), Err(RootError::Kind));
                prop_assert_eq!(AnyRoot::decode(&partial.encode()), Ok(AnyRoot::Partial(partial)));
            }
        }

        #[test]
        fn any_bytes_decode_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            if let Ok(root) = Root::decode(&bytes) {
                prop_assert_eq!(root.encode(), bytes);
            } else if let Ok(root) = PartialRoot::decode(&bytes) {
                prop_assert_eq!(root.encode(), bytes);
            }
        }
    }
}
