//! Section A, events.

use comity_testkit::{Answer, User, encode};
use http::Method;
use serde_json::{Value, json};

use crate::{V3, alone};

/// Sends a content by each way that makes an event of it.
async fn by_every_way(user: &User, room: &str, content: &str) -> Vec<(&'static str, Answer)> {
    let room = encode(room);
    let txn = user.transaction();
    let first = format!(
        r#"{{"initial_state":[{{"type":"org.example.state","state_key":"","content":{content}}}]}}"#
    );
    let ways = [
        (
            "send",
            Method::PUT,
            format!("{V3}/rooms/{room}/send/org.example.event/{txn}"),
            content,
        ),
        (
            "state",
            Method::PUT,
            format!("{V3}/rooms/{room}/state/org.example.state/key"),
            content,
        ),
        (
            "member",
            Method::PUT,
            format!("{V3}/rooms/{room}/state/m.room.member/{}", user.id),
            content,
        ),
        (
            "createRoom",
            Method::POST,
            format!("{V3}/createRoom"),
            &first,
        ),
    ];
    let mut answers = Vec::new();
    for (way, method, path, body) in ways {
        let request = user
            .request(method, path)
            .body(body.to_owned(), "application/json");
        answers.push((way, request.unchecked_events().send().await));
    }
    answers
}

/// A1: numbers that are no integers of the canonical form make no event.
#[tokio::test(start_paused = true)]
async fn a1_numbers_that_are_no_integers_are_bad_json() {
    let (_server, alice, room) = alone().await;
    for number in [
        "9007199254740992",
        "-9007199254740992",
        "1.0",
        "-0",
        "1e3",
        "0.5",
        "1e999",
    ] {
        for content in [
            format!(r#"{{"membership":"join","n":{number}}}"#),
            format!(r#"{{"membership":"join","n":[{{"deep":{number}}}]}}"#),
        ] {
            for (way, answer) in by_every_way(&alice, &room, &content).await {
                assert_eq!(answer.status, 400, "{way} {content}: {}", answer.body);
                let code = answer.body["errcode"].as_str().unwrap();
                let no_number = number == "1e999" && code == "M_NOT_JSON";
                assert!(code == "M_BAD_JSON" || no_number, "{way} {content}: {code}");
            }
        }
    }
    for number in ["9007199254740991", "-9007199254740991", "0"] {
        let content = format!(r#"{{"membership":"join","n":{number}}}"#);
        for (way, answer) in by_every_way(&alice, &room, &content).await {
            assert_eq!(answer.status, 200, "{way} {content}: {}", answer.body);
        }
    }
}

/// A2: an event of more than 65,536 bytes, a type or a state key of more than 255: too large, in bytes.
#[tokio::test(start_paused = true)]
async fn a2_events_types_and_state_keys_are_too_large_by_their_bytes() {
    let (_server, alice, room) = alone().await;
    let long = |bytes: usize| json!({"membership": "join", "x": "é".repeat(bytes / 2)}).to_string();
    for (way, answer) in by_every_way(&alice, &room, &long(64_000)).await {
        assert_eq!(answer.status, 200, "{way}: {}", answer.body);
    }
    for (way, answer) in by_every_way(&alice, &room, &long(65_536)).await {
        assert_eq!(answer.status, 413, "{way}: {}", answer.body);
        assert_eq!(answer.body["errcode"], "M_TOO_LARGE", "{way}");
    }
    // The boundary itself, to the byte.
    let sent = async |bytes: usize| {
        let path = format!(
            "{V3}/rooms/{}/send/a/{}",
            encode(&room),
            alice.transaction()
        );
        let content = json!({"x": "x".repeat(bytes)});
        alice.put(path).json(content).send().await.status.as_u16()
    };
    let (mut fits, mut too_large) = (60_000, 65_536);
    while fits + 1 < too_large {
        let middle = (fits + too_large) / 2;
        match sent(middle).await {
            200 => fits = middle,
            413 => too_large = middle,
            other => panic!("{middle} bytes: {other}"),
        }
    }
    for (bytes, expected) in [(254, 200), (256, 413)] {
        let name = encode(&"é".repeat(bytes / 2));
        let path = format!("{V3}/rooms/{}/state", encode(&room));
        for path in [
            format!("{path}/{name}/key"),
            format!("{path}/org.example/{name}"),
        ] {
            let answer = alice.put(path).json(json!({})).send().await;
            assert_eq!(answer.status, expected, "{bytes}: {}", answer.body);
        }
    }
}

/// A3: nesting costs no stack, whatever reads it, and one level too many gets one answer by every way in.
#[tokio::test(start_paused = true)]
async fn a3_nesting_is_refused_alike_everywhere() {
    let (server, alice, room) = alone().await;
    // With the content and the event around it, 100 levels.
    for (depth, expected) in [(98, 200), (99, 400), (200, 400), (5_000, 400)] {
        let deep = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        let content = format!(r#"{{"membership":"join","x":{deep}}}"#);
        let answers = by_every_way(&alice, &room, &content).await;
        for (way, answer) in answers {
            assert_eq!(answer.status, expected, "{way} {depth}: {}", answer.body);
        }
    }
    // Whatever reads a body, with a token or without.
    let endless = "[".repeat(64 << 10);
    let endpoints = comity_testkit::probe::endpoints();
    for endpoint in endpoints
        .iter()
        .filter(|it| it.is_due() && it.method() != "GET")
    {
        for body in [endless.clone(), format!("{{\"x\":{endless}")] {
            let method = Method::from_bytes(endpoint.method().as_bytes()).unwrap();
            for client in [&*server, &*alice] {
                let request = client.request(method.clone(), endpoint.filled());
                let answer = request.body(body.clone(), "application/json").send().await;
                assert!(
                    answer.status.as_u16() < 500,
                    "{}: {}",
                    endpoint.name(),
                    answer.body
                );
            }
        }
    }
    // The last of them may have signed her out.
    server.login("alice").await.send(&room, "still there").await;
}

/// A4: NUL is a character like others, a lone surrogate is none, of duplicate keys the last counts.
#[tokio::test(start_paused = true)]
async fn a4_odd_characters_and_duplicate_keys() {
    let (_server, alice, room) = alone().await;
    let state = |key: &str| format!("{V3}/rooms/{}/state/org.example/{key}", encode(&room));
    for (key, content, expected) in [
        ("nul", r#"{"x":"a\u0000b"}"#, Some(json!({"x": "a\0b"}))),
        ("%00", r#"{"a\u0000":1}"#, Some(json!({"a\0": 1}))),
        ("twice", r#"{"x":1,"x":2}"#, Some(json!({"x": 2}))),
        (
            "deep",
            r#"{"y":{"x":1,"x":{"z":1,"z":3}}}"#,
            Some(json!({"y": {"x": {"z": 3}}})),
        ),
        ("lone", r#"{"x":"\ud800"}"#, None),
        ("turned", r#"{"x":"\udc00\ud800"}"#, None),
        ("key", r#"{"\udfff":1}"#, None),
    ] {
        let put = alice.put(state(key)).body(content, "application/json");
        let answer = put.send().await;
        match expected {
            None => assert_eq!(answer.status, 400, "{content}: {}", answer.body),
            Some(expected) => {
                assert_eq!(answer.status, 200, "{content}: {}", answer.body);
                assert_eq!(alice.get(state(key)).send().await.ok(), expected);
            }
        }
    }
}

/// A7: what a client writes beside its content is the content's, never the event's.
#[tokio::test(start_paused = true)]
async fn a7_unsigned_is_not_the_senders_to_write() {
    let (server, alice, room) = alone().await;
    let bob = server.register("bob").await;
    let forged = json!({
        "body": "x", "msgtype": "m.text",
        "unsigned": {"redacted_because": {}, "transaction_id": "forged", "membership": "ban"},
        "sender": "@mallory:localhost", "origin_server_ts": 5, "redacts": "$x",
    });
    let event = alice.send_event(&room, "m.room.message", forged).await;
    alice.invite(&room, &bob.id).await;
    bob.join(&room).await;
    let path = format!("{V3}/rooms/{}/event/{}", encode(&room), encode(&event));
    let seen = bob.get(path).send().await.ok();
    assert_eq!(seen["sender"], alice.id);
    assert!(seen["origin_server_ts"].as_u64() > Some(5), "{seen}");
    for field in ["redacted_because", "transaction_id"] {
        assert_eq!(seen["unsigned"][field], Value::Null, "{seen}");
    }
    assert_eq!(seen["redacts"], Value::Null);
}

/// A8: what makes the create event's place and version is the server's to say.
#[tokio::test(start_paused = true)]
async fn a8_creation_content_names_no_room() {
    let (_server, alice, _) = alone().await;
    for version in ["11", "12"] {
        let asked = json!({
            "room_version": version,
            "creation_content": {"room_id": "!forged:localhost", "room_version": "1", "creator": "@mallory:localhost"},
        });
        let room = alice.create_room(asked).await;
        assert_ne!(room, "!forged:localhost");
        let state = alice.get(format!("{V3}/rooms/{}/state", encode(&room)));
        let state = state.unchecked_events().send().await.ok();
        let create = state
            .as_array()
            .unwrap()
            .iter()
            .find(|event| event["type"] == "m.room.create");
        let create = create.unwrap();
        assert_eq!(
            (&create["sender"], &create["content"]["room_version"]),
            (&json!(alice.id), &json!(version))
        );
        assert_ne!(create["content"]["creator"], "@mallory:localhost");
    }
}
