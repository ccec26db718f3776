//! Section E, disclosure.

use std::collections::BTreeSet;

use comity_testkit::{Server, User, encode};
use http::Method;
use serde_json::{Value, json};

use crate::{SLIDING, V3, alone};

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
    // Sliding sync, by a list and by name.
    let all = json!({"timeline_limit": 100, "required_state": [["*", "*"]]});
    let mut bodies = vec![
        json!({"lists": {"a": all}}),
        json!({"room_subscriptions": {&room: all}}),
    ];
    for body in &mut bodies {
        for extension in ["account_data", "receipts", "typing"] {
            body["extensions"][extension] = json!({"enabled": true});
        }
    }
    let gets = paths.into_iter().map(|path| (bob.get(&path), path));
    let posts = bodies
        .into_iter()
        .map(|body| (bob.post(SLIDING).json(body), SLIDING.to_owned()));
    let mut by_event = BTreeSet::new();
    for (request, path) in gets.chain(posts) {
        let answer = request.send().await;
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

/// E4: after a kick the room stays listed, so that the user learns of it, with nothing after the kick; a connection that begins then
/// sees the same.
#[tokio::test(start_paused = true)]
async fn e4_whoever_was_kicked_learns_of_it_and_of_nothing_after() {
    let (server, alice, room) = alone().await;
    let bob = server.register("bob").await;
    alice.invite(&room, &bob.id).await;
    bob.join(&room).await;
    let config = json!({"timeline_limit": 50, "required_state": [["*", "*"]]});
    let mut body = json!({"lists": {"a": config}, "room_subscriptions": {&room: config}});
    for extension in ["account_data", "receipts", "typing"] {
        body["extensions"][extension] = json!({"enabled": true});
    }
    let slide = async |pos: Option<&str>| {
        let request = bob.post(SLIDING).json(body.clone());
        let request = match pos {
            Some(pos) => request.query("pos", pos),
            None => request,
        };
        request.send().await.ok()
    };
    let first = slide(None).await;
    alice.send(&room, "before").await;
    alice.kick(&room, &bob.id).await;
    let event = alice.send(&room, "canary").await;
    alice
        .set_state(&room, "m.room.topic", "", json!({"topic": "canary"}))
        .await;
    let typing = format!("{V3}/rooms/{}/typing/{}", encode(&room), encode(&alice.id));
    let body_of = json!({"typing": true, "timeout": 60_000});
    let _ = alice.put(typing).json(body_of).send().await.ok();
    let receipt = format!(
        "{V3}/rooms/{}/receipt/m.read/{}",
        encode(&room),
        encode(&event)
    );
    let _ = alice.post(receipt).json(json!({})).send().await.ok();
    let pos = |answer: &Value| answer["pos"].as_str().unwrap().to_owned();
    let kicked = slide(Some(&pos(&first))).await;
    let later = slide(Some(&pos(&kicked))).await;
    let anew = slide(None).await;
    for answer in [&kicked, &anew] {
        let timeline = answer["rooms"][&room]["timeline"].as_array().unwrap();
        let last = timeline.last().unwrap();
        assert_eq!(last["state_key"], bob.id.as_str(), "{answer}");
        assert_eq!(last["content"]["membership"], "leave", "{answer}");
        assert!(answer.to_string().contains("before"), "{answer}");
        assert_eq!(answer["lists"]["a"]["count"], 1, "{answer}");
    }
    assert_eq!(later["rooms"], json!({}), "{later}");
    for answer in [kicked, later, anew] {
        let told = answer.to_string();
        assert!(!told.contains("canary") && !told.contains(&event), "{told}");
        let typing = &answer["extensions"]["typing"]["rooms"];
        assert_eq!(typing, &json!({}), "{told}");
    }
}

/// E4: of a room that one isn't in, filters go by what it was when one was invited or removed, also after a restart.
#[tokio::test(start_paused = true)]
async fn e4_filters_tell_nothing_of_a_room_since_one_was_in_it() {
    for (stands, before) in [
        ("invited", false),
        ("invited", true),
        ("removed", false),
        ("removed", true),
    ] {
        let (server, alice, room) = alone().await;
        let bob = server.register("bob").await;
        let encrypt = async || {
            let encryption = json!({"algorithm": "m.megolm.v1.aes-sha2"});
            alice
                .set_state(&room, "m.room.encryption", "", encryption)
                .await
        };
        let encrypted = async |bob: &User| {
            let config = json!({"timeline_limit": 1, "required_state": []});
            let mut body = json!({"lists": {"all": config, "encrypted": config}});
            body["lists"]["encrypted"]["filters"] = json!({"is_encrypted": true});
            let answer = bob.post(SLIDING).json(body).send().await.ok();
            assert_eq!(answer["lists"]["all"]["count"], 1, "{stands} {before}");
            answer["lists"]["encrypted"]["count"] == 1
        };
        if before {
            encrypt().await;
        }
        alice.invite(&room, &bob.id).await;
        if stands == "removed" {
            bob.join(&room).await;
            assert_eq!(encrypted(&bob).await, before);
            alice.kick(&room, &bob.id).await;
        }
        if !before {
            encrypt().await;
        }
        assert_eq!(encrypted(&bob).await, before, "{stands}");
        let server = server.restarted().await;
        let bob = server.login("bob").await;
        assert_eq!(encrypted(&bob).await, before, "{stands}, after a restart");
    }
}

/// E4: who subscribes to a foreign room learns nothing of it, not even whether it is there.
#[tokio::test(start_paused = true)]
async fn e4_a_foreign_room_can_not_be_subscribed_to() {
    let (server, alice, room) = alone().await;
    alice.send(&room, "canary").await;
    let public = alice.create_room(json!({"preset": "public_chat"})).await;
    let bob = server.register("bob").await;
    let none = room.replace(|c: char| c.is_ascii_alphanumeric(), "x");
    for foreign in [&room, &public, &none] {
        let config = json!({"timeline_limit": 50, "required_state": [["*", "*"]]});
        let mut body = json!({"room_subscriptions": {foreign: config}});
        for extension in ["account_data", "receipts", "typing"] {
            body["extensions"][extension] = json!({"enabled": true, "rooms": [foreign]});
        }
        let answer = bob.post(SLIDING).json(body).send().await.ok();
        assert_eq!(answer["rooms"], json!({}), "{answer}");
        assert!(!answer.to_string().contains(foreign.as_str()), "{answer}");
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
