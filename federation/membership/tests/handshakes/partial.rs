//! Joining without waiting for the members:
//! <https://spec.matrix.org/v1.19/server-server-api/#put_matrixfederationv2send_joinroomideventid>
//! (`omit_members`), [MSC3902](https://github.com/matrix-org/matrix-spec-proposals/pull/3902).

use std::time::Duration;

use comity_testkit::{Fate, Federation, HostilePeer, User, Wire, encode};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout};

use crate::{
    hostile::EVIL,
    pair::{ONE, Pair, TWO, join, synced},
};

pub const THREE: &str = "three.test";

const LAZY: &str = r#"{"room":{"state":{"lazy_load_members":true}}}"#;

/// How long it takes to learn who is in a room.
const LONG: Duration = Duration::from_secs(100);

/// From now on it takes that long with our first server.
fn hide_members(wire: &Wire) {
    let slow = |path: &str| path.contains("/state_ids/").then_some(Fate::After(LONG));
    judge_paths(wire, slow);
}

/// From now on what is asked of our first server meets this fate.
pub fn judge_paths(wire: &Wire, fate: impl Fn(&str) -> Option<Fate> + Send + Sync + 'static) {
    wire.judge(move |passing| {
        let fate = fate(passing.request.uri().path());
        let fate = fate.filter(|_| passing.to.as_str() == ONE);
        fate.unwrap_or(Fate::Arrives)
    });
}

fn show_members(wire: &Wire) {
    wire.judge(|_| Fate::Arrives);
}

async fn lazily(user: &User, since: Option<&str>) -> Value {
    let request = user.sync_request(since).query("timeout", "0");
    request.query("filter", LAZY).send().await.ok()
}

fn members(room: &str) -> String {
    format!("/_matrix/client/v3/rooms/{}/members", encode(room))
}

/// Whose member events these are, sorted.
fn who(events: &Value) -> Vec<String> {
    let events = events.as_array().unwrap().iter();
    let members = events.filter(|event| event["type"] == "m.room.member");
    let mut who: Vec<String> = members
        .map(|event| event["state_key"].as_str().unwrap().to_owned())
        .collect();
    who.sort();
    who.dedup();
    who
}

pub fn bodies(room: &Value) -> Vec<&str> {
    let events = room["timeline"]["events"].as_array().unwrap().iter();
    let bodies = events.filter_map(|event| event["content"]["body"].as_str());
    bodies.collect()
}

/// A room of another server with several members, joined while nobody says who they are.
async fn partial() -> (Pair, String, Vec<String>) {
    let pair = Pair::new().await;
    let room = pair.room("public_chat", "11").await;
    let mut everybody = vec![pair.alice.id.clone(), pair.bob.id.clone()];
    for name in ["carol", "dave", "erin"] {
        let user = pair.federation[ONE].register(name).await;
        user.join(&room).await;
        everybody.push(user.id.clone());
    }
    everybody.sort();
    hide_members(&pair.federation.wire);
    assert_eq!(join(&pair.bob, &room, &[ONE]).await.0, 200);
    (pair, room, everybody)
}

/// MSC3902: the room is there at once for clients that load members lazily, and messages go both ways; for
/// others it is there when its members are known, which is when who asks for them is answered.
#[tokio::test(start_paused = true)]
async fn msc3902_a_room_is_used_before_its_members_are_known() {
    let (pair, room, everybody) = partial().await;
    let (alice, bob) = (&pair.alice, &pair.bob);
    let early = bob.sync(None).await;
    assert!(early["rooms"]["join"].get(&room).is_none());
    let since = early["next_batch"].as_str().unwrap();
    let first = lazily(bob, None).await;
    let lazy = first["next_batch"].as_str().unwrap();
    assert!(first["rooms"]["join"].get(&room).is_some());

    bob.send(&room, "hello").await;
    alice.send(&room, "welcome").await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let heard = alice.messages(&room, 5).await;
    assert!(
        heard
            .iter()
            .any(|event| event["content"]["body"] == "hello")
    );
    let news = lazily(bob, Some(lazy)).await;
    let news = &news["rooms"]["join"][&room];
    assert_eq!(bodies(news), ["hello", "welcome"]);
    assert!(who(&news["state"]["events"]).contains(&alice.id));
    let none = bob.sync(Some(since)).await;
    assert!(none["rooms"]["join"].get(&room).is_none());
    tokio::time::sleep(LONG).await;
    let answer = bob.get(members(&room)).send().await.ok();
    assert_eq!(who(&answer["chunk"]), everybody);
    let whole = bob.sync(Some(since)).await;
    let whole = &whole["rooms"]["join"][&room];
    assert_eq!(bodies(whole), ["hello", "welcome"]);
    // What came with the join and since stands in the timeline.
    let others: Vec<_> = everybody.iter().filter(|id| **id != bob.id).collect();
    assert_eq!(
        who(&whole["state"]["events"]).iter().collect::<Vec<_>>(),
        others
    );
    let later = lazily(bob, Some(lazy)).await;
    let later = &later["rooms"]["join"][&room];
    assert!(who(&later["state"]["events"]).len() < everybody.len());
}

/// MSC3902: whoever is seen to go from a room whose other members aren't known is followed no longer.
#[tokio::test(start_paused = true)]
async fn msc3902_who_goes_from_a_partial_room_is_known_to_have_gone() {
    let (pair, room, _) = partial().await;
    let frank = pair.federation[ONE].register("frank").await;
    let mut since = lazily(&pair.bob, None).await["next_batch"].clone();
    let mut seen = async |list: &str| {
        loop {
            let news = lazily(&pair.bob, since.as_str()).await;
            since = news["next_batch"].clone();
            let listed = news["device_lists"][list].as_array();
            if listed.is_some_and(|users| users.contains(&json!(frank.id))) {
                break;
            }
            sleep(Duration::from_millis(100)).await;
        }
    };
    let soon = Duration::from_secs(10);
    frank.join(&room).await;
    timeout(soon, seen("changed")).await.expect("frank came");
    let leave = format!("/_matrix/client/v3/rooms/{}/leave", encode(&room));
    frank.post(leave).json(json!({})).send().await.ok();
    timeout(soon, seen("left")).await.expect("frank went");
}

/// MSC3902: while its members aren't known, a server lets nobody in and tells nobody the state.
#[tokio::test(start_paused = true)]
async fn msc3902_a_partial_room_lets_nobody_in() {
    let (pair, room, _) = partial().await;
    pair.federation.wire.cut(ONE, TWO);
    let three = comity_testkit::HostilePeer::on(&pair.federation.wire, "three.test");
    let path = format!(
        "/_matrix/federation/v1/make_join/{}/{}",
        encode(&room),
        encode(three.user("frank").as_str())
    );
    let client = three.to(&pair.federation[TWO]);
    let answer = client.get(path).query("ver", "11").send().await;
    answer.error(404, "M_NOT_FOUND");
}

/// A room that was not complete when the server lost its power is completed after the next start.
#[tokio::test(start_paused = true)]
async fn a_join_is_completed_after_a_restart() {
    let (mut pair, room, everybody) = partial().await;
    pair.bob.send(&room, "hello").await;
    show_members(&pair.federation.wire);
    pair.federation.restart(TWO).await;
    let bob = pair.federation[TWO].login("bob").await;
    let answer = bob.get(members(&room)).send().await.ok();
    assert_eq!(who(&answer["chunk"]), everybody);
    let seen = synced(&bob, "join", &room).await.unwrap();
    assert_eq!(bodies(&seen).last(), Some(&"hello"));
}

/// Who leaves before the members are known has left; the room is joined again like any other.
#[tokio::test(start_paused = true)]
async fn a_partial_room_is_left_and_joined_again() {
    let (pair, room, everybody) = partial().await;
    pair.bob.leave(&room).await;
    assert!(
        lazily(&pair.bob, None).await["rooms"]["join"]
            .get(&room)
            .is_none()
    );
    tokio::time::sleep(Duration::from_secs(1)).await;
    let seen = pair.alice.state(&room, "m.room.member", &pair.bob.id).await;
    assert_eq!(seen["membership"], "leave");
    show_members(&pair.federation.wire);
    assert_eq!(join(&pair.bob, &room, &[ONE]).await.0, 200);
    let answer = pair.bob.get(members(&room)).send().await.ok();
    assert_eq!(who(&answer["chunk"]), everybody);
    assert!(synced(&pair.bob, "join", &room).await.is_some());
    let content = json!({ "msgtype": "m.text", "body": "back" });
    pair.bob.send_event(&room, "m.room.message", content).await;
}

/// MSC3902: another user of ours may join while the room is partial, after events that haven't come here.
#[tokio::test(start_paused = true)]
async fn msc3902_others_join_a_partial_room_that_went_on() {
    let (pair, room, mut everybody) = partial().await;
    let wire = &pair.federation.wire;
    wire.judge(|passing| {
        let path = passing.request.uri().path();
        if path.contains("/send/") {
            Fate::Refused
        } else if path.contains("/state_ids/") {
            Fate::After(LONG)
        } else {
            Fate::Arrives
        }
    });
    pair.alice.send(&room, "unheard").await;
    pair.alice.send(&room, "of").await;
    let frank = pair.federation[TWO].register("frank").await;
    let (status, body) = join(&frank, &room, &[ONE]).await;
    assert_eq!(status, 200, "{body}");
    let seen = lazily(&frank, None).await;
    assert!(seen["rooms"]["join"].get(&room).is_some());
    show_members(wire);
    sleep(LONG).await;
    let answer = frank.get(members(&room)).send().await.ok();
    everybody.push(frank.id.clone());
    everybody.sort();
    assert_eq!(who(&answer["chunk"]), everybody);
}

/// A room of our first server with a member of the third, who has set its topic, joined by the second while that can't ask the
/// third for its keys.
async fn unchecked() -> (Federation, User, String) {
    let federation = Federation::of([ONE, TWO, THREE]).await;
    let alice = federation[ONE].register("alice").await;
    let bob = federation[TWO].register("bob").await;
    let carol = federation[THREE].register("carol").await;
    let everybody_may = json!({ "state_default": 0 });
    let room = json!({ "preset": "public_chat", "power_level_content_override": everybody_may });
    let room = alice.create_room(room).await;
    assert_eq!(join(&carol, &room, &[ONE]).await.0, 200);
    carol
        .set_state(&room, "m.room.topic", "", json!({ "topic": "late" }))
        .await;
    sleep(Duration::from_secs(1)).await;
    federation.wire.cut(TWO, THREE);
    assert_eq!(join(&bob, &room, &[ONE]).await.0, 200);
    (federation, bob, room)
}

/// D5: what of a state can't be checked, since a server doesn't tell its keys, is waited for: the state would be another than the
/// others' for good.
#[tokio::test(start_paused = true)]
async fn d5_what_cannot_be_checked_yet_is_waited_for() {
    let (federation, bob, room) = unchecked().await;
    // Whoever loads all members doesn't see it yet.
    assert!(synced(&bob, "join", &room).await.is_none());
    federation.wire.heal();
    sleep(Duration::from_secs(5 * 60)).await;
    let answer = bob.get(members(&room)).send().await.ok();
    assert_eq!(who(&answer["chunk"]).len(), 3);
    let topic = bob.state(&room, "m.room.topic", "").await;
    assert_eq!(topic["topic"], "late");
}

/// D5: and done without after a while, lest whoever has a dead server in the room keeps everybody waiting.
#[tokio::test(start_paused = true)]
async fn d5_what_can_never_be_checked_is_done_without() {
    let (_federation, bob, room) = unchecked().await;
    sleep(Duration::from_secs(20 * 60)).await;
    let answer = bob.get(members(&room)).send().await.ok();
    assert_eq!(who(&answer["chunk"]).len(), 2);
}

/// C5: whoever silences the server that let us in doesn't get to say who is in the room; others are asked
/// once that has lasted.
#[tokio::test(start_paused = true)]
async fn c5_a_silent_server_is_waited_for() {
    let pair = Pair::new().await;
    let room = pair.room("public_chat", "11").await;
    let wire = &pair.federation.wire;
    let evil = HostilePeer::on(wire, EVIL);
    evil.join(&pair.federation[ONE], &room, "mallory").await;
    let was_asked = || {
        let heard = evil.heard();
        heard
            .iter()
            .any(|asked| asked.target.contains("/state_ids/"))
    };
    judge_paths(wire, |path| {
        path.contains("/state_ids/").then_some(Fate::Refused)
    });
    assert_eq!(join(&pair.bob, &room, &[ONE]).await.0, 200);
    sleep(Duration::from_secs(60)).await;
    assert!(!was_asked());
    sleep(Duration::from_secs(10 * 60)).await;
    assert!(was_asked());
    show_members(wire);
    sleep(Duration::from_secs(2 * 60 * 60)).await;
    let answer = pair.bob.get(members(&room)).send().await.ok();
    assert_eq!(who(&answer["chunk"]).len(), 3);
}

/// C5: rooms of a server that is slow to say who is in them hold up no room of another's.
#[tokio::test(start_paused = true)]
async fn c5_slow_servers_hold_up_no_others() {
    let federation = Federation::of([ONE, TWO, THREE]).await;
    let alice = federation[ONE].register("alice").await;
    let bob = federation[TWO].register("bob").await;
    let carol = federation[THREE].register("carol").await;
    hide_members(&federation.wire);
    for _ in 0..9 {
        let room = alice.create_room(json!({ "preset": "public_chat" })).await;
        assert_eq!(join(&bob, &room, &[ONE]).await.0, 200);
    }
    let room = carol.create_room(json!({ "preset": "public_chat" })).await;
    let begun = Instant::now();
    assert_eq!(join(&bob, &room, &[THREE]).await.0, 200);
    let answer = bob.get(members(&room)).send().await.ok();
    assert_eq!(who(&answer["chunk"]).len(), 2);
    assert!(begun.elapsed() < Duration::from_secs(5));
}
