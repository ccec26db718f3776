//! State resolution: one state from the states several forks of a room arrived at
//! ([v1](https://spec.matrix.org/v1.19/rooms/v1/#state-resolution),
//! [v2](https://spec.matrix.org/v1.19/rooms/v2/#state-resolution),
//! [v2.1](https://spec.matrix.org/v1.19/rooms/v12/#state-resolution)).
//!
//! Forks share nearly all of their state, so everything here works on differences: each fork is
//! what it changed against a common base, and the answer is what the resolved state changes
//! against the same base. The base itself is only asked for single entries, and the room's auth
//! graph only [two questions](AuthGraph), so that the cost follows the conflict and not the room.
//!
//! Nothing is fetched: an event that is needed and isn't at hand ends the resolution with its id,
//! and the caller loads it and resolves again. Where the spec's text leaves a choice, or the
//! servers in the field agree on another reading, the place says so.

mod checks;
mod conflict;
mod graph;
mod order;
mod v1;
mod v2;

use std::collections::{BTreeMap, BTreeSet};

use crate::auth::AuthEvent;
use crate::room_version::{RoomVersionRules, StateResolution};

pub use conflict::Conflict;
pub use graph::{AuthGraph, MemoryGraph};

/// Event type and state key.
pub type StateKey = (String, String);

/// What a state has otherwise than the base: an entry, or none where the base has one.
pub type StateDifference<Id> = BTreeMap<StateKey, Option<Id>>;

/// The room's events and base state, as far as they are at hand.
pub trait Events {
    /// The events.
    type Event: AuthEvent;

    /// An event of the room; none if it isn't at hand.
    fn event(&self, id: &IdOf<Self>) -> Option<&Self::Event>;

    /// Whether an event was rejected on receipt.
    fn is_rejected(&self, id: &IdOf<Self>) -> bool;

    /// The base state's entry.
    fn base(&self, event_type: &str, state_key: &str) -> Option<IdOf<Self>>;
}

/// How a room's events are named by [`Events`].
pub type IdOf<S> = <<S as Events>::Event as AuthEvent>::Id;

/// Events that are needed and not at hand.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{} events needed for state resolution are not at hand", .0.len())]
pub struct Missing<Id: std::fmt::Debug>(pub BTreeSet<Id>);

/// Resolves the states of a room's forks, each given by its difference from the base.
///
/// The answer is the resolved state's difference from the base. It does not depend on the order of
/// the forks, nor on the order of `Id`s.
///
/// # Errors
/// Events that have to be loaded first: those in conflict, and what they are authorised by.
pub fn resolve<S: Events>(
    rules: &RoomVersionRules,
    room: &S,
    graph: &impl AuthGraph<IdOf<S>>,
    forks: &[StateDifference<IdOf<S>>],
) -> Result<StateDifference<IdOf<S>>, Missing<IdOf<S>>> {
    let conflict = Conflict::between(forks, |key| room.base(&key.0, &key.1));
    match rules.state_resolution {
        StateResolution::V1 => v1::resolve(rules, room, conflict),
        StateResolution::V2 => v2::resolve(rules, room, graph, conflict, v2::Start::Unconflicted),
        StateResolution::V2_1 => v2::resolve(rules, room, graph, conflict, v2::Start::Empty),
    }
}
