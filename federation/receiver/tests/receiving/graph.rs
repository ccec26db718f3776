//! Graphs that a peer makes to do harm: what comes of them, by the running server.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use comity_testkit::{Pdu, encode};
use http::Method;
use serde_json::{Value, json};

use crate::world::World;

const V3: &str = "/_matrix/client/v3";
const V1: &str = "/_matrix/federation/v1";
const MESSAGE: &str = "m.room.message";

fn text(body: &str) -> Value {
    json!({ "msgtype": "m.text", "body": body })
}

/// An event as our user is shown it.
async fn shown(world: &World, event_id: &str) -> Value {
    let (room, event) = (encode(&world.room.id), encode(event_id));
    let path = format!("{V3}/rooms/{room}/event/{event}");
    world.alice.get(path).unchecked_events().send().await.ok()
}

/// An event as our server hands it to the peer.
async fn served(world: &World, event_id: &str) -> Value {
    let path = format!("{V1}/event/{}", encode(event_id));
    let peer = world.peer.to(world.here());
    peer.get(path).send().await.ok()["pdus"][0].clone()
}

/// A redaction by the peer's user, as the room's version writes it.
fn redaction(world: &World, target: &str) -> Pdu {
    let peer = &world.peer;
    let (room, who) = (&world.room, "mallory");
    if world.room.version == "10" {
        let mut event = peer.unsigned(room, who, "m.room.redaction", None, json!({}));
        event["redacts"] = json!(target);
        return peer.sign("10", event);
    }
    let content = json!({ "redacts": target });
    peer.event(room, who, "m.room.redaction", None, content)
}

/// A6: the greatest depth is a depth, and what comes later still comes last.
#[tokio::test(start_paused = true)]
async fn a6_the_greatest_depth() {
    for version in ["6", "11", "12"] {
        let mut world = World::new(version).await;
        let peer = &world.peer;
        let mut deep = peer.unsigned(&world.room, "mallory", MESSAGE, None, text("deep"));
        deep["depth"] = json!((1_u64 << 53) - 1);
        let deep = peer.sign(version, deep);
        world.send(&[&deep]).await;
        world.sees(&deep.id).await;
        world.room.went_on(&deep);
        let ours = world.alice.send(&world.room.id, "ours").await;
        let ours = served(&world, &ours).await;
        assert_eq!(ours["depth"], deep.json["depth"], "{version}");
        assert_eq!(world.texts().await, ["deep", "ours"], "{version}");
    }
}

/// A7: what a peer writes beside the event, and nobody has signed, reaches nobody.
#[tokio::test(start_paused = true)]
async fn a7_forged_unsigned_stays_out() {
    let mut world = World::new("11").await;
    let event = world.say("said");
    let mut forged = event.json.clone();
    forged["unsigned"] = json!({
        "age": 1, "transaction_id": "forged", "membership": "ban", "prev_content": { "x": "forged" },
        "redacted_because": { "type": "m.room.redaction", "content": { "reason": "forged" } },
        "m.relations": { "m.annotation": { "chunk": [{ "key": "forged" }] } },
    });
    world.transaction(&[&forged], &[]).await;
    world.sees(&event.id).await;
    let seen = shown(&world, &event.id).await;
    assert_eq!(seen["content"]["body"], "said");
    let synced = world.alice.sync(None).await.to_string();
    let passed_on = served(&world, &event.id).await.to_string();
    for text in [seen.to_string(), synced, passed_on] {
        assert!(
            !text.contains("forged") && !text.contains("redacted_because"),
            "{text}"
        );
    }
    assert_ne!(seen["unsigned"]["membership"], "ban");
}

/// B4: from version 5 on an event that was made after its server's key was good is none; whatever time
/// that server says, a key is good for seven days.
#[tokio::test(start_paused = true)]
async fn b4_a_key_is_good_for_its_time() {
    const DAY: u64 = 24 * 60 * 60 * 1_000;
    for (version, until, ts, is_in) in [
        ("4", 1, 2, true),
        ("6", 1, 2, false),
        ("11", 1, 2, false),
        ("11", 36_500, 6, true),
        ("11", 36_500, 8, false),
    ] {
        let mut world = World::new(version).await;
        let now = world.here().api.rooms.tenant().runtime().clock().now_ms();
        world.peer.publish_until(now + until * DAY);
        // A server that was just asked for its keys isn't asked again.
        tokio::time::sleep(Duration::from_secs(60)).await;
        let peer = &world.peer;
        let mut event = peer.unsigned(&world.room, "mallory", MESSAGE, None, text("dated"));
        event["origin_server_ts"] = json!(now + ts * DAY);
        let event = peer.sign(version, event);
        world.send(&[&event]).await;
        world.settle().await;
        let shows = world.shows(&event.id).await;
        assert_eq!(shows, is_in, "version {version}, key {until}, event {ts}");
    }
}

/// D2 (CVE-2025-54315): a room has one create event, from version 12 on it isn't cited, and its creators
/// stand in no power levels.
#[tokio::test(start_paused = true)]
async fn d2_a_second_creation_is_refused() {
    for version in ["11", "12"] {
        let levels = json!({ "events": { "m.room.power_levels": 0, "m.room.name": 0 } });
        let mut world = World::with(version, levels).await;
        let create = ("m.room.create".to_owned(), String::new());
        let first = world.room.state[&create].clone();
        let mallory = world.peer.user("mallory").to_string();
        let mut bad = Vec::new();
        let peer = &world.peer;
        let content = json!({ "creator": mallory, "room_version": version });
        let mut second = peer.unsigned(&world.room, "mallory", "m.room.create", Some(""), content);
        bad.push(second.clone());
        second["prev_events"] = json!([]);
        second["auth_events"] = json!([]);
        bad.push(second);
        if version == "12" {
            let name = json!({ "name": "cites its creation" });
            let mut cites = peer.unsigned(&world.room, "mallory", "m.room.name", Some(""), name);
            cites["auth_events"]
                .as_array_mut()
                .unwrap()
                .push(json!(first.id));
            bad.push(cites);
            let levels = json!({ "users": { &world.alice.id: 100 } });
            let lists = peer.unsigned(
                &world.room,
                "mallory",
                "m.room.power_levels",
                Some(""),
                levels,
            );
            bad.push(lists);
        }
        let path = format!("{V3}/rooms/{}/state", encode(&world.room.id));
        let state = async |world: &World| {
            let state = world.alice.get(&path).unchecked_events().send().await.ok();
            let mut ids: Vec<String> = state
                .as_array()
                .unwrap()
                .iter()
                .map(|event| event["event_id"].as_str().unwrap().to_owned())
                .collect();
            ids.sort();
            ids
        };
        let before = state(&world).await;
        for event in bad {
            let event = world.peer.sign(version, event);
            world.send(&[&event]).await;
            world.settle().await;
            assert!(!world.shows(&event.id).await, "{version} {}", event.json);
            assert_eq!(state(&world).await, before, "{version} {}", event.json);
        }
    }
}

/// D6: a redaction takes its target's content, also if it comes first; never the create event's,
/// another room's, or what its sender has no power over; and redactions of each other end.
#[tokio::test(start_paused = true)]
async fn d6_redactions() {
    for version in ["10", "11", "12"] {
        let mut world = World::new(version).await;
        let create = ("m.room.create".to_owned(), String::new());
        let create = world.room.state[&create].id.clone();
        let ours = world.alice.send(&world.room.id, "not theirs").await;
        let other = json!({ "preset": "public_chat", "room_version": version });
        let other = world.alice.create_room(other).await;
        let elsewhere = world.alice.send(&other, "elsewhere").await;
        for target in [&create, &ours, &elsewhere] {
            let event = redaction(&world, target);
            world.room.went_on(&event);
            world.send(&[&event]).await;
            world.sees(&event.id).await;
        }
        let seen = shown(&world, &create).await;
        assert_eq!(
            seen["unsigned"]["redacted_because"],
            Value::Null,
            "{version}"
        );
        assert_eq!(seen["content"]["room_version"], version);
        assert_eq!(shown(&world, &ours).await["content"]["body"], "not theirs");
        let path = format!("{V3}/rooms/{}/event/{}", encode(&other), encode(&elsewhere));
        let seen = world.alice.get(path).send().await.ok();
        assert_eq!(seen["content"]["body"], "elsewhere", "{version}");

        // Before its target, and in a circle, each of which names the next.
        let early = world.message("canary");
        let first = redaction(&world, &early.id);
        world.room.went_on(&first);
        world.send(&[&first]).await;
        world.sees(&first.id).await;
        world.send(&[&early]).await;
        world.settle().await;
        assert_eq!(
            shown(&world, &early.id).await["content"],
            json!({}),
            "{version}"
        );
        assert_eq!(
            served(&world, &early.id).await["content"],
            json!({}),
            "{version}"
        );
        let second = redaction(&world, &first.id);
        world.room.went_on(&second);
        let third = redaction(&world, &second.id);
        world.room.went_on(&third);
        world.send(&[&second, &third]).await;
        world.sees(&third.id).await;
        assert_eq!(
            shown(&world, &early.id).await["content"],
            json!({}),
            "{version}"
        );
        world.settle().await;
    }
}

/// D9 (CVE-2026-45076): many rejected events in between keep nobody from what was before them.
#[tokio::test(start_paused = true)]
async fn d9_rejected_events_amid_history() {
    let mut world = World::new("12").await;
    let before = world.say("before");
    world.send(&[&before]).await;
    for batch in 0..5 {
        let mut events = Vec::new();
        for n in 0..50 {
            let name = json!({ "name": format!("{batch} {n}") });
            let peer = &world.peer;
            let event = peer.event(&world.room, "mallory", "m.room.name", Some(""), name);
            world.room.last = event.clone();
            events.push(event);
        }
        world.send(&events.iter().collect::<Vec<_>>()).await;
    }
    let after = world.say("after");
    world.send(&[&after]).await;
    world.sees(&after.id).await;
    assert_eq!(world.texts().await, ["before", "after"]);
    let path = format!("{V1}/backfill/{}", encode(&world.room.id));
    let request = world.peer.to(world.here()).get(path);
    let page = request.query("v", &after.id).query("limit", "10");
    let page = page.send().await.ok();
    let bodies = page["pdus"].as_array().unwrap().iter();
    let bodies: Vec<&Value> = bodies.map(|event| &event["content"]["body"]).collect();
    assert_eq!(bodies[..2], ["after", "before"]);
}

/// D11: of 500 forks that one server makes, our next event follows 20 at most, and each of ours makes
/// them fewer.
#[tokio::test(start_paused = true)]
async fn d11_many_forks() {
    let mut world = World::new("12").await;
    let last = world.room.last.clone();
    for batch in 0..10 {
        let forks: Vec<Pdu> = (0..50)
            .map(|n| world.message(&format!("{batch} {n}")))
            .collect();
        world.send(&forks.iter().collect::<Vec<_>>()).await;
        world.sees(&forks[49].id).await;
    }
    assert_eq!(world.room.last.id, last.id);
    let mut parents = Vec::new();
    for n in 0..30 {
        let ours = world.alice.send(&world.room.id, &format!("ours {n}")).await;
        let ours = served(&world, &ours).await;
        parents.push(ours["prev_events"].as_array().unwrap().len());
    }
    assert!(parents.iter().all(|parents| *parents <= 20), "{parents:?}");
    assert_eq!(parents.last(), Some(&1), "{parents:?}");
}

/// D13: of 60 joins and 400 transactions in one room the last ones cost no more rows than the first. (What
/// a joining server is told grows with the members, and isn't counted.)
#[tokio::test(start_paused = true)]
async fn d13_joins_and_transactions_do_not_grow_dearer() {
    const ROUNDS: usize = 20;
    let mut world = World::new("11").await;
    let rows = |world: &World| {
        let stats = world.here().api.rooms.tenant().stats();
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        (count(&stats.rows_read), count(&stats.rows_written))
    };
    let mut since = world.alice.sync(None).await["next_batch"].clone();
    let (mut joins, mut transactions) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let before = rows(&world);
        for n in 0..3 {
            let user = format!("m{round}.{n}");
            world.room = world.peer.join(world.here(), &world.room.id, &user).await;
        }
        joins.push(rows(&world).1 - before.1);
        let before = rows(&world);
        for n in 0..20 {
            let event = world.say(&format!("{round} {n}"));
            world.send(&[&event]).await;
            loop {
                let request = world.alice.sync_request(since.as_str());
                let answer = request.query("timeout", "30000").send().await.ok();
                since = answer["next_batch"].clone();
                if answer.to_string().contains(&event.id) {
                    break;
                }
            }
        }
        let after = rows(&world);
        transactions.push(after.0 + after.1 - before.0 - before.1);
    }
    for costs in [joins, transactions] {
        let (first, last) = (costs[1], costs[ROUNDS - 1]);
        assert!(last <= first + first / 4, "{costs:?}");
    }
}

/// A3: a request is answered though one event in it is nested deeper than any may be, however deep.
#[tokio::test(start_paused = true)]
async fn a3_one_deep_event_is_dropped_alone() {
    for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
        for depth in [100, 200, 5_000] {
            let mut world = World::new("11").await;
            let peer = &world.peer;
            let content = json!({ "msgtype": "m.text", "body": "x", "deep": "HERE" });
            let deep = peer.unsigned(&world.room, "mallory", MESSAGE, None, content);
            let nested = format!("{}1{}", open.repeat(depth), close.repeat(depth));
            let (id, text) = peer.sign_written("11", deep, &nested);
            let good = world.say("good");
            let told = world.send_texts(&[&text, &good.json.to_string()]).await;
            assert_eq!(told, json!({ &good.id: {} }), "{open} {depth}");
            world.sees(&good.id).await;
            assert!(!world.shows(&id).await, "{open} {depth}");
            // The same event by a handshake.
            let path = format!("{V1}/send_knock/{}/{}", encode(&world.room.id), encode(&id));
            let request = world.peer.to(world.here()).request(Method::PUT, path);
            let answer = request.body(text, "application/json").send().await;
            answer.error(400, "M_BAD_JSON");
        }
    }
}
