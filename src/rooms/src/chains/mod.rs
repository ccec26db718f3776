//! The auth-chain cover: which event's authority rests on which.
//!
//! Every state event is placed on a *chain*, at a *position*: an event whose auth events include
//! the last event of a chain of its own state key goes on top of it (power levels on power levels,
//! a membership on that user's), any other starts a chain. On a chain each event reaches all below
//! it, so only auth events on *other* chains need *links*. What events reach is then a number per
//! chain, sets of events are intervals, and a query costs the chains it touches, not the events.
//!
//! **Rows** ([`ChainKey`], all the room's own, written in the event's batch): an event's place; a
//! chain's events with their links, in segments of 16; and per link one row under its target, so
//! that chains can be climbed as well as descended.
//!
//! **Queries** ([`ChainIndex`]): [`reaches`](ChainIndex::reaches), the
//! [`auth_chain`](ChainIndex::auth_chain), whether a state
//! [reaches](ChainIndex::is_reached) an event, and the two that state resolution needs: the
//! [`auth_difference`](ChainIndex::auth_difference) and the
//! [`conflicted_subgraph`](ChainIndex::conflicted_subgraph). The difference is taken from where the
//! forks differ: what their common part reaches is found by climbing from the few candidates until
//! a common event is met, never by walking down from the whole state.
//!
//! **Bounds** (threat D7, crafted auth chains). Only an event's own auth edges are stored, never
//! what follows from them (closing the links is what let a crafted graph fill disks elsewhere).
//! An auth edge costs its link (at most 10 bytes) and the row under its target (18 bytes and the
//! room's prefix); it cost the event 47 bytes of JSON. A segment is written anew at most 16
//! times. Indexing an event looks up its auth events and one segment, and searches nothing. A
//! query reads a segment once and follows a link at most once down and once up, however the graph
//! is crafted: linear in the auth edges of the room at the worst. Its dependent round trips are the
//! hops from chain to chain, few in rooms people make.
//!
//! **What fails.** An auth event that isn't indexed (so also a cycle, D12) refuses the insertion; a
//! damaged or missing row is a typed error that names it.

mod audit;
mod index;
mod insert;
mod rows;
mod walk;

#[cfg(test)]
mod tests;

use std::future::Future;

use bytes::Bytes;

pub(crate) use self::audit::{Audit, Flaw};
pub use self::{
    index::ChainIndex,
    insert::NewEvent,
    rows::{ChainKey, ChainRow},
};
pub use crate::num::{EventNum, StateKeyNum};

/// Where the rows are read from: the room's stored ones and what is appended to them.
pub trait ChainSource: Sync {
    /// Why a read failed.
    type Error: std::error::Error + Send + Sync + 'static;

    /// The values of these rows, in their order. One call is one round trip.
    fn rows(
        &self,
        keys: &[ChainKey],
    ) -> impl Future<Output = Result<Vec<Option<Bytes>>, Self::Error>> + Send;

    /// For each pair the first `limit` keys ≥ the first and < the second, in order. One call is
    /// one round trip.
    fn scan(
        &self,
        ranges: &[(ChainKey, ChainKey)],
        limit: usize,
    ) -> impl Future<Output = Result<Vec<Vec<ChainKey>>, Self::Error>> + Send;
}

/// A state, asked whether events are in it.
pub trait StateSet: Sync {
    /// Why a read failed.
    type Error: std::error::Error + Send + Sync + 'static;

    /// For each event, given with its state key, whether it is the state's entry there.
    fn contains(
        &self,
        events: &[(StateKeyNum, EventNum)],
    ) -> impl Future<Output = Result<Vec<bool>, Self::Error>> + Send;
}

/// Why the index could not be read or extended.
#[derive(Debug, thiserror::Error)]
pub enum ChainError<E> {
    /// The store refused.
    #[error("reading auth chains")]
    Source(#[source] E),
    /// An event the question is about, or an auth event of one to be indexed, is not indexed.
    #[error("event {0:?} has no place on an auth chain")]
    NotIndexed(EventNum),
    /// A row that another one implies is missing or damaged.
    #[error("auth chain row {0:?} is missing or damaged")]
    Damaged(ChainKey),
}
