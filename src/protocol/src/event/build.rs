//! New events of our own: from the sender's intent to an event that only lacks its signature.
//!
//! The fields are written in the order of canonical JSON, so the text that is hashed, signed and
//! kept comes straight out of the serialiser.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::value::RawValue;

use crate::canonical::{JsonError, MAX_DEPTH, Numbers, Object, canonicalize_within};
use crate::id::{EventId, OwnedEventId, OwnedRoomId, OwnedUserId, RoomId, UserId};
use crate::room_version::{EventIdFormat, RoomVersion};
use crate::unpadded;

use super::{Event, FormatError, MAX_AUTH_EVENTS, MAX_PREV_EVENTS, format, hash};

/// A reference to an event from `prev_events` or `auth_events`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    event_id: OwnedEventId,
    /// Asked for by room versions 1 and 2 only; later ids are this hash.
    hash: Option<[u8; 32]>,
}

impl Reference {
    /// A reference by id alone, for rooms of version 3 and later.
    pub fn by_id(event_id: OwnedEventId) -> Self {
        Self {
            event_id,
            hash: None,
        }
    }

    /// A reference to an event whose reference hash another server tells, for rooms of version 1 and
    /// 2, where it is part of the reference.
    pub fn with_hash(event_id: OwnedEventId, hash: [u8; 32]) -> Self {
        Self {
            event_id,
            hash: Some(hash),
        }
    }

    /// A reference as it stands in `prev_events` or `auth_events` of an event of that version.
    pub fn read(version: RoomVersion, json: &str) -> Option<Self> {
        #[derive(serde::Deserialize)]
        struct Written {
            sha256: String,
        }
        if !version.rules().references_with_hashes {
            let id: String = serde_json::from_str(json).ok()?;
            return Some(Self::by_id(crate::id::event_id(&id)?));
        }
        let (id, hashes): (String, Written) = serde_json::from_str(json).ok()?;
        let hash = unpadded::decode(&hashes.sha256)?;
        Some(Self {
            event_id: crate::id::event_id(&id)?,
            hash: Some(hash.try_into().ok()?),
        })
    }

    /// A reference to an event at hand, for rooms of any version.
    pub fn to(event: &Event) -> Self {
        let needs_hash = event.rules().references_with_hashes;
        Self {
            event_id: event.event_id().to_owned(),
            hash: needs_hash.then(|| event.reference_hash()),
        }
    }
}

/// What a user of ours wants to say, with its place in the room.
#[derive(Clone, Debug)]
pub struct EventBuilder {
    /// The room's version.
    pub version: RoomVersion,
    /// The room; `None` for the create event of a version 12 room and for no other.
    pub room_id: Option<OwnedRoomId>,
    /// Who says it.
    pub sender: OwnedUserId,
    /// What kind of event.
    pub event_type: String,
    /// The state key of a state event.
    pub state_key: Option<String>,
    /// An object; it need not be canonical.
    pub content: Box<RawValue>,
    /// Of an `m.room.redaction`, its target; put where the room version wants it.
    pub redacts: Option<OwnedEventId>,
    /// Parents in the graph.
    pub prev_events: Vec<Reference>,
    /// The state that allows it.
    pub auth_events: Vec<Reference>,
    /// One more than the greatest depth of the parents, at most the version's maximum.
    pub depth: u64,
    /// Now, in milliseconds since 1970.
    pub origin_server_ts: i64,
    /// In room versions 1 and 2 the part of the event id before the colon, never used before on
    /// this server; otherwise not looked at.
    pub opaque_id: String,
}

/// Why an event can't be built.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BuildError {
    /// What was asked for is no event of this room version.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// A room version 1 or 2 needs references with hashes, by [`Reference::to`].
    #[error("a reference without a hash in a room version that needs it")]
    ReferenceHash,
    /// The event isn't ours to sign: its sender is of another server.
    #[error("the sender is not a user of the signing server")]
    NotOurs,
}

impl From<JsonError> for BuildError {
    fn from(error: JsonError) -> Self {
        Self::Format(error.into())
    }
}

/// An event of ours with its hash and id, to be authorised and then signed by
/// [`crate::sign::SigningKey::sign_event`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unsigned(Event);

impl Unsigned {
    /// The event; it carries no signature yet, its id won't change.
    pub fn event(&self) -> &Event {
        &self.0
    }

    pub(crate) fn into_event(self) -> Event {
        self.0
    }
}

/// An event's fields in canonical order.
#[derive(Serialize)]
struct Pdu<'a> {
    auth_events: Vec<PduReference<'a>>,
    content: &'a RawValue,
    depth: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    event_id: Option<&'a str>,
    hashes: Hashes,
    origin_server_ts: i64,
    prev_events: Vec<PduReference<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    redacts: Option<&'a EventId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    room_id: Option<&'a RoomId>,
    sender: &'a UserId,
    signatures: BTreeMap<&'a str, &'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    state_key: Option<&'a str>,
    #[serde(rename = "type")]
    event_type: &'a str,
}

#[derive(Serialize)]
#[serde(untagged)]
enum PduReference<'a> {
    Id(&'a EventId),
    WithHash(&'a EventId, Hashes),
}

#[derive(Serialize)]
struct Hashes {
    sha256: String,
}

impl EventBuilder {
    /// Writes the event, hashes it and gives it its id.
    ///
    /// # Errors
    /// What was asked for is no event of the room version: too large, not canonical, too many
    /// parents. [`FormatError`] tells which.
    pub fn build(&self) -> Result<Unsigned, BuildError> {
        if self.prev_events.len() > MAX_PREV_EVENTS {
            return Err(FormatError::TooMany("prev_events").into());
        }
        if self.auth_events.len() > MAX_AUTH_EVENTS {
            return Err(FormatError::TooMany("auth_events").into());
        }
        let rules = self.version.rules();
        let content = self.canonical_content()?;
        let event_id = (rules.event_id_format == EventIdFormat::Chosen)
            .then(|| format!("${}:{}", self.opaque_id, self.sender.server_name()));
        let mut pdu = Pdu {
            auth_events: self.references(&self.auth_events)?,
            content: &content,
            depth: self.depth,
            event_id: event_id.as_deref(),
            hashes: Hashes {
                sha256: String::new(),
            },
            origin_server_ts: self.origin_server_ts,
            prev_events: self.references(&self.prev_events)?,
            redacts: self
                .redacts
                .as_deref()
                .filter(|_| !rules.redacts_in_content),
            room_id: self.room_id.as_deref(),
            sender: &self.sender,
            signatures: BTreeMap::new(),
            state_key: self.state_key.as_deref(),
            event_type: &self.event_type,
        };
        // The hash covers everything but itself, so the first text may carry an empty one.
        let hash = hash::content_hash(&write(&pdu)?);
        pdu.hashes.sha256 = unpadded::encode(&hash);
        Ok(Unsigned(format::read(self.version, write(&pdu)?, None)?))
    }

    fn canonical_content(&self) -> Result<Box<RawValue>, BuildError> {
        let rules = self.version.rules();
        let numbers = if rules.strict_canonical_json {
            Numbers::Strict
        } else {
            Numbers::Lax
        };
        // The event around it is a level of its own.
        let content = self.content.get().as_bytes();
        let mut content = canonicalize_within(content, numbers, MAX_DEPTH - 1)?;
        if let Some(target) = self.redacts.as_deref().filter(|_| rules.redacts_in_content) {
            let mut object = Object::parse(&content)?;
            object.set("redacts", target)?;
            content = object.write()?;
        }
        RawValue::from_string(content).map_err(|_| JsonError::Unwritable.into())
    }

    fn references<'a>(&self, to: &'a [Reference]) -> Result<Vec<PduReference<'a>>, BuildError> {
        let with_hashes = self.version.rules().references_with_hashes;
        to.iter()
            .map(|Reference { event_id, hash }| {
                if !with_hashes {
                    return Ok(PduReference::Id(event_id));
                }
                let hash = hash.ok_or(BuildError::ReferenceHash)?;
                Ok(PduReference::WithHash(
                    event_id,
                    Hashes {
                        sha256: unpadded::encode(&hash),
                    },
                ))
            })
            .collect()
    }
}

fn write(pdu: &Pdu<'_>) -> Result<String, JsonError> {
    serde_json::to_string(pdu).map_err(|_| JsonError::Unwritable)
}
