//! The small numbers a room gives to long names: events and state keys are named once and then
//! spoken of by a `u32`, so that headers, links and state nodes stay small.

/// An event's number, local to its room; given to every event id the room has heard of, even by
/// name only. Numbers say nothing of order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventNum(pub u32);

/// A state key's number, local to its room: one `(type, state_key)` pair, interned.
///
/// The top bit tells members (`m.room.member`) from the rest, so the number alone says in which
/// half of the state its entry lives; below it the room counts each half from 0. Ordered, the rest
/// comes before the members.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StateKeyNum(pub u32);

/// The bit of a [`StateKeyNum`] that marks a membership.
const MEMBER: u32 = 1 << 31;

impl StateKeyNum {
    /// The number of the `index`th membership the room interned (31 bits; higher ones are cut).
    #[must_use]
    pub const fn member(index: u32) -> Self {
        Self(index | MEMBER)
    }

    /// The number of the `index`th state key that is no membership (31 bits; higher ones are cut).
    #[must_use]
    pub const fn other(index: u32) -> Self {
        Self(index & !MEMBER)
    }

    /// Whether this is the key of an `m.room.member` event.
    #[must_use]
    pub const fn is_member(self) -> bool {
        self.0 & MEMBER != 0
    }

    /// The count within its half, 31 bits.
    #[must_use]
    pub const fn index(self) -> u32 {
        self.0 & !MEMBER
    }
}
