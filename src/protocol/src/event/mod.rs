//! Events as servers exchange them (PDUs): immutable, kept as their canonical JSON.
//!
//! An [`Event`] is canonical text plus the few fields that every part of the server asks for,
//! read once. It is shared by reference count and never changed: redaction and signing make new
//! ones.
//!
//! The type tells how much of what came in has been checked (law 8 of the architecture):
//! bytes → [`WellFormed`] → [`Signed`] → what the room engine decides. There is no other way
//! from outside bytes to an [`Event`] than through [`WellFormed::parse`]; events of our own come
//! from an [`EventBuilder`].
//!
//! `unsigned` is not part of an [`Event`]: nobody vouches for it, so what arrives in it is
//! dropped (threat A7), and ours is added when the event is served.
//!
//! See <https://spec.matrix.org/v1.19/server-server-api/#pdus> and the event format of each room
//! version.

mod build;
mod format;
mod hash;

pub use build::{BuildError, EventBuilder, Reference, Unsigned};
pub use format::{FormatError, Limits, MAX_AUTH_EVENTS, MAX_EVENT_BYTES, MAX_PREV_EVENTS};

use std::ops::Range;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::canonical::{self, members};
use crate::id::{EventId, OwnedEventId, OwnedRoomId, OwnedUserId, RoomId, UserId};
use crate::redact::redact;
use crate::room_version::{RoomVersion, RoomVersionRules};

/// An event of a room. Cloning shares it.
#[derive(Clone)]
pub struct Event(Arc<Fields>);

/// What is read from an event once.
#[derive(Clone)]
struct Fields {
    version: RoomVersion,
    json: Box<str>,
    event_id: OwnedEventId,
    room_id: OwnedRoomId,
    sender: OwnedUserId,
    event_type: Box<str>,
    state_key: Option<Box<str>>,
    depth: u64,
    origin_server_ts: i64,
    prev_events: Vec<OwnedEventId>,
    auth_events: Vec<OwnedEventId>,
    redacts: Option<OwnedEventId>,
    /// Where `content` stands in `json`.
    content: Range<usize>,
}

impl Event {
    /// An event that we stored: its id and its canonical JSON as [`Event::json`] gave it.
    ///
    /// Hash and signatures aren't looked at again; they were when it came in, and a redacted
    /// event's hash can't match any more.
    ///
    /// # Errors
    /// The text is no event: what was stored is damaged.
    pub fn from_stored(
        version: RoomVersion,
        event_id: OwnedEventId,
        json: String,
    ) -> Result<Self, FormatError> {
        format::read(version, json, Some(event_id))
    }

    /// The version of the event's room.
    pub fn version(&self) -> RoomVersion {
        self.0.version
    }

    /// The rules of the event's room.
    pub fn rules(&self) -> &'static RoomVersionRules {
        self.0.version.rules()
    }

    /// The event's canonical JSON, without `unsigned`: what federation sends and storage keeps.
    pub fn json(&self) -> &str {
        &self.0.json
    }

    /// The event's id: from room version 3 on its reference hash, before that its `event_id`.
    pub fn event_id(&self) -> &EventId {
        &self.0.event_id
    }

    /// The room's id; of a version 12 create event, which carries none, its own hash.
    pub fn room_id(&self) -> &RoomId {
        &self.0.room_id
    }

    /// Who sent it.
    pub fn sender(&self) -> &UserId {
        &self.0.sender
    }

    /// Its `type`, at most 255 bytes.
    pub fn event_type(&self) -> &str {
        &self.0.event_type
    }

    /// Its `state_key`, at most 255 bytes; events without one are no state.
    pub fn state_key(&self) -> Option<&str> {
        self.0.state_key.as_deref()
    }

    /// Whether it is the state event of this type and state key.
    pub fn is_state(&self, event_type: &str, state_key: &str) -> bool {
        self.event_type() == event_type && self.state_key() == Some(state_key)
    }

    /// Its `depth`, at most the version's maximum.
    pub fn depth(&self) -> u64 {
        self.0.depth
    }

    /// When its server says it was made, in milliseconds since 1970. Any integer: a forged one
    /// is still an event.
    pub fn origin_server_ts(&self) -> i64 {
        self.0.origin_server_ts
    }

    /// Its parents in the room's graph.
    pub fn prev_events(&self) -> &[OwnedEventId] {
        &self.0.prev_events
    }

    /// The state that its sender says allows it.
    pub fn auth_events(&self) -> &[OwnedEventId] {
        &self.0.auth_events
    }

    /// Of an `m.room.redaction`, the event to be redacted, from where the room version keeps it.
    pub fn redacts(&self) -> Option<&EventId> {
        self.0.redacts.as_deref()
    }

    /// Its `content`, an object, in canonical JSON.
    pub fn content(&self) -> &RawValue {
        serde_json::from_str(self.content_text()).unwrap_or(RawValue::NULL)
    }

    /// Its `content` read as `T`; what `T` borrows, it borrows from the event.
    ///
    /// # Errors
    /// The content has another shape. Its sender is free in that: an error is no surprise.
    pub fn content_as<'a, T: Deserialize<'a>>(&'a self) -> serde_json::Result<T> {
        serde_json::from_str(self.content_text())
    }

    /// The canonical text of one key of `content` (a key that needs no escapes).
    pub fn content_member(&self, key: &str) -> Option<&str> {
        members(self.content_text()).get(key)
    }

    /// The string at one key of `content`; `None` if there is none or it is something else.
    pub fn content_string(&self, key: &str) -> Option<std::borrow::Cow<'_, str>> {
        canonical::string(self.content_member(key)?)
    }

    pub(crate) fn content_text(&self) -> &str {
        self.0.json.get(self.0.content.clone()).unwrap_or("{}")
    }

    /// The event as it stands after it was redacted. Its id stays.
    pub fn redact(&self) -> Self {
        let json = redact(&self.rules().redaction, self.event_type(), self.json());
        // Whatever else the event is read for survives redaction.
        let redacts = self
            .0
            .redacts
            .clone()
            .filter(|_| self.rules().redacts_in_content);
        let content = format::content_span(&json);
        let json = json.into_boxed_str();
        Self(Arc::new(Fields {
            json,
            redacts,
            content,
            ..Fields::clone(&self.0)
        }))
    }

    /// The hash that names the event: over what redaction leaves, without signatures.
    pub fn reference_hash(&self) -> [u8; 32] {
        hash::reference_hash(self.rules(), self.event_type(), self.json())
    }

    /// Whether `hashes.sha256` is the hash of the event as it is here. A redacted copy's isn't.
    pub fn content_hash_matches(&self) -> bool {
        let expected = members(self.json())
            .get("hashes")
            .and_then(|hashes| members(hashes).get("sha256"))
            .and_then(canonical::string)
            .and_then(|hash| crate::unpadded::decode(&hash));
        expected.is_some_and(|expected| expected == hash::content_hash(self.json()))
    }
}

impl PartialEq for Event {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
            || (self.event_id(), self.version(), self.json())
                == (other.event_id(), other.version(), other.json())
    }
}

impl Eq for Event {}

/// Names the event and says nothing of its content, so that it may stand in a log.
impl std::fmt::Debug for Event {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Event")
            .field("event_id", &self.event_id())
            .field("room_id", &self.room_id())
            .field("type", &self.event_type())
            .finish_non_exhaustive()
    }
}

/// An event whose format is right; nothing is known yet of who made it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WellFormed(Event);

impl WellFormed {
    /// Reads an event from outside: canonical JSON, format, sizes, and its id.
    ///
    /// # Errors
    /// The bytes are no event of this room version and are to be dropped.
    pub fn parse(version: RoomVersion, bytes: &[u8], limits: Limits) -> Result<Self, FormatError> {
        format::parse(version, bytes, limits).map(Self)
    }

    /// The event.
    pub fn event(&self) -> &Event {
        &self.0
    }
}

/// An event whose format is right and which the servers that must sign it have signed. If its
/// content hash was wrong, it has been redacted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signed(Event);

impl Signed {
    /// Only [`crate::sign`] says so.
    pub(crate) fn new(event: Event) -> Self {
        Self(event)
    }

    /// The event.
    pub fn event(&self) -> &Event {
        &self.0
    }

    /// The event, by value.
    pub fn into_event(self) -> Event {
        self.0
    }
}
