//! <https://spec.matrix.org/v1.19/client-server-api/#room-event-format>.

use comity_protocol::client_event::{ClientFormat, client_event, stripped_state};
use comity_protocol::event::{Event, Limits, WellFormed};
use comity_protocol::room_version::RoomVersion;
use serde_json::{Value, json};

use crate::support::{builder, examples, message, sign};

fn read(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

#[test]
fn a_message_with_and_without_its_room() {
    let event = message(RoomVersion::V11, &json!({ "body": "b" }));
    let mut expected = json!({
        "content": { "body": "b" },
        "event_id": event.event_id(),
        "origin_server_ts": 1_000_000,
        "room_id": "!r:domain",
        "sender": "@u:domain",
        "type": "m.room.message",
        "unsigned": { "age": 5 },
    });
    let unsigned = Some(r#"{"age":5}"#);
    assert_eq!(
        read(&client_event(&event, ClientFormat::WithRoomId, unsigned)),
        expected
    );
    expected.as_object_mut().unwrap().remove("room_id");
    assert_eq!(
        read(&client_event(&event, ClientFormat::WithoutRoomId, unsigned)),
        expected
    );
    expected.as_object_mut().unwrap().remove("unsigned");
    assert_eq!(
        read(&client_event(&event, ClientFormat::WithoutRoomId, None)),
        expected
    );
}

#[test]
fn a_v12_create_event_has_its_own_hash_as_room() {
    let example = examples()
        .into_iter()
        .find(|example| example.event_type == "m.room.create");
    let event = sign(&builder(RoomVersion::V12, &example.unwrap())).into_event();
    let json = read(&client_event(&event, ClientFormat::WithRoomId, None));
    let room = json["room_id"].as_str().unwrap();
    assert_eq!(
        Some(&room[1..]),
        json["event_id"].as_str().unwrap().strip_prefix('$')
    );
    assert_eq!(json["state_key"], "");
    assert!(read(event.json()).get("room_id").is_none());
}

/// A redaction names its target in both places, whatever its room keeps.
#[test]
fn redactions_of_every_version() {
    for version in RoomVersion::ALL {
        let example = examples()
            .into_iter()
            .find(|example| example.event_type == "m.room.redaction");
        let event = sign(&builder(version, &example.unwrap())).into_event();
        assert_eq!(event.redacts().unwrap(), "$target:domain", "{version}");
        let text = client_event(&event, ClientFormat::WithoutRoomId, None);
        assert_eq!(text.matches("\"redacts\":").count(), 2, "{version}");
        let json = read(&text);
        assert_eq!(json["redacts"], "$target:domain", "{version}");
        // Version 10 and older: what a sender wrote into `content` doesn't count.
        assert_eq!(json["content"]["redacts"], "$target:domain", "{version}");
        assert_eq!(json["content"]["reason"], "Spamming", "{version}");

        let redacted = event.redact();
        let kept = version.rules().redacts_in_content;
        assert_eq!(redacted.redacts().is_some(), kept, "{version}");
        let json = read(&client_event(&redacted, ClientFormat::WithoutRoomId, None));
        assert_eq!(json.get("redacts").is_some(), kept, "{version}");
    }
}

/// Threat A7: nothing beside `content` reaches clients but what the spec names.
#[test]
fn a7_forged_fields_stay_out() {
    let event = message(RoomVersion::V11, &json!({}));
    let mut forged = read(event.json());
    forged["event_id"] = json!("$forged");
    forged["redacts"] = json!("$forged");
    forged["age"] = json!(1);
    forged["prev_content"] = json!({});
    forged["unsigned"] =
        json!({ "redacted_because": {}, "m.relations": {}, "transaction_id": "t" });
    let bytes = serde_json::to_vec(&forged).unwrap();
    let formed = WellFormed::parse(RoomVersion::V11, &bytes, Limits::New).unwrap();
    let event: &Event = formed.event();
    assert!(!event.json().contains("unsigned"));
    let json = read(&client_event(event, ClientFormat::WithoutRoomId, None));
    let keys: Vec<_> = json.as_object().unwrap().keys().cloned().collect();
    assert_eq!(
        keys,
        ["content", "event_id", "origin_server_ts", "sender", "type"]
    );
    assert_eq!(json["event_id"], event.event_id().as_str());
    assert_ne!(json["event_id"], "$forged");
}

#[test]
fn stripped_state_is_four_fields() {
    let example = examples()
        .into_iter()
        .find(|example| example.event_type == "m.room.name");
    let event = sign(&builder(RoomVersion::V12, &example.unwrap())).into_event();
    let expected = json!({
        "content": { "name": "The room name" },
        "sender": "@u:domain",
        "state_key": "",
        "type": "m.room.name",
    });
    assert_eq!(read(&stripped_state(&event)), expected);
}
