//! Bad input and the answer it must get, row by row: threats of events (A), of disclosure (E) and of limits and sign-in (G) as far
//! as a request can bring them. Each test is named after its row.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::BTreeSet;

use comity_accounts::Standing;
use comity_testkit::{Answer, Server, User, encode, password};
use http::Method;
use serde_json::{Value, json};

const V3: &str = "/_matrix/client/v3";

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

async fn alone() -> (Server, User, String) {
    let server = Server::start().await;
    let alice = server.register("alice").await;
    let room = alice.create_room(json!({})).await;
    (server, alice, room)
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
    for depth in [99, 200, 5_000] {
        let deep = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        let content = format!(r#"{{"membership":"join","x":{deep}}}"#);
        let answers = by_every_way(&alice, &room, &content).await;
        let expected = if depth < 100 { 200 } else { 400 };
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

/// Where bob stands when he looks.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Stands {
    Never,
    Invited,
    Joined,
    Left,
    Banned,
}

/// E3: four settings, five standings, every way to read: nothing of a time that isn't theirs.
#[tokio::test(start_paused = true)]
async fn e3_no_read_path_shows_what_history_visibility_hides() {
    let server = Server::start().await;
    let alice = server.register("alice").await;
    for setting in ["world_readable", "shared", "invited", "joined"] {
        for stands in [
            Stands::Never,
            Stands::Invited,
            Stands::Joined,
            Stands::Left,
            Stands::Banned,
        ] {
            let bob = server.register(&format!("bob.{setting}.{stands:?}")).await;
            look(&alice, &bob, setting, stands).await;
        }
    }
}

async fn look(alice: &User, bob: &User, setting: &str, stands: Stands) {
    let what = format!("{setting}, {stands:?}");
    let room = alice
        .create_room(json!({"initial_state": [{
            "type": "m.room.history_visibility", "state_key": "",
            "content": {"history_visibility": setting},
        }]}))
        .await;
    // Four times: before the invite, between invite and join, in the room, and after all that.
    let mut events = Vec::new();
    for time in 1..=4 {
        match (time, stands) {
            (1, _) | (_, Stands::Never) | (3 | 4, Stands::Invited) | (4, Stands::Joined) => {}
            (2, _) => alice.invite(&room, &bob.id).await,
            (3, _) => drop(bob.join(&room).await),
            (_, Stands::Left) => bob.leave(&room).await,
            _ => alice.ban(&room, &bob.id).await,
        }
        let event = alice.send(&room, &format!("message{time}")).await;
        let thread = json!({
            "msgtype": "m.text", "body": format!("reply{time}"),
            "m.relates_to": {"rel_type": "m.thread", "event_id": event},
        });
        alice.send_event(&room, "m.room.message", thread).await;
        alice
            .set_state(
                &room,
                "org.example",
                "",
                json!({"x": format!("state{time}")}),
            )
            .await;
        events.push(event);
    }
    let in_room = matches!(stands, Stands::Joined | Stands::Left | Stands::Banned);
    let gone = matches!(stands, Stands::Left | Stands::Banned);
    let messages: BTreeSet<u8> = match (setting, stands) {
        ("world_readable", _) => (1..=4).collect(),
        ("shared", _) if in_room => (1..=if gone { 3 } else { 4 }).collect(),
        ("invited", Stands::Invited) => (2..=4).collect(),
        ("invited", _) if in_room => (2..=if gone { 3 } else { 4 }).collect(),
        ("joined", _) if in_room => (3..=if gone { 3 } else { 4 }).collect(),
        _ => BTreeSet::new(),
    };
    // State is as it stood when its reader last was in the room.
    let states: BTreeSet<u8> = match (setting, stands) {
        ("world_readable", _) => (1..=4).collect(),
        (_, Stands::Never | Stands::Invited) => BTreeSet::new(),
        _ => (1..=if gone { 3 } else { 4 }).collect(),
    };
    let id = encode(&room);
    let v1 = "/_matrix/client/v1";
    let mut paths = vec![
        format!("{V3}/sync?timeout=0&full_state=true"),
        format!("{V3}/rooms/{id}/messages?dir=b&limit=100"),
        format!("{V3}/rooms/{id}/messages?dir=f&limit=100"),
        format!("{V3}/rooms/{id}/state"),
        format!("{V3}/rooms/{id}/state/org.example/"),
        format!("{V3}/rooms/{id}/members"),
        format!("{V3}/rooms/{id}/initialSync"),
        format!("{V3}/initialSync?limit=100"),
        format!("{v1}/rooms/{id}/threads"),
        format!("{v1}/rooms/{id}/threads?include=participated"),
        format!("{v1}/rooms/{id}/hierarchy"),
        format!("{v1}/rooms/{id}/timestamp_to_event?ts=0&dir=f"),
        format!("{v1}/room_summary/{id}"),
    ];
    for event in events.iter().map(|event| encode(event)) {
        paths.push(format!("{V3}/rooms/{id}/event/{event}"));
        paths.push(format!("{V3}/rooms/{id}/context/{event}?limit=100"));
        paths.push(format!("{v1}/rooms/{id}/relations/{event}"));
        paths.push(format!("{v1}/rooms/{id}/relations/{event}/m.thread?dir=f"));
        paths.push(format!("{V3}/events/{event}"));
    }
    let mut by_event = BTreeSet::new();
    for path in paths {
        let answer = bob.get(&path).send().await;
        let text = String::from_utf8_lossy(&answer.bytes);
        for time in 1..=4_u8 {
            for word in ["message", "reply"] {
                let shown = text.contains(&format!("\"{word}{time}\""));
                assert!(
                    !shown || messages.contains(&time),
                    "{what}: {path} shows {word}{time}"
                );
            }
            let shown = text.contains(&format!("\"state{time}\""));
            assert!(
                !shown || states.contains(&time),
                "{what}: {path} shows state{time}"
            );
            if path.contains("/event/") && text.contains(&format!("\"message{time}\"")) {
                by_event.insert(time);
            }
        }
    }
    // It isn't that nothing is ever shown.
    if in_room {
        assert_eq!(by_event, messages, "{what}");
    }
}

/// E5: a room that one has no part in and a room that isn't there look the same, however one asks.
#[tokio::test(start_paused = true)]
async fn e5_a_private_room_is_as_if_it_were_not_there() {
    let (server, alice, room) = alone().await;
    alice
        .set_state(&room, "m.room.name", "", json!({"name": "canary"}))
        .await;
    let event = alice.send(&room, "canary").await;
    let bob = server.register("bob").await;
    let none = room.replace(|c: char| c.is_ascii_alphanumeric(), "x");
    assert_eq!(none.len(), room.len());
    let (alice_id, event) = (encode(&alice.id), encode(&event));
    let v1 = "/_matrix/client/v1";
    let get = |path: String| (Method::GET, path, json!({}));
    let post = |path: &str, body: Value| (Method::POST, format!("{V3}/rooms/ROOM/{path}"), body);
    let put = |path: &str, body: Value| (Method::PUT, format!("{V3}/rooms/ROOM/{path}"), body);
    let mut asked = vec![
        get(format!("{v1}/room_summary/ROOM")),
        get(format!("{v1}/rooms/ROOM/hierarchy")),
        get(format!("{v1}/rooms/ROOM/threads")),
        get(format!("{v1}/rooms/ROOM/timestamp_to_event?ts=0&dir=f")),
        get(format!("{v1}/rooms/ROOM/relations/{event}")),
        (Method::POST, format!("{V3}/join/ROOM"), json!({})),
        (Method::POST, format!("{V3}/knock/ROOM"), json!({})),
        post("join", json!({})),
        post("leave", json!({})),
        post("forget", json!({})),
        post("invite", json!({"user_id": bob.id})),
        post("kick", json!({"user_id": alice.id})),
        post("kick", json!({"user_id": bob.id})),
        post("unban", json!({"user_id": bob.id})),
        post("ban", json!({"user_id": alice.id})),
        post("unban", json!({"user_id": alice.id})),
        post("upgrade", json!({"new_version": "12"})),
        post("report", json!({"reason": "x"})),
        post(&format!("report/{event}"), json!({"reason": "x"})),
        post(&format!("receipt/m.read/{event}"), json!({})),
        post("read_markers", json!({"m.fully_read": "$x"})),
        put("send/m.room.message/1", json!({"body": "x"})),
        put("state/m.room.topic/", json!({"topic": "x"})),
        put(&format!("redact/{event}/2"), json!({})),
        put(
            &format!("typing/{}", encode(&bob.id)),
            json!({"typing": true, "timeout": 1_000}),
        ),
    ];
    for path in [
        "state",
        "state/m.room.name/",
        "members",
        "joined_members",
        "messages?dir=b",
        "aliases",
        "initialSync",
        &format!("event/{event}"),
        &format!("context/{event}"),
        &format!("state/m.room.member/{alice_id}"),
    ] {
        asked.push(get(format!("{V3}/rooms/ROOM/{path}")));
    }
    let mut differ = Vec::new();
    for (method, path, body) in asked {
        let mut seen = Vec::new();
        for room in [&room, &none] {
            let path = path.replace("ROOM", &encode(room));
            let request = bob.request(method.clone(), &path);
            let request = if method == Method::GET {
                request
            } else {
                request.json(&body)
            };
            let answer = request.send().await;
            let text = String::from_utf8(answer.bytes.to_vec())
                .unwrap()
                .replace(room, "ROOM");
            assert!(
                !text.contains("canary") && !text.contains(&alice.id),
                "{method} {path}: {text}"
            );
            seen.push((answer.status, text));
        }
        if seen[0] != seen[1] {
            differ.push(format!("{method} {path}: {seen:?}"));
        }
    }
    assert!(differ.is_empty(), "{}", differ.join("\n"));
}

/// E8: whichever way one comes to a redacted event, its content is gone; counts go with the room that is left.
#[tokio::test(start_paused = true)]
async fn e8_redacted_content_and_counts_of_left_rooms_are_gone() {
    let (server, alice, room) = alone().await;
    let bob = server.register("bob").await;
    alice.invite(&room, &bob.id).await;
    bob.join(&room).await;
    let root = alice.send(&room, "root").await;
    let related = json!({
        "msgtype": "m.text", "body": "canary bob",
        "m.relates_to": {"rel_type": "m.thread", "event_id": root},
        "m.mentions": {"user_ids": [bob.id]},
    });
    let event = alice.send_event(&room, "m.room.message", related).await;
    let (id, e, r) = (encode(&room), encode(&event), encode(&root));
    let before = bob.sync(None).await;
    let count = |sync: &Value| {
        sync["rooms"]["join"][&room]["unread_notifications"]["highlight_count"].clone()
    };
    assert_eq!(count(&before), 1);
    alice.redact(&room, &event).await;
    let v1 = "/_matrix/client/v1";
    for path in [
        format!("{V3}/rooms/{id}/event/{e}"),
        format!("{V3}/rooms/{id}/context/{e}?limit=50"),
        format!("{V3}/rooms/{id}/context/{r}?limit=50"),
        format!("{V3}/rooms/{id}/messages?dir=b&limit=50"),
        format!("{v1}/rooms/{id}/relations/{r}"),
        format!("{v1}/rooms/{id}/threads"),
        format!("{V3}/sync?timeout=0"),
        format!("{V3}/initialSync?limit=50"),
        format!("{V3}/events/{e}"),
    ] {
        let answer = bob.get(&path).send().await;
        let text = String::from_utf8_lossy(&answer.bytes);
        assert!(!text.contains("canary"), "{path}: {text}");
    }
    bob.leave(&room).await;
    let after = bob.sync(None).await;
    assert_eq!(after["rooms"]["join"][&room], Value::Null);
    assert!(!after.to_string().contains("highlight_count"), "{after}");
}

/// G1: what is no JSON is refused wherever JSON is read: forms, files, nothing at all where something is needed.
#[tokio::test(start_paused = true)]
async fn g1_forms_and_files_are_no_json() {
    let (server, alice, _) = alone().await;
    let form =
        "--x\r\ncontent-disposition: form-data; name=\"a\"; filename=\"b\"\r\n\r\n{}\r\n--x--\r\n";
    for (kind, body) in [
        ("multipart/form-data; boundary=x", form),
        (
            "application/x-www-form-urlencoded",
            "type=m.login.password&user=a",
        ),
        ("application/json", "\u{1f}\u{8b}"),
    ] {
        let login = server.post(format!("{V3}/login")).body(body, kind);
        login.send().await.error(400, "M_NOT_JSON");
        let create = alice.post(format!("{V3}/createRoom")).body(body, kind);
        create.send().await.error(400, "M_NOT_JSON");
    }
}

/// G8: numbers beyond all sense and positions of the future are cut or refused, and nobody waits for ever.
#[tokio::test(start_paused = true)]
async fn g8_absurd_numbers_and_future_positions() {
    // Another server's position, far ahead of this one's.
    let (_other, carol, elsewhere) = alone().await;
    for n in 0..50 {
        carol.send(&elsewhere, &n.to_string()).await;
    }
    let future = carol.sync(None).await["next_batch"]
        .as_str()
        .unwrap()
        .to_owned();
    let (_server, alice, room) = alone().await;
    let event = encode(&alice.send(&room, "x").await);
    let (id, v1) = (encode(&room), "/_matrix/client/v1");
    let numbers = [
        "0",
        "-1",
        "1000000000",
        "1000000000000",
        "9223372036854775808",
        "99999999999999999999999",
        "1e9",
        "x",
        "",
    ];
    for path in [
        format!("{V3}/rooms/{id}/messages?dir=b&limit=N"),
        format!("{V3}/rooms/{id}/context/{event}?limit=N"),
        format!("{V3}/rooms/{id}/initialSync?limit=N"),
        format!("{V3}/initialSync?limit=N"),
        format!("{V3}/publicRooms?limit=N"),
        format!("{v1}/rooms/{id}/threads?limit=N"),
        format!("{v1}/rooms/{id}/relations/{event}?limit=N"),
        format!("{v1}/rooms/{id}/hierarchy?limit=N&max_depth=N"),
        format!("{v1}/rooms/{id}/timestamp_to_event?dir=b&ts=N"),
        format!("{V3}/sync?timeout=N"),
        format!("{V3}/sync?timeout=N&since={future}"),
        format!("{V3}/events?timeout=N&from={future}"),
        format!("{V3}/rooms/{id}/messages?dir=b&from={future}&limit=N"),
        format!("{V3}/rooms/{id}/messages?dir=f&to={future}&limit=N"),
        format!("{V3}/rooms/{id}/members?at={future}&N"),
    ] {
        for number in numbers {
            let path = path.replace('N', number);
            let began = tokio::time::Instant::now();
            let answer = alice.get(&path).send().await;
            let status = answer.status.as_u16();
            assert!(
                [200, 400, 404].contains(&status),
                "{path}: {status} {}",
                answer.body
            );
            assert!(
                began.elapsed().as_secs() < 600,
                "{path}: waited {:?}",
                began.elapsed()
            );
        }
    }
    for (path, body) in [
        (
            format!("{V3}/user_directory/search"),
            json!({"search_term": "a", "limit": 1_000_000_000}),
        ),
        (format!("{V3}/publicRooms"), json!({"limit": 1_000_000_000})),
        (
            format!("{V3}/user/{}/filter", encode(&alice.id)),
            json!({"room": {"timeline": {"limit": 1_000_000_000}}}),
        ),
    ] {
        let answer = alice.post(&path).json(body).send().await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.body);
    }
}

/// G11: locked, suspended and deactivated have each their code; a poll under way ends with the session.
#[tokio::test(start_paused = true)]
async fn g11_polls_end_with_their_session() {
    for (standing, errcode) in [
        (Some(Standing::Locked(true)), "M_USER_LOCKED"),
        (None, "M_UNKNOWN_TOKEN"),
    ] {
        let (server, alice, room) = alone().await;
        let since = alice.sync(None).await["next_batch"]
            .as_str()
            .unwrap()
            .to_owned();
        let poll = alice
            .sync_request(Some(&since))
            .query("timeout", "30000")
            .send();
        let began = tokio::time::Instant::now();
        let end = async {
            tokio::time::sleep(std::time::Duration::from_secs(1)).await;
            match standing {
                Some(standing) => server
                    .api
                    .accounts
                    .set_standing(&alice.id, standing)
                    .await
                    .unwrap(),
                None => server.api.deactivate(&alice.id, false).await.unwrap(),
            }
        };
        let (answer, ()) = tokio::join!(poll, end);
        assert_eq!(answer.status, 401, "{errcode}: {}", answer.body);
        assert!(
            began.elapsed().as_secs() < 3,
            "{errcode}: {:?}",
            began.elapsed()
        );
        let state = alice.get(format!("{V3}/rooms/{}/state", encode(&room)));
        state.send().await.error(401, errcode);
    }
}

/// R3.9: who takes no invites gets none, by whichever way one is written.
#[tokio::test(start_paused = true)]
async fn invites_are_blocked_by_every_way() {
    let (server, alice, room) = alone().await;
    let bob = server.register("bob").await;
    let path = format!(
        "{V3}/user/{}/account_data/m.invite_permission_config",
        bob.id
    );
    let _ = bob
        .put(path)
        .json(json!({"default_action": "block"}))
        .send()
        .await
        .ok();
    let invite = json!({"membership": "invite"});
    let by_state = format!(
        "{V3}/rooms/{}/state/m.room.member/{}",
        encode(&room),
        bob.id
    );
    let first = json!({"type": "m.room.member", "state_key": bob.id, "content": invite});
    let ways = [
        (
            Method::POST,
            format!("{V3}/rooms/{}/invite", encode(&room)),
            json!({"user_id": bob.id}),
        ),
        (Method::PUT, by_state, invite.clone()),
        (
            Method::POST,
            format!("{V3}/createRoom"),
            json!({"invite": [bob.id]}),
        ),
        (
            Method::POST,
            format!("{V3}/createRoom"),
            json!({"initial_state": [first]}),
        ),
    ];
    for (method, path, body) in ways {
        let answer = alice.request(method, path).json(body).send().await;
        answer.error(403, "M_INVITE_BLOCKED");
    }
    assert_eq!(bob.sync(None).await["rooms"]["invite"], Value::Null);
    for (key, errcode) in [
        ("nobody", "M_INVALID_PARAM"),
        ("@bob:elsewhere", "M_INVALID_ROOM_STATE"),
    ] {
        let first = json!({"type": "m.room.member", "state_key": key, "content": invite});
        let create = alice.post(format!("{V3}/createRoom"));
        create
            .json(json!({"initial_state": [first]}))
            .send()
            .await
            .error(400, errcode);
    }
}

/// A new room calls itself by no name that leads elsewhere, or nowhere.
#[tokio::test(start_paused = true)]
async fn a_new_room_takes_no_foreign_alias_for_its_own() {
    let (_server, alice, _) = alone().await;
    let named = json!({"room_alias_name": "taken"});
    alice.create_room(named).await;
    let create = |alias: Value, own: Option<&str>| {
        let state = json!({"type": "m.room.canonical_alias", "content": alias});
        let mut asked = json!({"initial_state": [state]});
        if let Some(own) = own {
            asked["room_alias_name"] = own.into();
        }
        alice.post(format!("{V3}/createRoom")).json(asked).send()
    };
    for alias in [
        json!({"alias": "#taken:localhost"}),
        json!({"alias": "#free:localhost"}),
        json!({"alt_aliases": ["#taken:localhost"]}),
        json!({"alias": "#mine:localhost", "alt_aliases": ["#taken:localhost"]}),
    ] {
        create(alias, Some("mine")).await.error(400, "M_BAD_ALIAS");
    }
    create(json!({"alias": "none"}), None)
        .await
        .error(400, "M_INVALID_PARAM");
    create(json!({"alias": "#mine:localhost"}), Some("mine"))
        .await
        .ok();
    create(json!({}), None).await.ok();
}

/// G11: a suspended moderator removes nobody, whichever way it is written, and may leave by either.
#[tokio::test(start_paused = true)]
async fn g11_the_suspended_remove_nobody() {
    let (server, alice, room) = alone().await;
    let bob = server.register("bob").await;
    alice.invite(&room, &bob.id).await;
    bob.join(&room).await;
    let suspend = server
        .api
        .accounts
        .set_standing(&alice.id, Standing::Suspended(true));
    suspend.await.unwrap();
    let member = |of: &User| format!("{V3}/rooms/{}/state/m.room.member/{}", encode(&room), of.id);
    for membership in ["leave", "ban", "invite"] {
        let put = alice
            .put(member(&bob))
            .json(json!({"membership": membership}));
        put.send().await.error(403, "M_USER_SUSPENDED");
    }
    for way in ["kick", "ban"] {
        let post = alice.post(format!("{V3}/rooms/{}/{way}", encode(&room)));
        let post = post.json(json!({"user_id": bob.id})).send().await;
        post.error(403, "M_USER_SUSPENDED");
    }
    let leave = alice
        .put(member(&alice))
        .json(json!({"membership": "leave"}));
    let _ = leave.send().await.ok();
    assert_eq!(
        bob.state(&room, "m.room.member", &bob.id).await["membership"],
        "join"
    );
}

/// A login token is worth nothing after the password it rests on, through the API.
#[tokio::test(start_paused = true)]
async fn login_tokens_end_with_the_password() {
    let (server, alice, _) = alone().await;
    let auth = json!({
        "type": "m.login.password", "password": password("alice"),
        "identifier": {"type": "m.id.user", "user": "alice"},
    });
    let ask = alice
        .post("/_matrix/client/v1/login/get_token")
        .json(json!({"auth": auth}));
    let token = ask.send().await.ok()["login_token"].clone();
    let change = json!({"auth": auth, "new_password": "another", "logout_devices": false});
    let _ = alice
        .post(format!("{V3}/account/password"))
        .json(change)
        .send()
        .await
        .ok();
    let login = json!({"type": "m.login.token", "token": token});
    let login = server.post(format!("{V3}/login")).json(login).send().await;
    login.error(403, "M_FORBIDDEN");
}

/// R3.4, law 1: a new name and the note that rooms are to be told of it are one commit: a server that dies in between tells them
/// when it is back.
#[tokio::test(start_paused = true)]
async fn a_new_name_reaches_rooms_though_the_server_dies() {
    let (server, alice, room) = alone().await;
    let path = format!("{V3}/profile/{}/displayname", alice.id);
    // Named, and nothing shown yet.
    let mut put = Box::pin(alice.put(&path).json(json!({"displayname": "Al"})).send());
    let mut named = false;
    while !named && futures_util::poll!(&mut put).is_pending() {
        tokio::task::yield_now().await;
        named = server.api.accounts.profile(&alice.id).await.unwrap()["displayname"] == "Al";
    }
    assert!(named);
    drop(put);
    let server = server.restarted().await;
    assert_eq!(server.get(&path).send().await.ok()["displayname"], "Al");
    server.api.rooms.resume_profiles().await.unwrap();
    let alice = server.login("alice").await;
    let member = alice.state(&room, "m.room.member", &alice.id).await;
    assert_eq!(member["displayname"], "Al");
}
