//! Every event in an answer against the schema of its type.
//!
//! An event is found by its shape: an object with a `type` and a `content`. Which of the envelope's other fields
//! must be there depends on the place and is the operation's schema's to say; here they are filled in where they
//! are absent, so that one schema a type serves timelines, stripped state, ephemeral events and account data.

use serde_json::{Map, Value, json};

use super::{Spec, errors};

/// Types of which a redaction leaves what their schemas ask for.
///
/// <https://spec.matrix.org/v1.19/rooms/v12/#redactions>
const KEEP: [&str; 4] = [
    "m.room.create",
    "m.room.history_visibility",
    "m.room.join_rules",
    "m.room.member",
];

/// Adds what is wrong with the events in `value`.
pub(super) fn collect(spec: &Spec, value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| collect(spec, item, found)),
        Value::Object(object) => {
            let kind = object.get("type").and_then(Value::as_str);
            let is_event = object.get("content").is_some_and(Value::is_object);
            if let Some(kind) = kind.filter(|_| is_event) {
                check(spec, kind, object, found);
            }
            for (key, value) in object {
                if !(is_event && key == "content") {
                    collect(spec, value, found);
                }
            }
        }
        _ => {}
    }
}

fn check(spec: &Spec, kind: &str, event: &Map<String, Value>, found: &mut Vec<String>) {
    let schema = schema_of(spec, kind, event);
    for violation in errors(&schema, &with_envelope(event)) {
        let id = event
            .get("event_id")
            .and_then(Value::as_str)
            .unwrap_or_default();
        found.push(format!("event {kind} {id} {violation}"));
    }
}

fn schema_of(
    spec: &Spec,
    kind: &str,
    event: &Map<String, Value>,
) -> std::sync::Arc<jsonschema::Validator> {
    let file = |name: &str| spec.schema_file(&format!("event-schemas/schema/{name}.yaml"));
    let redacted = event
        .get("unsigned")
        .is_some_and(|unsigned| unsigned.get("redacted_because").is_some());
    let by_type = || {
        let content = event.get("content")?;
        let variant = content.get("msgtype").or_else(|| content.get("method"));
        let variant = variant.and_then(Value::as_str);
        variant
            .and_then(|variant| file(&format!("{kind}${variant}")))
            .or_else(|| file(kind))
    };
    // What an erased account wrote, and what another server didn't show us, is served redacted, and there is no event that says why.
    let emptied = !KEEP.contains(&kind)
        && event
            .get("content")
            .is_some_and(|content| *content == json!({}));
    // Between servers nothing stands beside a redacted event that says so.
    let between_servers = event.contains_key("hashes");
    // A redacted event's content is no longer what its type asks for.
    let own = if redacted || emptied || between_servers || kind.contains(['/', '\\']) {
        None
    } else {
        by_type()
    };
    let base = match (
        event.contains_key("sender"),
        event.contains_key("state_key"),
    ) {
        (_, true) => "state_event",
        (true, false) => "room_event",
        (false, false) => "event",
    };
    own.or_else(|| file(&format!("core-event-schema/{base}")))
        .expect("the base event schemas are there")
}

fn with_envelope(event: &Map<String, Value>) -> Value {
    let mut whole = json!({
        "event_id": "$absent",
        "room_id": "!absent:example.org",
        "sender": "@absent:example.org",
        "origin_server_ts": 0,
    });
    for (key, value) in event {
        whole[key] = value.clone();
    }
    whole
}
