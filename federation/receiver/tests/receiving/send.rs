//! `/send`: <https://spec.matrix.org/v1.19/server-server-api/#put_matrixfederationv1sendtxnid>

use comity_testkit::{Pdu, encode};
use serde_json::{Value, json};

use crate::world::{HERE, PEER, World};

const VERSIONS: [&str; 4] = ["6", "10", "11", "12"];

/// Law 8: what a peer sends becomes part of the room, and our next event follows it.
#[tokio::test(start_paused = true)]
async fn what_is_sent_is_seen() {
    for version in VERSIONS {
        let mut world = World::new(version).await;
        let (one, two) = (world.say("one"), world.say("two"));
        let told = world.send(&[&one, &two]).await;
        assert_eq!(told, json!({ &one.id: {}, &two.id: {} }), "{version}");
        world.sees(&two.id).await;
        assert_eq!(world.texts().await, ["one", "two"], "{version}");
        let reply = world.alice.send(&world.room.id, "three").await;
        let path = format!("/_matrix/federation/v1/event/{}", encode(&reply));
        let reply = world.peer.to(world.here()).get(path).send().await.ok();
        assert_eq!(
            reply["pdus"][0]["prev_events"],
            json!([two.id]),
            "{version}"
        );
    }
}

/// A transaction that comes again is answered as it was and does nothing, also after a restart.
#[tokio::test(start_paused = true)]
async fn a_transaction_counts_once() {
    let mut world = World::new("11").await;
    let (one, two) = (world.say("one"), world.say("two"));
    let told = world.transaction_as("same", &[&one.json], &[]).await;
    world.sees(&one.id).await;
    assert_eq!(world.transaction_as("same", &[&two.json], &[]).await, told);
    world.federation.restart(HERE).await;
    assert_eq!(world.transaction_as("same", &[&two.json], &[]).await, told);
    assert_eq!(world.texts().await, ["one"]);
}

/// What is too much for a transaction is refused as a whole.
#[tokio::test(start_paused = true)]
async fn a_transaction_is_bounded() {
    let mut world = World::new("11").await;
    let event = world.say("once");
    let edu = json!({ "edu_type": "m.typing", "content": {} });
    for (pdus, edus) in [(51, 0), (0, 101)] {
        let body = json!({
            "origin": PEER, "origin_server_ts": 1,
            "pdus": vec![&event.json; pdus], "edus": vec![&edu; edus],
        });
        let path = "/_matrix/federation/v1/send/many";
        let answer = world
            .peer
            .to(world.here())
            .put(path)
            .json(body)
            .send()
            .await;
        assert!(
            (400..500).contains(&answer.status.as_u16()),
            "{}",
            answer.status
        );
    }
    assert!(!world.shows(&event.id).await);
}

fn with(event: &Pdu, key: &str, value: Value) -> Value {
    let mut json = event.json.clone();
    json[key] = value;
    json
}

/// A1, B2: an event that is malformed, of another room or signed badly is dropped; the others of the
/// transaction are kept.
#[tokio::test(start_paused = true)]
async fn a1_b2_bad_events_are_dropped_alone() {
    for version in VERSIONS {
        let mut world = World::new(version).await;
        let bad = world.message("bad");
        let mut forged = bad.clone();
        forged.json["signatures"][PEER]["ed25519:evil"] = json!("A".repeat(86));
        let mut unsigned = bad.clone();
        unsigned.json["signatures"] = json!({});
        let ours = with(&bad, "sender", json!(world.alice.id));
        let bad = [
            with(&bad, "depth", json!(1.0)),
            with(&bad, "depth", json!(1_u64 << 53)),
            with(&bad, "depth", json!(-1)),
            with(&bad, "content", json!({ "body": 1.5 })),
            with(&bad, "type", json!("x".repeat(256))),
            with(&bad, "room_id", json!("!elsewhere:evil.test")),
            with(&bad, "prev_events", json!(vec!["$x"; 21])),
            forged.json,
            unsigned.json,
            ours,
            json!({}),
            json!("not an event"),
        ];
        let good = world.say("good");
        let pdus: Vec<&Value> = bad.iter().chain([&good.json]).collect();
        let told = world.transaction(&pdus, &[]).await;
        assert_eq!(told[&good.id], json!({}), "{version}");
        for (id, told) in told.as_object().unwrap() {
            assert!(id == &good.id || told["error"].is_string(), "{id} {told}");
        }
        world.sees(&good.id).await;
        assert_eq!(world.texts().await, ["good"], "{version}");
        assert!(!world.shows(&forged.id).await, "{version}");
    }
}

/// B3: what doesn't fit its hash is kept in its redacted form.
#[tokio::test(start_paused = true)]
async fn b3_a_wrong_hash_leaves_the_redacted_form() {
    let mut world = World::new("11").await;
    let event = world.say("what was hashed");
    let changed = with(&event, "content", json!({ "body": "what is told" }));
    world.transaction(&[&changed], &[]).await;
    world.sees(&event.id).await;
    assert_eq!(world.texts().await, Vec::<String>::new());
}

/// D10: what a banned user says on old parents is soft-failed: nobody sees it, nothing of ours
/// follows it, and what follows both is part of the room.
#[tokio::test(start_paused = true)]
async fn d10_the_banned_are_not_heard() {
    for version in VERSIONS {
        let mut world = World::new(version).await;
        let evader = world
            .peer
            .join(world.here(), &world.room.id, "evader")
            .await;
        world.room.last = evader.last.clone();
        let content = json!({ "msgtype": "m.text", "body": "evaded" });
        let evaded = world
            .peer
            .event(&evader, "evader", "m.room.message", None, content);
        let user = world.peer.user("evader");
        world.alice.ban(&world.room.id, user.as_str()).await;
        assert_eq!(world.send(&[&evaded]).await[&evaded.id], json!({}));
        world.settle().await;
        assert_eq!(world.texts().await, ["settled"], "{version}");
        let reply = world.alice.send(&world.room.id, "reply").await;
        let path = format!("/_matrix/federation/v1/event/{}", encode(&reply));
        let reply = world.peer.to(world.here()).get(path).send().await.ok();
        let prev = reply["pdus"][0]["prev_events"].as_array().unwrap().clone();
        assert!(!prev.contains(&json!(evaded.id)), "{version}");
    }
}

/// D3, D12: events that rest on events of another room, on two of a kind, or on themselves are
/// refused, and the room goes on.
#[tokio::test(start_paused = true)]
async fn d3_d12_wrong_ancestry_is_refused() {
    let mut world = World::new("11").await;
    let other = json!({ "preset": "public_chat", "room_version": "11" });
    let other = world.alice.create_room(other).await;
    let other = world.peer.join(world.here(), &other, "mallory").await;
    let foreign = &other.state[&("m.room.create".to_owned(), String::new())];
    let own = world.message("authorised from elsewhere").json["auth_events"].clone();
    let mut from_elsewhere = own.as_array().unwrap().clone();
    from_elsewhere.retain(|id| {
        let create = &world.room.state[&("m.room.create".to_owned(), String::new())];
        *id != json!(create.id)
    });
    from_elsewhere.push(json!(foreign.id));
    let mut twice = own.as_array().unwrap().clone();
    twice.push(twice[0].clone());
    for auth in [from_elsewhere, twice] {
        let mut event = world.message("wrong").json;
        event["auth_events"] = json!(auth);
        for key in ["hashes", "signatures"] {
            event.as_object_mut().unwrap().remove(key);
        }
        let event = world.peer.sign("11", event);
        world.send(&[&event]).await;
        world.settle().await;
        assert!(!world.shows(&event.id).await, "{auth:?}");
    }
    assert!(world.texts().await.iter().all(|text| text == "settled"));

    let mut world = World::new("1").await;
    let mut event = world.message("after itself").json;
    for key in ["hashes", "signatures"] {
        event.as_object_mut().unwrap().remove(key);
    }
    event["prev_events"] = json!([[event["event_id"], { "sha256": "A".repeat(43) }]]);
    let event = world.peer.sign("1", event);
    world.send(&[&event]).await;
    world.settle().await;
    assert_eq!(world.texts().await, ["settled"]);
}

/// F9: a server that the room shuts out is not heard, by whatever letters it writes its name.
#[tokio::test(start_paused = true)]
async fn f9_the_shut_out_are_not_heard() {
    let mut world = World::new("11").await;
    let acl = json!({ "allow": ["*"], "deny": ["EVIL.*"] });
    world
        .alice
        .set_state(&world.room.id, "m.room.server_acl", "", acl)
        .await;
    let event = world.say("shut out");
    let typing = json!({
        "edu_type": "m.typing",
        "content": {
            "room_id": world.room.id, "user_id": world.peer.user("mallory"), "typing": true,
        },
    });
    let heard = world.alice.send(&world.room.id, "heard by nobody").await;
    let mallory = world.peer.user("mallory");
    let read = json!({ "event_ids": [heard], "data": { "ts": 1 } });
    let read = json!({ "m.read": { mallory.as_str(): read } });
    let receipt = json!({ "edu_type": "m.receipt", "content": { &world.room.id: read } });
    let told = world.transaction(&[&event.json], &[typing, receipt]).await;
    assert!(told[&event.id]["error"].is_string(), "{told}");
    assert!(!world.shows(&event.id).await);
    let answer = world.alice.sync(None).await;
    let room = &answer["rooms"]["join"][&world.room.id];
    assert_eq!(room["ephemeral"]["events"], json!([]));
}
