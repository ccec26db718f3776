//! The format check: bytes or canonical text in, an [`Event`] or the reason why not out.
//!
//! Threats A1 to A8 end here. The same check reads what came from a peer, what a builder wrote
//! and what storage kept, so an [`Event`] always has the same properties.

use std::ops::Range;

use crate::canonical::{self, JsonError, Numbers, elements, members, string};
use crate::id::{self, EventId, MAX_ID_BYTES, OwnedEventId, OwnedRoomId, RoomId, UserId};
use crate::redact::push_member;
use crate::room_version::{EventIdFormat, RoomVersion, RoomVersionRules};

use super::{Event, Fields, hash};

/// The size of a whole event in canonical JSON, signatures included, in bytes.
///
/// See <https://spec.matrix.org/v1.19/client-server-api/#size-limits>.
pub const MAX_EVENT_BYTES: usize = 65_536;

/// The most `prev_events` of a new event.
pub const MAX_PREV_EVENTS: usize = 20;

/// The most `auth_events` of a new event.
pub const MAX_AUTH_EVENTS: usize = 10;

/// Whether the limits on numbers of parents hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limits {
    /// A new event: at most [`MAX_PREV_EVENTS`] and [`MAX_AUTH_EVENTS`].
    New,
    /// Part of a room's past, such as an auth chain: taken as it is (threat A5).
    Past,
}

/// Why an event is none. Says nothing of its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// Not JSON, or not the JSON that the room version asks for.
    #[error(transparent)]
    Json(#[from] JsonError),
    /// Larger than [`MAX_EVENT_BYTES`].
    #[error("larger than 65536 bytes")]
    TooLarge,
    /// `type` or `state_key` longer than 255 bytes.
    #[error("{0} is longer than 255 bytes")]
    TooLong(&'static str),
    /// A field is absent that must be there, or of the wrong kind.
    #[error("{0} is missing or malformed")]
    Field(&'static str),
    /// A field is there that must be absent.
    #[error("{0} must be absent")]
    Surplus(&'static str),
    /// More parents than a new event may have.
    #[error("too many {0}")]
    TooMany(&'static str),
}

/// Reads an event from untrusted bytes.
pub(super) fn parse(
    version: RoomVersion,
    bytes: &[u8],
    limits: Limits,
) -> Result<Event, FormatError> {
    let numbers = if version.rules().strict_canonical_json {
        Numbers::Strict
    } else {
        Numbers::Lax
    };
    let json = without_unsigned(canonical::canonicalize(bytes, numbers)?);
    let event = read(version, json, None)?;
    if limits == Limits::New {
        if event.prev_events().len() > MAX_PREV_EVENTS {
            return Err(FormatError::TooMany("prev_events"));
        }
        if event.auth_events().len() > MAX_AUTH_EVENTS {
            return Err(FormatError::TooMany("auth_events"));
        }
    }
    Ok(event)
}

/// Drops `unsigned`, for which nobody vouches (threat A7).
fn without_unsigned(canonical: String) -> String {
    if members(&canonical).get("unsigned").is_none() {
        return canonical;
    }
    let mut out = String::with_capacity(canonical.len());
    out.push('{');
    for (key, value) in members(&canonical).filter(|(key, _)| *key != "unsigned") {
        push_member(&mut out, key, value);
    }
    out.push('}');
    out
}

/// The fields of an event as they stand, before they are understood.
#[derive(Default)]
struct Texts<'a> {
    auth_events: Option<&'a str>,
    content: Option<(&'a str, usize)>,
    depth: Option<&'a str>,
    event_id: Option<&'a str>,
    hashes: Option<&'a str>,
    origin_server_ts: Option<&'a str>,
    prev_events: Option<&'a str>,
    redacts: Option<&'a str>,
    room_id: Option<&'a str>,
    sender: Option<&'a str>,
    signatures: Option<&'a str>,
    state_key: Option<&'a str>,
    event_type: Option<&'a str>,
}

impl<'a> Texts<'a> {
    fn of(canonical: &'a str) -> Self {
        let mut texts = Self::default();
        let mut rest = members(canonical);
        while let Some((key, value)) = rest.next() {
            match key {
                "auth_events" => texts.auth_events = Some(value),
                "content" => texts.content = Some((value, canonical.len() - rest.remaining())),
                "depth" => texts.depth = Some(value),
                "event_id" => texts.event_id = Some(value),
                "hashes" => texts.hashes = Some(value),
                "origin_server_ts" => texts.origin_server_ts = Some(value),
                "prev_events" => texts.prev_events = Some(value),
                "redacts" => texts.redacts = Some(value),
                "room_id" => texts.room_id = Some(value),
                "sender" => texts.sender = Some(value),
                "signatures" => texts.signatures = Some(value),
                "state_key" => texts.state_key = Some(value),
                "type" => texts.event_type = Some(value),
                _ => {}
            }
        }
        texts
    }
}

/// Where `content` stands in an event's text.
pub(super) fn content_span(canonical: &str) -> Range<usize> {
    let (content, end) = Texts::of(canonical).content.unwrap_or_default();
    end - content.len()..end
}

/// Reads an event from canonical text without `unsigned`. `stored_id` is its id where that is
/// already known.
pub(super) fn read(
    version: RoomVersion,
    json: String,
    stored_id: Option<OwnedEventId>,
) -> Result<Event, FormatError> {
    if !json.starts_with('{') {
        return Err(JsonError::NotAnObject.into());
    }
    if json.len() > MAX_EVENT_BYTES {
        return Err(FormatError::TooLarge);
    }
    let rules = version.rules();
    let texts = Texts::of(&json);

    let event_type = short_string("type", texts.event_type)?;
    let state_key = texts
        .state_key
        .map(|text| short_string("state_key", Some(text)))
        .transpose()?;
    let sender = field("sender", texts.sender.and_then(string), |text| {
        UserId::parse(text).ok()
    })?;
    let depth = field("depth", texts.depth, |text| text.parse().ok())?;
    if depth > rules.max_depth {
        return Err(FormatError::Field("depth"));
    }
    let origin_server_ts = field("origin_server_ts", texts.origin_server_ts, |text| {
        text.parse().ok()
    })?;
    let (content, content_end) = texts
        .content
        .filter(|(text, _)| text.starts_with('{'))
        .ok_or(FormatError::Field("content"))?;
    check_hashes(texts.hashes)?;
    if !texts.signatures.is_some_and(|text| text.starts_with('{')) {
        return Err(FormatError::Field("signatures"));
    }
    let prev_events = references("prev_events", rules, texts.prev_events)?;
    let auth_events = references("auth_events", rules, texts.auth_events)?;
    let event_id = match (stored_id, rules.event_id_format) {
        (Some(event_id), _) => event_id,
        (None, EventIdFormat::Chosen) => chosen_id(texts.event_id)?,
        (None, format) => {
            let hash = hash::reference_hash(rules, &event_type, &json);
            hashed_id(format, &hash).ok_or(FormatError::Field("event_id"))?
        }
    };
    let room_id = room_id(rules, &event_type, &event_id, texts.room_id)?;
    let redacts = (&*event_type == "m.room.redaction")
        .then(|| {
            let text = if rules.redacts_in_content {
                members(content).get("redacts")
            } else {
                texts.redacts
            };
            text.and_then(string).and_then(|text| id::event_id(&text))
        })
        .flatten();

    let content = content_end - content.len()..content_end;
    Ok(Event(
        Fields {
            version,
            event_id,
            room_id,
            sender,
            event_type,
            state_key,
            depth,
            origin_server_ts,
            prev_events,
            auth_events,
            redacts,
            content,
            json: json.into_boxed_str(),
        }
        .into(),
    ))
}

/// The id that a hash gives.
pub(super) fn hashed_id(format: EventIdFormat, hash: &[u8; 32]) -> Option<OwnedEventId> {
    let hash = match format {
        EventIdFormat::Chosen => return None,
        EventIdFormat::Hash => crate::unpadded::encode(hash),
        EventIdFormat::UrlSafeHash => crate::unpadded::encode_url_safe(hash),
    };
    EventId::parse(format!("${hash}")).ok()
}

fn field<T, U>(
    name: &'static str,
    text: Option<T>,
    read: impl FnOnce(T) -> Option<U>,
) -> Result<U, FormatError> {
    text.and_then(read).ok_or(FormatError::Field(name))
}

fn short_string(name: &'static str, text: Option<&str>) -> Result<Box<str>, FormatError> {
    let text = text.and_then(string).ok_or(FormatError::Field(name))?;
    if text.len() > MAX_ID_BYTES {
        Err(FormatError::TooLong(name))
    } else {
        Ok(text.into())
    }
}

fn check_hashes(hashes: Option<&str>) -> Result<(), FormatError> {
    hashes
        .and_then(|hashes| members(hashes).get("sha256"))
        .and_then(string)
        .map(drop)
        .ok_or(FormatError::Field("hashes"))
}

/// `prev_events` or `auth_events`: ids, or in old rooms pairs of id and hashes.
fn references(
    name: &'static str,
    rules: &RoomVersionRules,
    text: Option<&str>,
) -> Result<Vec<OwnedEventId>, FormatError> {
    let error = FormatError::Field(name);
    let array = text.filter(|text| text.starts_with('[')).ok_or(error)?;
    elements(array)
        .map(|element| {
            let text = if rules.references_with_hashes {
                let mut pair = elements(element);
                let id = pair.next();
                let hashes = pair.next().filter(|hashes| hashes.starts_with('{'));
                id.filter(|_| hashes.is_some() && pair.next().is_none())
            } else {
                Some(element)
            };
            text.and_then(string)
                .and_then(|text| id::event_id(&text))
                .ok_or(error)
        })
        .collect()
}

/// `event_id` of room versions 1 and 2, which names the server that must have signed.
fn chosen_id(text: Option<&str>) -> Result<OwnedEventId, FormatError> {
    field("event_id", text.and_then(string), |text| {
        id::event_id(&text).filter(|id| id.server_name().is_some())
    })
}

fn room_id(
    rules: &RoomVersionRules,
    event_type: &str,
    event_id: &EventId,
    text: Option<&str>,
) -> Result<OwnedRoomId, FormatError> {
    let name = "room_id";
    if !rules.room_id_is_create_hash {
        return field(name, text.and_then(string), |text| RoomId::parse(text).ok());
    }
    if event_type == "m.room.create" {
        if text.is_some() {
            return Err(FormatError::Surplus(name));
        }
        return id::room_id_of_create(event_id).ok_or(FormatError::Field(name));
    }
    field(name, text.and_then(string), |text| {
        RoomId::parse(text)
            .ok()
            .filter(|room| id::create_event_of_room(room).is_some())
    })
}
