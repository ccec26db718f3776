//! What is an event and what isn't: threats A1 to A8, by version.

use comity_protocol::canonical::JsonError;
use comity_protocol::event::{
    BuildError, Event, FormatError, Limits, MAX_AUTH_EVENTS, MAX_EVENT_BYTES, MAX_PREV_EVENTS,
    Reference, WellFormed,
};
use comity_protocol::id::EventId;
use comity_protocol::room_version::RoomVersion;
use serde_json::{Value, json};

use crate::support::{Example, builder, examples, message, sign};

/// A good message as JSON, to be spoilt.
fn good(version: RoomVersion) -> Value {
    serde_json::from_str(message(version, &json!({ "body": "b" })).json()).unwrap()
}

fn parse(version: RoomVersion, json: &Value) -> Result<Event, FormatError> {
    let text = json.to_string();
    WellFormed::parse(version, text.as_bytes(), Limits::New).map(|formed| formed.event().clone())
}

/// The outcome with one member set, or with `null` taken away.
fn with(version: RoomVersion, key: &str, value: Value) -> Result<Event, FormatError> {
    let mut json = good(version);
    match value {
        Value::Null => drop(json.as_object_mut().unwrap().remove(key)),
        value => json[key] = value,
    }
    parse(version, &json)
}

fn with_depth(version: RoomVersion, depth: &str) -> Result<u64, FormatError> {
    let text = good(version)
        .to_string()
        .replace("\"depth\":7", &format!("\"depth\":{depth}"));
    WellFormed::parse(version, text.as_bytes(), Limits::New).map(|formed| formed.event().depth())
}

#[test]
fn a1_numbers_that_are_no_integers() {
    for number in ["9007199254740992", "1.0", "-0", "1e3"] {
        for version in RoomVersion::ALL {
            let text = good(version).to_string().replace("\"b\"", number);
            let result = WellFormed::parse(version, text.as_bytes(), Limits::New);
            if version.rules().strict_canonical_json {
                assert_eq!(
                    result,
                    Err(FormatError::Json(JsonError::Number)),
                    "{version} {number}"
                );
            } else {
                assert!(result.is_ok(), "{version} {number}");
            }
        }
    }
}

#[test]
fn a2_sizes() {
    let v11 = RoomVersion::V11;
    let padded = |size: usize| {
        let mut json = good(v11);
        json["content"]["body"] = json!("");
        let pad = size - json.to_string().len();
        json["content"]["body"] = json!("x".repeat(pad));
        json
    };
    assert_eq!(
        parse(v11, &padded(MAX_EVENT_BYTES)).unwrap().json().len(),
        MAX_EVENT_BYTES
    );
    assert_eq!(
        parse(v11, &padded(MAX_EVENT_BYTES + 1)),
        Err(FormatError::TooLarge)
    );
    // Canonical bytes count, not those on the wire.
    let spacious = serde_json::to_vec_pretty(&padded(MAX_EVENT_BYTES)).unwrap();
    assert!(WellFormed::parse(v11, &spacious, Limits::New).is_ok());

    for field in ["type", "state_key"] {
        assert!(with(v11, field, json!("é".repeat(127))).is_ok());
        let too_long = Err(FormatError::TooLong(field));
        assert_eq!(with(v11, field, json!("é".repeat(128))), too_long);
    }
    assert!(with(v11, "sender", json!(format!("@{}:b", "x".repeat(252)))).is_ok());
    for (field, sigil) in [("sender", "@"), ("room_id", "!")] {
        let id = format!("{sigil}{}:b", "x".repeat(253));
        assert_eq!(with(v11, field, json!(id)), Err(FormatError::Field(field)));
    }
}

/// A new event that is too large with its signature isn't made either.
#[test]
fn a2_sizes_of_our_own() {
    let content = |size: usize| Example {
        event_type: "m.room.message".to_owned(),
        state_key: None,
        content: serde_json::value::to_raw_value(&json!({ "body": "x".repeat(size) })).unwrap(),
    };
    let bare = sign(&builder(RoomVersion::V12, &content(0)))
        .event()
        .json()
        .len();
    let full = sign(&builder(RoomVersion::V12, &content(MAX_EVENT_BYTES - bare)));
    assert_eq!(full.event().json().len(), MAX_EVENT_BYTES);
    let over = builder(RoomVersion::V12, &content(MAX_EVENT_BYTES - bare + 1));
    let key = crate::support::key();
    let result = over.build().and_then(|event| {
        key.sign_event(
            &comity_protocol::id::ServerName::parse("domain").unwrap(),
            event,
        )
    });
    assert_eq!(result, Err(BuildError::Format(FormatError::TooLarge)));
}

#[test]
fn a5_parents_of_new_and_past_events() {
    for version in RoomVersion::ALL {
        for (field, most) in [
            ("prev_events", MAX_PREV_EVENTS),
            ("auth_events", MAX_AUTH_EVENTS),
        ] {
            let mut json = good(version);
            let one = json[field][0].clone();
            json[field] = json!(vec![one.clone(); most]);
            assert!(parse(version, &json).is_ok());
            json[field] = json!(vec![one; most + 1]);
            assert_eq!(parse(version, &json), Err(FormatError::TooMany(field)));
            let text = json.to_string();
            assert!(WellFormed::parse(version, text.as_bytes(), Limits::Past).is_ok());
        }
    }
}

#[test]
fn a5_our_own_have_no_more() {
    let example = &examples()[0];
    let mut builder = builder(RoomVersion::V12, example);
    builder.prev_events = vec![builder.prev_events[0].clone(); MAX_PREV_EVENTS + 1];
    assert_eq!(
        builder.build(),
        Err(FormatError::TooMany("prev_events").into())
    );
}

#[test]
fn a6_depth() {
    let max = 9_007_199_254_740_991;
    assert_eq!(with_depth(RoomVersion::V6, "9007199254740991"), Ok(max));
    assert_eq!(
        with_depth(RoomVersion::V5, "9223372036854775807"),
        Ok(i64::MAX as u64)
    );
    for version in RoomVersion::ALL {
        assert_eq!(with_depth(version, "0"), Ok(0));
        for bad in ["-1", "\"5\"", "9223372036854775808", "1.0", "null", "[]"] {
            assert!(with_depth(version, bad).is_err(), "{version} {bad}");
        }
    }
}

#[test]
fn a8_the_room_of_a_create_event() {
    let create = examples()
        .into_iter()
        .find(|example| example.event_type == "m.room.create");
    let create = create.unwrap();
    for version in RoomVersion::ALL {
        let event = sign(&builder(version, &create)).into_event();
        let mut json: Value = serde_json::from_str(event.json()).unwrap();
        if version.rules().room_id_is_create_hash {
            assert!(json.get("room_id").is_none());
            json["room_id"] = json!("!r:domain");
            assert_eq!(parse(version, &json), Err(FormatError::Surplus("room_id")));
        } else {
            json.as_object_mut().unwrap().remove("room_id");
            assert_eq!(
                parse(version, &json),
                Err(FormatError::Field("room_id")),
                "{version}"
            );
        }
    }
    let v12 = RoomVersion::V12;
    assert_eq!(
        with(v12, "room_id", Value::Null),
        Err(FormatError::Field("room_id"))
    );
    assert_eq!(
        with(v12, "room_id", json!("!r:domain")),
        Err(FormatError::Field("room_id"))
    );
}

/// Every field that must be there, absent and of the wrong kind.
#[test]
fn fields_absent_or_of_another_kind() {
    for version in RoomVersion::ALL {
        let mut required = vec![
            "auth_events",
            "content",
            "depth",
            "hashes",
            "origin_server_ts",
            "prev_events",
            "room_id",
            "sender",
            "signatures",
            "type",
        ];
        if version.rules().references_with_hashes {
            required.push("event_id");
        }
        for field in required {
            for value in [
                Value::Null,
                json!(true),
                json!(["x"]),
                json!("x"),
                json!({ "x": 1 }),
            ] {
                let fits = match field {
                    "content" | "signatures" => value.is_object(),
                    "type" => value.is_string(),
                    _ => false,
                };
                let result = with(version, field, value.clone());
                assert_eq!(result.is_ok(), fits, "{version} {field} {value}");
            }
        }
        for value in [json!(1), json!({}), json!([])] {
            let result = with(version, "state_key", value);
            assert_eq!(result, Err(FormatError::Field("state_key")));
        }
    }
    for text in ["", "null", "[]", "1", "\"{}\""] {
        let result = WellFormed::parse(RoomVersion::V11, text.as_bytes(), Limits::New);
        assert!(result.is_err(), "{text}");
    }
}

#[test]
fn references_of_old_and_new_rooms() {
    let pair = json!([["$x:domain", { "sha256": "h" }]]);
    let plain = json!(["$x:domain"]);
    for version in RoomVersion::ALL {
        let old = version.rules().references_with_hashes;
        assert_eq!(
            with(version, "prev_events", pair.clone()).is_ok(),
            old,
            "{version}"
        );
        assert_eq!(
            with(version, "prev_events", plain.clone()).is_ok(),
            !old,
            "{version}"
        );
    }
    for bad in [
        json!([["$x:domain"]]),
        json!([["$x:domain", {}, {}]]),
        json!([["$x:domain", 1]]),
        json!([[1, {}]]),
    ] {
        assert!(with(RoomVersion::V1, "prev_events", bad).is_err());
    }
    for bad in [
        json!([1]),
        json!(["x"]),
        json!([format!("${}", "x".repeat(255))]),
    ] {
        assert!(with(RoomVersion::V11, "auth_events", bad).is_err());
    }
}

#[test]
fn a_builder_of_an_old_room_needs_hashes() {
    let example = &examples()[0];
    let mut builder = builder(RoomVersion::V2, example);
    builder.prev_events = vec![Reference::by_id(EventId::parse("$x:domain").unwrap())];
    assert_eq!(builder.build(), Err(BuildError::ReferenceHash));
}

#[test]
fn accessors_say_what_was_built() {
    let example = examples()
        .into_iter()
        .find(|example| example.event_type == "m.room.name");
    for version in RoomVersion::ALL {
        let builder = builder(version, example.as_ref().unwrap());
        let event = sign(&builder).into_event();
        assert_eq!(event.version(), version);
        assert_eq!(event.sender(), &*builder.sender);
        assert_eq!(Some(event.room_id()), builder.room_id.as_deref());
        assert!(event.is_state("m.room.name", ""));
        assert_eq!(event.depth(), 7);
        assert_eq!(event.origin_server_ts(), 1_000_000);
        assert_eq!(
            (event.prev_events().len(), event.auth_events().len()),
            (1, 2)
        );
        assert_eq!(event.content().get(), r#"{"name":"The room name"}"#);
        assert_eq!(event.content_string("name").unwrap(), "The room name");
        assert_eq!(event.content_string("none"), None);
        let is_chosen = event.event_id().as_str() == "$e:domain";
        assert_eq!(is_chosen, version.rules().references_with_hashes);
        // What may stand in a log names the event and shows nothing of it.
        assert!(!format!("{event:?}").contains("The room name"));
    }
}
