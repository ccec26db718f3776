//! What a room is, and where it stands.

use comity_protocol::room_version::RoomVersion;
use comity_storage::postcard_value;
use serde::{Deserialize, Serialize};

use super::{InRoom, RoomAt, RoomHash, RoomNum, RoomStateKey, table};
use crate::state::AnyRoot;

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
    /// No user of this server is in it any more by what is known here, and others are.
    Left,
}

/// What is taken in of a room that was left: so many events, with those that they name.
const HEARD_AFTER: u32 = 2_000;

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
    /// `next_num` when our last user went, while the room is left.
    pub left_at: u32,
    /// When its last live event was placed ([`crate::Rooms::stamp`]): rooms are listed by it.
    pub active: u64,
    /// When the last of them was placed that moves a room up in a list (a message, say); 0 if none was.
    pub bumped: u64,
}

impl Head {
    /// Whether what others send of the room is taken in. Of a room that was left it is too, within a limit: they send it to whom they
    /// count in, and it may show that a user of ours is in the room after all. Of a room that was left before its members had come
    /// there is nothing to judge it by.
    #[must_use]
    pub fn is_heard(&self) -> bool {
        let is_few = self.next_num.saturating_sub(self.left_at) < HEARD_AFTER;
        let is_whole = AnyRoot::decode(&self.root).is_ok_and(|root| !root.is_partial());
        self.mode.takes_part() || (self.mode == Mode::Left && is_whole && is_few)
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Law 11: of a room that was left so much is taken in and no more; of one whose members had not come nothing is.
    #[test]
    fn a_room_left_is_heard_within_limits() {
        let heard = |mode, root: AnyRoot, left_at, next_num| {
            let head = Head {
                mode,
                seq: 1,
                depth: 1,
                extremities: Vec::new(),
                root: root.encode(),
                next_num,
                next_member: 0,
                next_other: 0,
                left_at,
                active: 0,
                bumped: 0,
            };
            head.is_heard()
        };
        let whole = AnyRoot::EMPTY;
        assert!(heard(Mode::Joined, whole, 0, 100_000));
        assert!(heard(Mode::Left, whole, 5_000, 5_100));
        assert!(!heard(Mode::Left, whole, 5_000, 7_000));
        assert!(!heard(Mode::Left, whole.as_partial(), 5_000, 5_100));
        assert!(!heard(Mode::Stub, whole, 0, 1));
    }
}
