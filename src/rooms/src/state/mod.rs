//! Room state: a persistent radix trie from state keys to events, with Merkle hashes.
//!
//! A state is a map from interned state keys ([`StateKeyNum`]) to events ([`EventNum`]), stored as
//! two tries, memberships and the rest, so that whoever needs only the rest never touches a
//! member. A snapshot is a [`Root`], the names of the two tries' top nodes. Nodes are never
//! changed: a state event writes the nodes on the way to its key anew (`⌈log₁₆(n/64)⌉ + 1` of
//! them: one up to 64 keys, two up to 1,024, three up to 16,384, four up to 262,144) and shares
//! all others with the state before it. A message writes none. The shape depends on the content
//! alone, so equal states have equal roots, whichever way they were reached.
//!
//! * [`StateTrie`] reads and writes: keys singly or many at once, changes, differences, pages.
//! * [`StateBuilder`] makes the nodes of a state that arrives as an unsorted list.
//! * [`PartialRoot`] is a state of which not everything is known; it is no [`Root`].
//! * [`Marker`] finds what the collector must keep.
//!
//! **Reads** go through [`NodeSource`], level by level, one call a level for any number of keys:
//! dependent round trips are the depth. [`NodeCache`] stands before it.
//!
//! **Writes** are returned, never done: the room's actor puts the new nodes into the event's own
//! batch (law 1). A writer gets every node of its path back, also one that an older state already
//! had, since the collector may be about to remove that one.
//!
//! **What fails.** A node that is missing or damaged is a [`TrieError`] that names it: the state
//! can't be read, and nothing is guessed.

mod build;
mod cache;
mod closure;
mod mark;
mod node;
mod root;
mod trie;
mod walk;

#[cfg(test)]
mod tests;

use std::future::Future;

use bytes::Bytes;

pub(crate) use self::closure::Closure;
pub use self::{
    build::{DuplicateKey, StateBuilder, StateNodes},
    cache::NodeCache,
    mark::Marker,
    node::{NodeError, NodeHash, rewritten_node},
    root::{AnyRoot, Half, PartialRoot, Root, RootError, Snapshot},
    trie::{StateTrie, Written},
    walk::{Change, Diff, Entries},
};
pub use crate::num::{EventNum, StateKeyNum};

/// Where nodes are read from: the room's rows and what is appended to them.
pub trait NodeSource: Sync {
    /// Why a read failed.
    type Error: std::error::Error + Send + Sync + 'static;

    /// The bytes of the nodes with these names, in their order; `None` for one that isn't stored.
    /// One call is one round trip.
    fn nodes(
        &self,
        hashes: &[NodeHash],
    ) -> impl Future<Output = Result<Vec<Option<Bytes>>, Self::Error>> + Send;
}

/// What a state says of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lookup {
    /// The entry is this event.
    Present(EventNum),
    /// There is no entry.
    Absent,
    /// The state is partial and the entry, if there is one, has not arrived.
    Unknown,
}

impl Lookup {
    /// The event, if there is one and it is known.
    #[must_use]
    pub const fn present(self) -> Option<EventNum> {
        match self {
            Self::Present(num) => Some(num),
            Self::Absent | Self::Unknown => None,
        }
    }

    fn new(num: Option<u32>, open: bool) -> Self {
        match num {
            Some(num) => Self::Present(EventNum(num)),
            None if open => Self::Unknown,
            None => Self::Absent,
        }
    }
}

/// Why a state could not be read.
#[derive(Debug, thiserror::Error)]
pub enum TrieError<E> {
    /// The store refused.
    #[error("reading state nodes")]
    Source(#[source] E),
    /// A node that a root in use needs is not stored.
    #[error("state node {0:?} is missing")]
    Missing(NodeHash),
    /// A stored node is not what it was.
    #[error("state node {hash:?} is damaged")]
    Damaged {
        /// The name under which it is stored.
        hash: NodeHash,
        /// What is wrong with it.
        source: NodeError,
    },
}
