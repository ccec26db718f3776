//! What a room has while its state is partial (`docs/data-model.md`, State).

use comity_storage::postcard_value;
use serde::{Deserialize, Serialize};

use super::{InRoom, RoomNum, table};

/// A join that is to be completed: its row is there as long as the room is partial.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Partial {
    /// The join by which the room was entered.
    pub join: u32,
    /// The events that it follows: the state after them is what is missing.
    pub prev: Vec<String>,
    /// The servers said to be in the room, the one that let us in first.
    pub servers: Vec<String>,
    /// Of the state before it what isn't memberships and couldn't be checked yet.
    pub lacks: Vec<String>,
}

/// An event that was judged by a partial state, to be judged again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Provisional {
    /// The state that stood in place of missing parents ([`crate::state::AnyRoot`], encoded); empty where
    /// none was missing.
    pub given: Vec<u8>,
}

postcard_value!(Partial, Provisional);

table!(
    /// `room` → [`Partial`].
    Partials, "partial state", b"RU", Hot, true, InRoom => Partial);
table!(
    /// `room, number` → [`Provisional`].
    Provisionals, "provisional event", b"RN", Index, false, RoomNum => Provisional);
