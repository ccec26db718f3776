//! Over random input: decoders never panic, and never accept what they would write differently.

use comity_protocol::canonical::{Numbers, canonicalize, members};
use comity_protocol::client_event::{ClientFormat, client_event, stripped_state};
use comity_protocol::event::{Event, Limits, WellFormed};
use comity_protocol::room_version::RoomVersion;
use comity_protocol::sign::{SigningKey, VerifyKey};
use proptest::prelude::*;
use serde_json::{Map, Value};

use crate::support::{Ring, message};

/// JSON values without floats.
fn value() -> impl Strategy<Value = Value> {
    let max = 9_007_199_254_740_991_i64;
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-max..=max).prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 40, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::btree_map("[a-d\"\\\\\n\u{e9}]{0,3}", inner, 0..6)
                .prop_map(|map| Value::Object(Map::from_iter(map))),
        ]
    })
}

/// Text near JSON: its tokens in any order.
fn nearly_json() -> impl Strategy<Value = String> {
    let token = prop::sample::select(vec![
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        "\"a\"",
        "\"b\"",
        "\"\\u0061\"",
        "\"\\ud83d\\ude00\"",
        "\"\\ud800\"",
        "\"",
        "\\",
        "1",
        "-0",
        "1e3",
        "0.5",
        "true",
        "null",
        " ",
        "é",
        "\u{0}",
    ]);
    prop::collection::vec(token, 0..24).prop_map(|tokens| tokens.concat())
}

fn check_canonical(bytes: &[u8]) -> Result<(), TestCaseError> {
    for numbers in [Numbers::Strict, Numbers::Lax] {
        let Ok(once) = canonicalize(bytes, numbers) else {
            continue;
        };
        let twice = canonicalize(once.as_bytes(), numbers);
        prop_assert_eq!(twice.as_deref(), Ok(once.as_str()));
        // What serde_json makes of the input is what it makes of our text.
        let theirs: Value = serde_json::from_slice(bytes).unwrap();
        let ours: Value = serde_json::from_str(&once).unwrap();
        if numbers == Numbers::Strict {
            prop_assert_eq!(theirs, ours);
        }
    }
    if serde_json::from_slice::<Value>(bytes).is_err() {
        prop_assert!(canonicalize(bytes, Numbers::Lax).is_err());
    }
    Ok(())
}

proptest! {
    #[test]
    fn canonical_bytes(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        check_canonical(&bytes)?;
        members(&String::from_utf8_lossy(&bytes)).for_each(drop);
    }

    #[test]
    fn canonical_tokens(text in nearly_json()) {
        check_canonical(text.as_bytes())?;
        members(&text).for_each(drop);
    }

    #[test]
    fn canonical_values(value in value()) {
        let pretty = serde_json::to_string_pretty(&value).unwrap();
        let canonical = canonicalize(pretty.as_bytes(), Numbers::Strict).unwrap();
        prop_assert_eq!(serde_json::from_str::<Value>(&canonical).unwrap(), value.clone());
        // serde_json sorts keys as we do and writes the same escapes.
        prop_assert_eq!(canonical, serde_json::to_string(&value).unwrap());
    }

    #[test]
    fn keys(text in "(ed25519 )?[a-z0-9_ ]{0,9}[A-Za-z0-9+/=]{0,50}") {
        let _ = SigningKey::from_file(&text);
        let _ = VerifyKey::parse(&text);
    }

    /// An event with one member set to anything, or taken away.
    #[test]
    fn events_with_one_thing_changed(
        version in prop::sample::select(RoomVersion::ALL.to_vec()),
        member in 0_usize..16,
        value in prop::option::of(value()),
    ) {
        let event = message(version, &serde_json::json!({ "body": "b" }));
        let mut json: Map<String, Value> = serde_json::from_str(event.json()).unwrap();
        let key = json.keys().nth(member).cloned().unwrap_or_else(|| "unsigned".to_owned());
        match value {
            Some(value) => drop(json.insert(key, value)),
            None => drop(json.remove(&key)),
        }
        let bytes = serde_json::to_vec(&json).unwrap();
        let Ok(formed) = WellFormed::parse(version, &bytes, Limits::New) else { return Ok(()) };
        let event = formed.event().clone();
        let again = WellFormed::parse(version, event.json().as_bytes(), Limits::New).unwrap();
        prop_assert_eq!(&event, again.event());
        let id = event.event_id().to_owned();
        prop_assert_eq!(Event::from_stored(version, id, event.json().to_owned()), Ok(event.clone()));
        let redacted = event.redact();
        prop_assert_eq!(&redacted.redact(), &redacted);
        prop_assert_eq!(redacted.reference_hash(), event.reference_hash());
        let id = redacted.event_id().to_owned();
        let again = Event::from_stored(version, id, redacted.json().to_owned()).unwrap();
        prop_assert_eq!(again.content().get(), redacted.content().get());
        prop_assert_eq!(again.redacts(), redacted.redacts());
        for format in [ClientFormat::WithRoomId, ClientFormat::WithoutRoomId] {
            let text = client_event(&event, format, Some("{}"));
            let parsed: Map<String, Value> = serde_json::from_str(&text).unwrap();
            prop_assert_eq!(&parsed["event_id"], event.event_id().as_str());
        }
        serde_json::from_str::<Value>(&stripped_state(&event)).unwrap();
        let _ = formed.verify(&Ring::default());
    }
}
