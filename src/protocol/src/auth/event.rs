//! What the rules and state resolution read of an event, and nothing more.

use std::fmt::Debug;
use std::hash::Hash;

use crate::event::Event;
use crate::id::{EventId, OwnedEventId, RoomId, UserId};

/// An event as the authorisation rules and state resolution see it.
///
/// Generic over how the caller names events within one room: the room engine by its own numbers,
/// tests by event ids. The order of `Id` decides nothing: where the spec breaks ties, it is by
/// [`event_id`](Self::event_id).
pub trait AuthEvent {
    /// The caller's name for an event of the room.
    type Id: Clone + Debug + Eq + Hash + Ord;

    /// The caller's name of this event.
    fn id(&self) -> Self::Id;
    /// The event's id as the room version defines it.
    fn event_id(&self) -> &EventId;
    /// The room it belongs to; of a create event from room version 12 the one its own id names.
    fn room_id(&self) -> &RoomId;
    /// `type`
    fn event_type(&self) -> &str;
    /// `state_key`; present on state events alone.
    fn state_key(&self) -> Option<&str>;
    /// `sender`
    fn sender(&self) -> &UserId;
    /// `origin_server_ts` in milliseconds since the Unix epoch.
    fn origin_server_ts(&self) -> i64;
    /// `depth`
    fn depth(&self) -> u64;
    /// `prev_events`
    fn prev_events(&self) -> &[Self::Id];
    /// `auth_events`
    fn auth_events(&self) -> &[Self::Id];
    /// The event this redaction names, wherever the room version keeps it.
    fn redacts(&self) -> Option<&EventId>;
    /// The event's `content`, as JSON.
    fn content(&self) -> &str;
}

impl AuthEvent for Event {
    type Id = OwnedEventId;

    fn id(&self) -> OwnedEventId {
        self.event_id().to_owned()
    }
    fn event_id(&self) -> &EventId {
        self.event_id()
    }
    fn room_id(&self) -> &RoomId {
        self.room_id()
    }
    fn event_type(&self) -> &str {
        self.event_type()
    }
    fn state_key(&self) -> Option<&str> {
        self.state_key()
    }
    fn sender(&self) -> &UserId {
        self.sender()
    }
    fn origin_server_ts(&self) -> i64 {
        self.origin_server_ts()
    }
    fn depth(&self) -> u64 {
        self.depth()
    }
    fn prev_events(&self) -> &[OwnedEventId] {
        self.prev_events()
    }
    fn auth_events(&self) -> &[OwnedEventId] {
        self.auth_events()
    }
    fn redacts(&self) -> Option<&EventId> {
        self.redacts()
    }
    fn content(&self) -> &str {
        self.content_text()
    }
}
