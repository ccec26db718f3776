//! What a room is, and where it stands.

use comity_protocol::room_version::RoomVersion;
use comity_storage::postcard_value;
use serde::{Deserialize, Serialize};

use super::{InRoom, RoomAt, RoomHash, RoomNum, RoomStateKey, table};

/// What never changes of a room.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Info {
    /// Its full id.
    pub room_id: String,
    /// Its version.
    pub version: RoomVersion,
}

/// How this server stands to a room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mode {
    /// Being entered: nobody sees it.
    Stub,
    /// Joined, the state not complete yet.
    Partial,
    /// Joined.
    Joined,
    /// No user of this server is in it any more, and others are.
    Left,
}

impl Mode {
    /// Whether users of this server are in the room, so that its events are news here.
    #[must_use]
    pub const fn takes_part(self) -> bool {
        matches!(self, Self::Partial | Self::Joined)
    }
}

/// A room at a position: the newest row not beyond a reader's bound is the room for that reader.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// How we stand to it.
    pub mode: Mode,
    /// The last live event's sequence number: gapless, from 1.
    pub seq: i64,
    /// The greatest depth of an extremity.
    pub depth: u64,
    /// The forward extremities, by number.
    pub extremities: Vec<u32>,
    /// The room's current state ([`crate::state::AnyRoot`], encoded).
    pub root: Vec<u8>,
    /// The next event number.
    pub next_num: u32,
    /// The next membership key's index.
    pub next_member: u32,
    /// The next other state key's index.
    pub next_other: u32,
}

/// A state key by its number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateKey {
    /// The event type.
    pub event_type: String,
    /// The state key.
    pub state_key: String,
}

/// The number of a state key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyNum(pub u32);

postcard_value!(Info, Head, StateKey, KeyNum);

table!(
    /// `room` → [`Info`].
    Infos, "room", b"Ri", Hot, true, InRoom => Info);
table!(
    /// `room, position` → [`Head`]: one row a root, and the latest.
    Heads, "room head", b"Rm", Hot, true, RoomAt => Head);
table!(
    /// `room, type, state key` → its number.
    KeyNums, "state key number", b"Rk", Index, false, RoomStateKey => KeyNum);
table!(
    /// `room, number` → the state key.
    StateKeys, "state key", b"RK", Index, false, RoomNum => StateKey);
table!(
    /// `room, hash` → a state node.
    Nodes, "state node", b"Rn", Node, false, RoomHash => bytes::Bytes);
