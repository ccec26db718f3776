//! What servers sign for one another beside events: requests, their keys, each other's invites and joins.

use comity_protocol::canonical::{Numbers, canonicalize};
use comity_protocol::event::{Limits, Signed, WellFormed};
use comity_protocol::id::{RoomId, ServerName, UserId};
use comity_protocol::room_version::RoomVersion;
use comity_protocol::sign::{
    Authorization, AuthorizationError, CosignError, InviteIntent, JoinIntent, KeyAnswerError,
    KeyValidity, MAX_KEY_VALIDITY_MS, OldKey, PublishedKey, Request, ServerKeys, SigningKey,
    verify_json,
};
use serde_json::{Value, json};

use crate::support::{Example, Ring, builder, key, sign};

const NOW: u64 = 2_000_000;

fn server(name: &str) -> &ServerName {
    <&ServerName>::try_from(name).unwrap()
}

fn current() -> PublishedKey {
    PublishedKey {
        key: key().verify_key(),
        validity: KeyValidity::Until(i64::try_from(NOW).unwrap()),
    }
}

const REQUEST: Request<'static> = Request {
    method: "PUT",
    uri: "/_matrix/federation/v1/send/1?a=%20b",
    body: br#"{ "pdus": [], "n": 1.0 }"#,
};

fn header() -> String {
    key()
        .authorise_request(server("domain"), server("here:8448"), REQUEST)
        .unwrap()
}

fn check(header: &str, request: Request<'_>) -> Result<(), AuthorizationError> {
    let us = server("here:8448");
    Authorization::parse(header, us)?.check(us, request, current(), NOW)
}

/// B1: quotes or none, escapes, names in any case, unknown parameters, blanks; no destination.
#[test]
fn b1_the_forms_of_an_authorization() {
    let written = header();
    assert_eq!(check(&written, REQUEST), Ok(()));
    let sig = written
        .rsplit("sig=\"")
        .next()
        .unwrap()
        .trim_end_matches('"');
    for good in [
        format!("X-Matrix origin=domain,key=ed25519:1,sig={sig}"),
        format!("x-matrix  ORIGIN=\"domain\" ,\tKey=\"ed25519:1\",sig=\"{sig}\""),
        format!(
            "X-Matrix origin=\"dom\\ain\",key=\"ed25519:1\",destination=\"here:8448\",sig=\"{sig}\""
        ),
        format!(
            "X-Matrix origin=domain,destination=here:8448,new=\"a,b=\\\"\",key=\"ed25519:1\",sig=\"{sig}\","
        ),
        format!("X-Matrix origin = domain, key=\"ed25519:1\", signature=\"{sig}\""),
    ] {
        assert_eq!(check(&good, REQUEST), Ok(()), "{good}");
    }
    for bad in [
        String::new(),
        "Bearer x".to_owned(),
        "X-Matrix".to_owned(),
        "X-Matrix origin=domain,key=\"ed25519:1\"".to_owned(),
        format!("X-Matrix origin=domain,origin=domain,key=\"ed25519:1\",sig=\"{sig}\""),
        format!("X-Matrix origin=\"domain,key=ed25519:1,sig={sig}"),
        format!("X-Matrix origin=\"domain\"x,key=\"ed25519:1\",sig=\"{sig}\""),
        format!("X-Matrix =domain,key=\"ed25519:1\",sig=\"{sig}\""),
        format!(
            "X-Matrix origin=domain,key=\"ed25519:1\",sig=\"{sig}\",x=\"{}\"",
            "a".repeat(5000)
        ),
    ] {
        assert_eq!(check(&bad, REQUEST), Err(AuthorizationError::Form), "{bad}");
    }
}

/// B1: what a signature doesn't hold for.
#[test]
fn b1_another_request_destination_or_key() {
    for other in [
        Request {
            method: "POST",
            ..REQUEST
        },
        Request {
            uri: "/_matrix/federation/v1/send/2?a=%20b",
            ..REQUEST
        },
        Request {
            uri: "/_matrix/federation/v1/send/1?a= b",
            ..REQUEST
        },
        Request {
            body: b"{}",
            ..REQUEST
        },
        Request {
            body: b"",
            ..REQUEST
        },
    ] {
        assert_eq!(
            check(&header(), other),
            Err(AuthorizationError::Signature),
            "{other:?}"
        );
    }
    let not_json = Request {
        body: b"{",
        ..REQUEST
    };
    assert_eq!(check(&header(), not_json), Err(AuthorizationError::Body));
    let elsewhere = Authorization::parse(&header(), server("there"));
    assert_eq!(elsewhere, Err(AuthorizationError::Destination));
    // Without `destination` the signature still tells.
    let silent = header().replace("destination=\"here:8448\",", "");
    let there = server("there");
    let read = Authorization::parse(&silent, there).unwrap();
    let checked = read.check(there, REQUEST, current(), NOW);
    assert_eq!(checked, Err(AuthorizationError::Signature));

    let us = server("here:8448");
    let read = Authorization::parse(&header(), us).unwrap();
    assert_eq!(
        (read.origin().as_str(), read.key_id()),
        ("domain", "ed25519:1")
    );
    for validity in [
        KeyValidity::Until(1_999_999),
        KeyValidity::Expired(i64::MAX),
    ] {
        let expired = PublishedKey {
            validity,
            ..current()
        };
        let checked = read.check(us, REQUEST, expired, NOW);
        assert_eq!(checked, Err(AuthorizationError::ExpiredKey), "{validity:?}");
    }
}

/// B7: names that are no other server's.
#[test]
fn b7_origins_that_cannot_be() {
    let us = server("here:8448");
    let long = "a".repeat(256);
    for name in [
        "evil@good.com",
        "good.com:8448@evil",
        "good.com.",
        &long,
        "[::1%eth0]",
        "here:8448",
        "a:0",
        "",
    ] {
        let header = header().replace("\"domain\"", &format!("\"{name}\""));
        let read = Authorization::parse(&header, us);
        assert_eq!(read, Err(AuthorizationError::Origin), "{name}");
    }
}

fn published() -> Value {
    let old = OldKey {
        key_id: "ed25519:0".to_owned(),
        key: SigningKey::from_seed("0", &[7; 32]).unwrap().verify_key(),
        expired_ts: 5,
    };
    let text = key()
        .publish_keys(server("domain"), &[old], NOW + 1000)
        .unwrap();
    assert_eq!(
        canonicalize(text.as_bytes(), Numbers::Strict).unwrap(),
        text
    );
    serde_json::from_str(&text).unwrap()
}

/// Signs an answer of any content as `domain` would.
fn resigned(mut answer: Value) -> String {
    // A transaction's signature is over another object, so the answer is signed as a foreign one is.
    answer["signatures"] = json!({});
    let text = canonicalize(answer.to_string().as_bytes(), Numbers::Lax).unwrap();
    let unsigned = text.replace(r#""signatures":{},"#, "");
    let signature = ed25519_signature(&unsigned);
    answer["signatures"] = json!({ "domain": { "ed25519:1": signature } });
    answer.to_string()
}

fn ed25519_signature(text: &str) -> String {
    use ed25519_dalek::Signer;
    let file = key().to_file();
    let seed = comity_protocol::unpadded::decode(file.split_whitespace().nth(2).unwrap()).unwrap();
    let key = ed25519_dalek::SigningKey::from_bytes(&seed.try_into().unwrap());
    comity_protocol::unpadded::encode(&key.sign(text.as_bytes()).to_bytes())
}

#[test]
fn our_keys_are_read_as_we_published_them() {
    let keys =
        ServerKeys::check(server("domain"), published().to_string().as_bytes(), NOW).unwrap();
    let until = i64::try_from(NOW + 1000).unwrap();
    let current = keys.key("ed25519:1").unwrap();
    assert_eq!(current.key, key().verify_key());
    assert_eq!(current.validity, KeyValidity::Until(until));
    assert_eq!(
        keys.key("ed25519:0").unwrap().validity,
        KeyValidity::Expired(5)
    );
    assert_eq!(keys.keys().count(), 2);
    let vouched = SigningKey::from_seed("n", &[9; 32]).unwrap();
    let json = vouched.vouch_for_keys(server("notary"), &keys).unwrap();
    assert_eq!(
        verify_json(&json, "notary", |_| Some(vouched.verify_key())),
        Ok(())
    );
    assert_eq!(
        ServerKeys::check(server("domain"), json.as_bytes(), NOW)
            .unwrap()
            .keys()
            .count(),
        2
    );
}

/// B4: centuries count as seven days. B5: another server's answer, an unsigned one. B6: known-weak
/// keys, and what is no key, are left out.
#[test]
fn b4_b5_b6_answers_about_keys() {
    let check = |text: &str| ServerKeys::check(server("domain"), text.as_bytes(), NOW);

    let mut long = published();
    long["valid_until_ts"] = json!(9_000_000_000_000_000_i64);
    let keys = check(&resigned(long)).unwrap();
    assert_eq!(keys.valid_until_ts(), NOW + MAX_KEY_VALIDITY_MS);
    let capped = i64::try_from(NOW + MAX_KEY_VALIDITY_MS).unwrap();
    assert_eq!(
        keys.key("ed25519:1").unwrap().validity,
        KeyValidity::Until(capped)
    );

    let text = published().to_string();
    let other = ServerKeys::check(server("other"), text.as_bytes(), NOW);
    assert_eq!(other, Err(KeyAnswerError::OtherServer));
    let mut unsigned = published();
    unsigned["signatures"] = json!({});
    assert_eq!(check(&unsigned.to_string()), Err(KeyAnswerError::Unsigned));
    let mut forged = published();
    forged["valid_until_ts"] = json!(1);
    assert_eq!(check(&forged.to_string()), Err(KeyAnswerError::Unsigned));
    // Signed by an old key alone.
    let mut old = published();
    old["old_verify_keys"]["ed25519:1"] =
        json!({ "expired_ts": 9, "key": key().verify_key().to_base64() });
    old["verify_keys"] = json!({});
    assert_eq!(check(&resigned(old)), Err(KeyAnswerError::Unsigned));

    let mut odd = published();
    odd["verify_keys"]["ed25519:weak"] =
        json!({ "key": "l/O9hxMVKB6Lg+3Hqf0FQQZhVESQcMzbPN1Cz2nM3og=" });
    odd["verify_keys"]["ed25519:"] = json!({ "key": key().verify_key().to_base64() });
    odd["verify_keys"]["rsa:1"] = json!({ "key": key().verify_key().to_base64() });
    odd["verify_keys"]["ed25519:short"] = json!({ "key": "AAAA" });
    let keys = check(&resigned(odd)).unwrap();
    assert_eq!(
        keys.keys().map(|(id, _)| id).collect::<Vec<_>>(),
        ["ed25519:0", "ed25519:1"]
    );
    for form in ["[]", "{", r#"{"server_name":"domain"}"#] {
        assert_eq!(check(form), Err(KeyAnswerError::Form), "{form}");
    }
}

/// The server that vouches.
fn ours() -> SigningKey {
    SigningKey::from_seed("b", &[3; 32]).unwrap()
}

fn member(version: RoomVersion, target: &str, content: &Value) -> Signed {
    let example = Example {
        event_type: "m.room.member".to_owned(),
        state_key: Some(target.to_owned()),
        content: serde_json::value::to_raw_value(content).unwrap(),
    };
    sign(&builder(version, &example))
}

/// C1: only the invite of our user into that room from that server is signed, and its signatures stay.
#[test]
fn c1_an_invite_is_signed_as_meant() {
    let us = server("ours");
    let bob = UserId::parse("@bob:ours").unwrap();
    for version in RoomVersion::ALL {
        let invite = member(version, "@bob:ours", &json!({ "membership": "invite" }));
        let room = invite.event().room_id().to_owned();
        let intent = InviteIntent {
            room: &room,
            origin: server("domain"),
            invitee: &bob,
        };
        let signed = ours()
            .cosign_invite(us, intent, &invite)
            .unwrap()
            .into_event();
        assert_eq!(signed.event_id(), invite.event().event_id());
        let json: Value = serde_json::from_str(signed.json()).unwrap();
        assert!(
            json["signatures"]["domain"]["ed25519:1"].is_string(),
            "{version}"
        );
        assert!(
            json["signatures"]["ours"]["ed25519:b"].is_string(),
            "{version}"
        );

        let elsewhere = RoomId::parse("!other:domain").unwrap();
        let eve = UserId::parse("@eve:ours").unwrap();
        let theirs = UserId::parse("@bob:theirs").unwrap();
        let kicked = member(version, "@bob:ours", &json!({ "membership": "leave" }));
        for (member, intent, event) in [
            (
                "room_id",
                InviteIntent {
                    room: &elsewhere,
                    ..intent
                },
                &invite,
            ),
            (
                "state_key",
                InviteIntent {
                    invitee: &eve,
                    ..intent
                },
                &invite,
            ),
            (
                "invitee",
                InviteIntent {
                    invitee: &theirs,
                    ..intent
                },
                &invite,
            ),
            (
                "sender",
                InviteIntent {
                    origin: server("other"),
                    ..intent
                },
                &invite,
            ),
            ("membership", intent, &kicked),
        ] {
            let refused = ours().cosign_invite(us, intent, event);
            assert_eq!(refused, Err(CosignError::Differs(member)), "{version}");
        }
    }
}

/// C6: a restricted join is signed for its authoriser, after its own server has signed it.
#[test]
fn c6_a_restricted_join_is_signed_as_meant() {
    let us = server("ours");
    let alice = UserId::parse("@alice:ours").unwrap();
    for version in RoomVersion::ALL {
        let content =
            json!({ "membership": "join", "join_authorised_via_users_server": "@alice:ours" });
        let join = member(version, "@u:domain", &content);
        let room = join.event().room_id().to_owned();
        let formed = |json: &str| WellFormed::parse(version, json.as_bytes(), Limits::New).unwrap();
        let join = formed(join.event().json());
        let intent = JoinIntent {
            room: &room,
            origin: server("domain"),
            authoriser: &alice,
        };
        let cosign =
            |join: &WellFormed, intent| ours().cosign_join(us, intent, join, &Ring::default());
        if !version.rules().restricted {
            let differs = CosignError::Differs("join_authorised_via_users_server");
            assert_eq!(cosign(&join, intent), Err(differs), "{version}");
            continue;
        }
        let signed = cosign(&join, intent).unwrap().into_event();
        let json: Value = serde_json::from_str(signed.json()).unwrap();
        assert!(
            json["signatures"]["ours"]["ed25519:b"].is_string(),
            "{version}"
        );

        let eve = UserId::parse("@eve:ours").unwrap();
        let differs = |member| Err(CosignError::Differs(member));
        let other = JoinIntent {
            authoriser: &eve,
            ..intent
        };
        assert_eq!(
            cosign(&join, other),
            differs("join_authorised_via_users_server")
        );
        let other = JoinIntent {
            origin: server("other"),
            ..intent
        };
        assert_eq!(cosign(&join, other), differs("sender"));
        let mut json: Value = serde_json::from_str(join.event().json()).unwrap();
        json["signatures"] = json!({});
        assert!(matches!(
            cosign(&formed(&json.to_string()), intent),
            Err(CosignError::Signature(_))
        ));
        // A hidden change: the hash tells.
        let mut json: Value = serde_json::from_str(join.event().json()).unwrap();
        json["content"]["reason"] = json!("x");
        assert_eq!(
            cosign(&formed(&json.to_string()), intent),
            differs("hashes")
        );
    }
}
