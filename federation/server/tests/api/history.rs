//! <https://spec.matrix.org/v1.19/server-server-api/#retrieving-events>,
//! <https://spec.matrix.org/v1.19/server-server-api/#backfilling-and-retrieving-missing-events>

use comity_testkit::{Answer, Client, Federation, HostilePeer, User, encode};
use serde_json::{Value, json};

const A: &str = "a.test";
const V1: &str = "/_matrix/federation/v1";

async fn scene() -> (Federation, HostilePeer, User) {
    let federation = Federation::of([A]).await;
    let alice = federation[A].register("alice").await;
    let mallory = HostilePeer::on(&federation.wire, "mallory.test");
    (federation, mallory, alice)
}

fn public(version: &str) -> Value {
    json!({"preset": "public_chat", "room_version": version})
}

/// Everything that may be asked of an event in a room.
async fn ask_all(peer: &Client, room: &str, event: &str) -> Vec<Answer> {
    let (room, event) = (encode(room), encode(event));
    let mut answers = Vec::new();
    for path in [
        format!("/state/{room}?event_id={event}"),
        format!("/state_ids/{room}?event_id={event}"),
        format!("/event_auth/{room}/{event}"),
        format!("/backfill/{room}?v={event}&limit=10"),
        format!("/timestamp_to_event/{room}?ts=0&dir=f"),
    ] {
        answers.push(peer.get(format!("{V1}{path}")).send().await);
    }
    let missing = peer
        .post(format!("{V1}/get_missing_events/{room}"))
        .json(json!({"earliest_events": [], "latest_events": [event], "limit": 10}));
    answers.push(missing.send().await);
    answers
}

/// Threat E2: a server that isn't in a room learns nothing of it, not even that it is there.
#[tokio::test]
async fn e2_a_server_outside_is_refused() {
    let (federation, mallory, alice) = scene().await;
    let room = alice.create_room(public("12")).await;
    let event = alice.send(&room, "hi").await;
    let peer = mallory.to(&federation[A]);
    let there = ask_all(&peer, &room, &event).await;
    let nowhere = ask_all(&peer, "!nowhere:a.test", &event).await;
    for (there, nowhere) in there.into_iter().zip(nowhere) {
        assert_eq!(there.bytes, nowhere.bytes);
        there.error(403, "M_FORBIDDEN");
    }
    let path = format!("{V1}/event/{}", encode(&event));
    peer.get(path).send().await.error(404, "M_NOT_FOUND");
}

/// Threat E1: another room's event is answered as one that isn't there, byte by byte.
#[tokio::test]
async fn e1_another_rooms_event_is_a_missing_one() {
    let (federation, mallory, alice) = scene().await;
    for version in ["1", "6", "12"] {
        let room = alice.create_room(public(version)).await;
        let secret = alice
            .create_room(json!({"preset": "private_chat", "room_version": version}))
            .await;
        let event = alice.send(&secret, "hidden").await;
        mallory.join(&federation[A], &room, "m").await;
        let peer = mallory.to(&federation[A]);
        let foreign = ask_all(&peer, &room, &event).await;
        let missing = ask_all(&peer, &room, "$nowhere:a.test").await;
        for (foreign, missing) in foreign.iter().zip(&missing) {
            assert_eq!(foreign.status, missing.status);
            let foreign = foreign.body.to_string();
            assert!(!foreign.contains("hidden") && !foreign.contains(&secret));
            assert_eq!(
                foreign.contains("pdus"),
                missing.body.to_string().contains("pdus")
            );
        }
        for at in [0, 1, 2] {
            assert_eq!(foreign[at].bytes, missing[at].bytes);
            assert_eq!(foreign[at].status, 404);
        }
        let path = format!("{V1}/event/{}", encode(&event));
        peer.get(path).send().await.error(404, "M_NOT_FOUND");
    }
}

/// A server in the room reads what it needs: the state, what an event rests on, what came before; the same by ids and by events.
#[tokio::test]
async fn a_member_server_reads_state_and_history() {
    let (federation, mallory, alice) = scene().await;
    for version in ["1", "6", "11", "12"] {
        let room = alice.create_room(public(version)).await;
        mallory.join(&federation[A], &room, "m").await;
        let first = alice.send(&room, "first").await;
        let second = alice.send(&room, "second").await;
        let peer = mallory.to(&federation[A]);
        let get = async |path: String| peer.get(format!("{V1}{path}")).send().await.ok();
        let (in_room, at) = (encode(&room), encode(&second));

        let event = get(format!("/event/{at}")).await;
        assert_eq!(event["pdus"][0]["content"]["body"], "second");

        let state = get(format!("/state/{in_room}?event_id={at}")).await;
        let ids = get(format!("/state_ids/{in_room}?event_id={at}")).await;
        for (events, of) in [("pdus", "pdu_ids"), ("auth_chain", "auth_chain_ids")] {
            let (events, ids) = (state[events].as_array(), ids[of].as_array());
            let (events, ids) = (events.unwrap(), ids.unwrap());
            assert_eq!(events.len(), ids.len());
            assert!(events.iter().any(|event| event["type"] == "m.room.member"));
        }
        let members = state["pdus"].as_array().unwrap().iter();
        let members = members.filter(|event| event["type"] == "m.room.member");
        assert_eq!(members.count(), 2);

        let auth = get(format!("/event_auth/{in_room}/{at}")).await;
        let auth = auth["auth_chain"].as_array().unwrap();
        assert!(
            auth.iter()
                .any(|event| event["type"] == "m.room.power_levels")
        );

        let back = get(format!("/backfill/{in_room}?v={at}&limit=2")).await;
        let back = back["pdus"].as_array().unwrap();
        let bodies: Vec<_> = back.iter().map(|event| &event["content"]["body"]).collect();
        assert_eq!(bodies, ["second", "first"]);

        let missing = peer
            .post(format!("{V1}/get_missing_events/{in_room}"))
            .json(json!({"earliest_events": [], "latest_events": [second], "limit": 1}));
        let missing = missing.send().await.ok();
        assert_eq!(missing["events"][0]["content"]["body"], "first");

        let near = get(format!(
            "/timestamp_to_event/{in_room}?ts=9999999999999&dir=b"
        ))
        .await;
        assert!([&first, &second].contains(&&near["event_id"].as_str().unwrap().to_owned()));
    }
}

/// Threat E3: what was said when no user of the asking server could see it goes out redacted, whatever is asked; to a
/// server that never was in the room nothing goes out at all.
#[tokio::test(start_paused = true)]
async fn e3_servers_see_what_their_users_may_see() {
    let (federation, mallory, alice) = scene().await;
    let peer = mallory.to(&federation[A]);
    for setting in ["world_readable", "shared", "invited", "joined"] {
        let visibility = json!({
            "type": "m.room.history_visibility", "content": { "history_visibility": setting },
        });
        let room = json!({
            "preset": "public_chat", "room_version": "11", "initial_state": [visibility],
        });
        let room = alice.create_room(room).await;
        let before = alice.send(&room, "canary before").await;
        for answer in ask_all(&peer, &room, &before).await {
            answer.error(403, "M_FORBIDDEN");
        }
        mallory.join(&federation[A], &room, "m").await;
        let within = alice.send(&room, "canary within").await;
        let mut told = String::new();
        for event in [&before, &within] {
            let path = format!("{V1}/event/{}", encode(event));
            told.push_str(&peer.get(path).send().await.body.to_string());
            for answer in ask_all(&peer, &room, event).await {
                told.push_str(&answer.ok().to_string());
            }
        }
        let open = ["world_readable", "shared"].contains(&setting);
        for (word, seen) in [("canary before", open), ("canary within", true)] {
            assert_eq!(told.contains(word), seen, "{setting}: {word}");
        }
    }
}

/// Threat E8: what was redacted is served in its redacted form, whatever is asked.
#[tokio::test(start_paused = true)]
async fn e8_redacted_events_are_served_redacted() {
    let (federation, mallory, alice) = scene().await;
    let peer = mallory.to(&federation[A]);
    for version in ["6", "12"] {
        let room = alice.create_room(public(version)).await;
        mallory.join(&federation[A], &room, "m").await;
        let topic = json!({ "topic": "canary topic" });
        let topic = alice.set_state(&room, "m.room.topic", "", topic).await;
        let message = alice.send(&room, "canary message").await;
        let last = alice.send(&room, "last").await;
        let told = async || {
            let mut told = String::new();
            for event in [&topic, &message, &last] {
                let path = format!("{V1}/event/{}", encode(event));
                told.push_str(&peer.get(path).send().await.ok().to_string());
                for answer in ask_all(&peer, &room, event).await {
                    told.push_str(&answer.ok().to_string());
                }
            }
            told
        };
        assert!(told().await.contains("canary"));
        alice.redact(&room, &topic).await;
        alice.redact(&room, &message).await;
        assert!(!told().await.contains("canary"), "{version}");
    }
}

/// Threat F9: a server that the room shuts out asks in vain, however its name is written in the list.
#[tokio::test]
async fn f9_a_server_shut_out_is_refused() {
    let (federation, mallory, alice) = scene().await;
    let room = alice.create_room(public("12")).await;
    mallory.join(&federation[A], &room, "m").await;
    let event = alice.send(&room, "hi").await;
    let peer = mallory.to(&federation[A]);
    for answer in ask_all(&peer, &room, &event).await {
        answer.ok();
    }
    let acl = json!({"allow": ["*"], "deny": ["MALLORY.*"]});
    alice.set_state(&room, "m.room.server_acl", "", acl).await;
    for answer in ask_all(&peer, &room, &event).await {
        answer.error(403, "M_FORBIDDEN");
    }
    let user = encode("@m:mallory.test");
    for path in ["make_join", "make_leave", "make_knock"] {
        let path = format!("{V1}/{path}/{}/{user}?ver=12", encode(&room));
        peer.get(path).send().await.error(403, "M_FORBIDDEN");
    }
}

/// Bounds: malformed and missing parameters are 400.
#[tokio::test]
async fn what_cannot_be_read_is_refused() {
    let (federation, mallory, alice) = scene().await;
    let room = alice.create_room(public("12")).await;
    mallory.join(&federation[A], &room, "m").await;
    let peer = mallory.to(&federation[A]);
    let room = encode(&room);
    for path in [
        format!("/backfill/{room}?limit=10"),
        format!("/backfill/{room}?v=$x"),
        format!("/backfill/{room}?v=nothing&limit=1"),
        format!("/backfill/{room}?v=$x&limit=-1"),
        format!("/state/{room}"),
        format!("/state/{room}?event_id=x"),
        format!("/timestamp_to_event/{room}?ts=1&dir=sideways"),
        "/event_auth/room/event".to_owned(),
    ] {
        let answer = peer.get(format!("{V1}{path}")).send().await;
        assert_eq!(answer.status, 400, "{path}");
    }
}
