//! Who must have signed, and what a wrong signature or hash does.

use comity_protocol::canonical::{Numbers, canonicalize};
use comity_protocol::event::{BuildError, FormatError, Limits, WellFormed};
use comity_protocol::id::ServerName;
use comity_protocol::redact::redact;
use comity_protocol::room_version::RoomVersion;
use comity_protocol::sign::{KeyValidity, SignatureError, required_signers, verify_json};
use serde_json::{Value, json};

use crate::support::{Ring, builder, examples, key, message, sign};

fn formed(version: RoomVersion, json: &Value) -> WellFormed {
    WellFormed::parse(version, json.to_string().as_bytes(), Limits::New).unwrap()
}

fn json_of(version: RoomVersion, content: &Value) -> Value {
    serde_json::from_str(message(version, content).json()).unwrap()
}

/// <https://spec.matrix.org/v1.19/appendices/#event-signing>, the minimal event.
#[test]
fn spec_vector_minimal_event() {
    let text = r#"{
        "auth_events": [], "content": {}, "depth": 3,
        "hashes": { "sha256": "5jM4wQpv6lnBo7CLIghJuHdW+s2CMBJPUOGOC89ncos" },
        "origin": "domain", "origin_server_ts": 1000000, "prev_events": [],
        "room_id": "!x:domain", "sender": "@a:domain",
        "signatures": { "domain": { "ed25519:1": "KxwGjPSDEtvnFgU00fwFz+l6d2pJM6XBIaMEn81SXPTRl16AqLAYqfIReFGZlHi5KLjAWbOoMszkwsQma+lYAg" } },
        "type": "X", "unsigned": { "age_ts": 1000000 }
    }"#;
    // Versions without `event_id`, with `origin` among what is signed.
    for version in &RoomVersion::ALL[2..10] {
        let formed = WellFormed::parse(*version, text.as_bytes(), Limits::New).unwrap();
        let event = formed.event().clone();
        assert!(event.content_hash_matches());
        assert_eq!(formed.verify(&Ring::default()).unwrap().into_event(), event);
    }
}

/// <https://spec.matrix.org/v1.19/appendices/#event-signing>, the event with redactable content
/// (which has no parents, so it is no event of any room).
#[test]
fn spec_vector_redactable_event() {
    let text = r#"{
        "content": { "body": "Here is the message content" },
        "event_id": "$0:domain",
        "hashes": { "sha256": "onLKD1bGljeBWQhWZ1kaP9SorVmRQNdN5aM2JYU2n/g" },
        "origin": "domain", "origin_server_ts": 1000000, "type": "m.room.message",
        "room_id": "!r:domain", "sender": "@u:domain",
        "signatures": { "domain": { "ed25519:1": "Wm+VzmOUOz08Ds+0NTWb1d4CZrVsJSikkeRxh6aCcUwu6pNC78FunoD7KNWzqFn241eYHYMGCA5McEiVPdhzBA" } },
        "unsigned": { "age_ts": 1000000 }
    }"#;
    let canonical = canonicalize(text.as_bytes(), Numbers::Strict).unwrap();
    let redacted = redact(
        &RoomVersion::V1.rules().redaction,
        "m.room.message",
        &canonical,
    );
    assert!(redacted.contains(r#""content":{}"#));
    assert_eq!(
        verify_json(&redacted, "domain", |_| Some(key().verify_key())),
        Ok(())
    );
}

/// Threat B7: a PDU without its sender's server's signature.
#[test]
fn b7_the_senders_server_must_have_signed() {
    for version in RoomVersion::ALL {
        let mut json = json_of(version, &json!({}));
        let signatures = json["signatures"].take();
        json["signatures"] = json!({ "other": signatures["domain"] });
        let missing = Err(SignatureError::Missing("domain".into()));
        assert_eq!(
            formed(version, &json).verify(&Ring::default()),
            missing,
            "{version}"
        );
        json["signatures"] = json!({ "domain": "x" });
        assert_eq!(
            formed(version, &json).verify(&Ring::default()),
            missing,
            "{version}"
        );
        json["signatures"] = json!({ "domain": { "ed25519:other": "x" } });
        let unknown = Err(SignatureError::UnknownKey("domain".into()));
        assert_eq!(
            formed(version, &json).verify(&Ring::default()),
            unknown,
            "{version}"
        );
        json["signatures"] = json!({ "domain": { "ed25519:1": "x" } });
        let wrong = Err(SignatureError::Wrong("domain".into()));
        assert_eq!(
            formed(version, &json).verify(&Ring::default()),
            wrong,
            "{version}"
        );
    }
}

#[test]
fn what_redaction_keeps_is_signed_and_the_rest_is_hashed() {
    for version in RoomVersion::ALL {
        let mut json = json_of(version, &json!({ "body": "b" }));
        json["depth"] = json!(8);
        let wrong = Err(SignatureError::Wrong("domain".into()));
        assert_eq!(
            formed(version, &json).verify(&Ring::default()),
            wrong,
            "{version}"
        );

        // A wrong hash: the event goes on as its redacted copy, under the same id.
        let original = message(version, &json!({ "body": "b" }));
        let mut json: Value = serde_json::from_str(original.json()).unwrap();
        json["content"]["body"] = json!("forged");
        let event = formed(version, &json)
            .verify(&Ring::default())
            .unwrap()
            .into_event();
        assert_eq!(event.content().get(), "{}", "{version}");
        assert_eq!(event, original.redact(), "{version}");
    }
}

/// Old keys count for what was made before they expired; from version 5 on a current one counts
/// until it must be asked for again.
#[test]
fn keys_count_at_the_events_time() {
    for version in RoomVersion::ALL {
        let json = json_of(version, &json!({}));
        let check = |validity| formed(version, &json).verify(&Ring(validity)).is_ok();
        let made = 1_000_000;
        assert!(check(KeyValidity::Until(made)), "{version}");
        let enforced = version.rules().enforce_key_validity;
        assert_eq!(check(KeyValidity::Until(made - 1)), !enforced, "{version}");
        assert!(check(KeyValidity::Expired(made)), "{version}");
        assert!(!check(KeyValidity::Expired(made - 1)), "{version}");
    }
}

#[test]
fn signers_of_every_version() {
    for version in RoomVersion::ALL {
        let signers = |event_type: &str, content: Value, sender: &str| {
            let example = crate::support::Example {
                event_type: event_type.to_owned(),
                state_key: Some(String::new()),
                content: serde_json::value::to_raw_value(&content).unwrap(),
            };
            let mut json: Value =
                serde_json::from_str(sign(&builder(version, &example)).event().json()).unwrap();
            json["sender"] = json!(sender);
            let signers = required_signers(formed(version, &json).event());
            signers.map(|signers| signers.iter().map(ToString::to_string).collect::<Vec<_>>())
        };
        let names = |names: &[&str]| Ok(names.iter().map(ToString::to_string).collect::<Vec<_>>());
        let has_chosen_id = version.rules().event_id_server_signs;

        let plain = signers("X", json!({}), "@u:else");
        let expected = if has_chosen_id {
            names(&["domain", "else"])
        } else {
            names(&["else"])
        };
        assert_eq!(plain, expected, "{version}");

        let invite = json!({ "membership": "invite", "third_party_invite": {} });
        let third_party = signers("m.room.member", invite, "@u:else");
        let expected = if has_chosen_id {
            names(&["domain"])
        } else {
            names(&[])
        };
        assert_eq!(third_party, expected, "{version}");

        let join =
            json!({ "membership": "join", "join_authorised_via_users_server": "@a:authority" });
        let authorised = signers("m.room.member", join, "@u:domain");
        let restricted = version.rules().restricted;
        let expected = if restricted {
            names(&["authority", "domain"])
        } else {
            names(&["domain"])
        };
        assert_eq!(authorised, expected, "{version}");

        let join = json!({ "membership": "join", "join_authorised_via_users_server": 1 });
        let malformed = signers("m.room.member", join, "@u:domain");
        assert_eq!(malformed.is_err(), restricted, "{version}");
    }
}

/// Law 9: the key of one server doesn't sign for another's users.
#[test]
fn a_key_signs_for_its_own_server() {
    let unsigned = builder(RoomVersion::V12, &examples()[0]).build().unwrap();
    assert!(!unsigned.event().json().contains("ed25519"));
    let other = ServerName::parse("other").unwrap();
    assert_eq!(
        key().sign_event(&other, unsigned.clone()),
        Err(BuildError::NotOurs)
    );
    let own = ServerName::parse("domain").unwrap();
    let signed = key().sign_event(&own, unsigned.clone()).unwrap();
    assert_eq!(signed.event().event_id(), unsigned.event().event_id());
}

#[test]
fn content_of_an_event_of_ours_must_be_an_object() {
    let mut builder = builder(RoomVersion::V12, &examples()[0]);
    for text in ["[]", "1", "null"] {
        builder.content = serde_json::value::RawValue::from_string(text.to_owned()).unwrap();
        assert_eq!(builder.build(), Err(FormatError::Field("content").into()));
    }
}
