//! A key, a key ring, and events to try things on.

use comity_protocol::event::{Event, EventBuilder, Reference, Signed};
use comity_protocol::id::{EventId, RoomId, ServerName, UserId};
use comity_protocol::room_version::{EventIdFormat, RoomVersion};
use comity_protocol::sign::{KeyRing, KeyValidity, PublishedKey, SigningKey};
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Value, json};

/// The key of the spec's test vectors, of the server `domain`.
pub fn key() -> SigningKey {
    SigningKey::from_file("ed25519 1 YJDBA9Xnr2sVqXD9Vj7XVUnmFZcZrlw8Md7kMW+3XA1").unwrap()
}

/// Knows [`key`] of `domain`, and nobody else's.
pub struct Ring(pub KeyValidity);

impl Default for Ring {
    fn default() -> Self {
        Self(KeyValidity::Until(i64::MAX))
    }
}

impl KeyRing for Ring {
    fn key(&self, server: &ServerName, key_id: &str) -> Option<PublishedKey> {
        (server == "domain" && key_id == "ed25519:1").then(|| PublishedKey {
            key: key().verify_key(),
            validity: self.0,
        })
    }
}

/// One line of `data/events.jsonl`.
#[derive(serde::Deserialize)]
pub struct Example {
    #[serde(rename = "type")]
    pub event_type: String,
    pub state_key: Option<String>,
    pub content: Box<RawValue>,
}

/// The spec's examples of room events, and events with all that redaction may keep.
pub fn examples() -> Vec<Example> {
    let lines = include_str!("../data/events.jsonl").lines();
    lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// A builder with all that an event needs beside type and content.
pub fn builder(version: RoomVersion, example: &Example) -> EventBuilder {
    let rules = version.rules();
    let is_create = example.event_type == "m.room.create";
    let room_id = if rules.room_id_is_create_hash {
        (!is_create).then_some("!Nhcu5BS-UMnFX7hBVfVSoXiD7OgH6iRT-xyIuqDnpYQ")
    } else {
        Some("!r:domain")
    };
    let parent = if rules.references_with_hashes {
        Reference::to(parent(version).event())
    } else {
        Reference::by_id(EventId::parse("$Rqnc-F-dvnEYJTyHq_iKxU2bZ1CI92-kuZq3a5lr5Zg").unwrap())
    };
    let redacts = (example.event_type == "m.room.redaction")
        .then(|| EventId::parse("$target:domain").unwrap());
    EventBuilder {
        version,
        room_id: room_id.map(|id| RoomId::parse(id).unwrap()),
        sender: UserId::parse("@u:domain").unwrap(),
        event_type: example.event_type.clone(),
        state_key: example.state_key.clone(),
        content: example.content.clone(),
        redacts,
        prev_events: vec![parent.clone()],
        auth_events: vec![parent.clone(), parent],
        depth: 7,
        origin_server_ts: 1_000_000,
        opaque_id: "e".to_owned(),
    }
}

fn parent(version: RoomVersion) -> Signed {
    assert_eq!(version.rules().event_id_format, EventIdFormat::Chosen);
    let content = to_raw_value(&json!({})).unwrap();
    let example = Example {
        event_type: "X".to_owned(),
        state_key: None,
        content,
    };
    let room_id = Some(RoomId::parse("!r:domain").unwrap());
    let parentless = EventBuilder {
        version,
        room_id,
        sender: UserId::parse("@u:domain").unwrap(),
        event_type: example.event_type,
        state_key: None,
        content: example.content,
        redacts: None,
        prev_events: vec![],
        auth_events: vec![],
        depth: 1,
        origin_server_ts: 1,
        opaque_id: "p".to_owned(),
    };
    sign(&parentless)
}

/// Built and signed by `domain`.
pub fn sign(builder: &EventBuilder) -> Signed {
    let server = ServerName::parse("domain").unwrap();
    key().sign_event(&server, builder.build().unwrap()).unwrap()
}

/// A signed message of this content.
pub fn message(version: RoomVersion, content: &Value) -> Event {
    let example = Example {
        event_type: "m.room.message".to_owned(),
        state_key: None,
        content: to_raw_value(content).unwrap(),
    };
    sign(&builder(version, &example)).into_event()
}
