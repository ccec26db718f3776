//! The same questions to another implementation: ids, hashes, redaction and signatures of every
//! room version against ruma's.

use std::collections::BTreeMap;

use comity_protocol::event::{Limits, WellFormed};
use comity_protocol::room_version::RoomVersion;
use proptest::prelude::*;
use ruma_common::canonical_json::{CanonicalJsonObject, redact};
use ruma_common::room_version_rules::RoomVersionRules;
use ruma_common::serde::Base64;
use ruma_common::{CanonicalJsonValue, RoomVersionId};
use ruma_signatures::{Verified, content_hash, reference_hash, verify_event};
use serde_json::value::to_raw_value;
use serde_json::{Value, json};

use crate::support::{Example, Ring, builder, examples, key, sign};

fn their_rules(version: RoomVersion) -> RoomVersionRules {
    RoomVersionId::try_from(version.as_str())
        .unwrap()
        .rules()
        .unwrap()
}

fn compare(version: RoomVersion, example: &Example) {
    let what = format!(
        "version {version}, {} {}",
        example.event_type, example.content
    );
    let event = sign(&builder(version, example)).into_event();
    let rules = their_rules(version);
    let theirs: CanonicalJsonObject = serde_json::from_str(event.json()).unwrap();

    // Canonical to the byte.
    assert_eq!(
        CanonicalJsonValue::Object(theirs.clone()).to_string(),
        event.json(),
        "{what}"
    );

    // Content hash, reference hash, id.
    let hash: Value = serde_json::from_str(event.json()).unwrap();
    let hash = hash["hashes"]["sha256"].as_str().unwrap();
    assert_eq!(content_hash(&theirs).unwrap().encode(), hash, "{what}");
    assert!(event.content_hash_matches(), "{what}");
    if !version.rules().references_with_hashes {
        let id = format!("${}", reference_hash(&theirs, &rules).unwrap());
        assert_eq!(event.event_id().as_str(), id, "{what}");
    }

    // Redaction.
    let redacted = redact(theirs.clone(), &rules.redaction, None).unwrap();
    let redacted = CanonicalJsonValue::Object(redacted).to_string();
    assert_eq!(event.redact().json(), redacted, "{what}");

    // Signatures: theirs accepts ours, whole and redacted, and ours accepts what comes back.
    let public = Base64::parse(key().verify_key().to_base64()).unwrap();
    let keys = BTreeMap::from([("ed25519:1".to_owned(), public)]);
    let keys = BTreeMap::from([("domain".to_owned(), keys)]);
    assert_eq!(
        verify_event(&keys, &theirs, &rules).unwrap(),
        Verified::All,
        "{what}"
    );
    let formed = WellFormed::parse(version, event.json().as_bytes(), Limits::New).unwrap();
    assert_eq!(formed.event(), &event, "{what}");
    assert_eq!(
        formed.verify(&Ring::default()).unwrap().event(),
        &event,
        "{what}"
    );
    let formed = WellFormed::parse(version, redacted.as_bytes(), Limits::New).unwrap();
    let copy = formed.verify(&Ring::default()).unwrap().into_event();
    assert_eq!(
        (copy.event_id(), copy.json()),
        (event.event_id(), &*redacted),
        "{what}"
    );
}

#[test]
fn the_specs_examples_in_every_version() {
    for version in RoomVersion::ALL {
        for example in examples() {
            compare(version, &example);
        }
    }
}

proptest! {
    /// Contents that hold any of the keys that some version keeps.
    #[test]
    fn random_contents(
        version in prop::sample::select(RoomVersion::ALL.to_vec()),
        event_type in prop::sample::select(vec![
            "m.room.aliases", "m.room.create", "m.room.history_visibility", "m.room.join_rules",
            "m.room.member", "m.room.power_levels", "m.room.redaction", "m.room.message", "m.room",
        ]),
        keys in prop::collection::btree_map(
            prop::sample::select(vec![
                "aliases", "creator", "room_version", "history_visibility", "join_rule", "allow",
                "membership", "ban", "invite", "kick", "users", "events", "notifications", "redacts", "x",
            ]),
            prop_oneof![Just(json!(1)), Just(json!("a\u{e9}\n")), Just(json!({"b": [], "a": null}))],
            0..8,
        ),
        signed in prop::option::of(Just(json!({"signed": {"token": "t"}, "display_name": "d"}))),
        is_state in any::<bool>(),
    ) {
        let mut content = serde_json::to_value(keys).unwrap();
        if let Some(invite) = signed {
            content["third_party_invite"] = invite;
        }
        if event_type == "m.room.member" {
            // ruma checks no signature of a member event without it.
            content["membership"] = json!("join");
        }
        let content = to_raw_value(&content).unwrap();
        let state_key = is_state.then(String::new);
        compare(version, &Example { event_type: event_type.to_owned(), state_key, content });
    }
}
