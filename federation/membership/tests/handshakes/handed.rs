//! What becomes of a join on its way, and of what is said meanwhile: the others count its user in as soon as one of them has it.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use comity_testkit::{Fate, Federation, HostilePeer, Pdu, Server, Wire};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout};

use crate::{
    hostile::EVIL,
    pair::{ONE, Pair, TWO, join, membership, synced},
    partial::{THREE, bodies, judge_paths},
};

/// The first answer to a join of our first server meets this fate.
fn lose_first(wire: &Wire, fate: Fate) {
    let was_lost = AtomicBool::new(false);
    judge_paths(wire, move |path| {
        let is_join = path.contains("/send_join/");
        (is_join && !was_lost.swap(true, Ordering::Relaxed)).then_some(fate)
    });
}

/// A join whose answer is lost is handed over again, whether or not anybody still waits for it: the others count its user in already.
#[tokio::test(start_paused = true)]
async fn a_join_that_is_not_answered_is_handed_over_again() {
    for (fate, within) in [(Fate::AnswerLost, 110), (Fate::AnswerBroken, 10)] {
        let pair = Pair::new().await;
        let room = pair.room("public_chat", "11").await;
        lose_first(&pair.federation.wire, fate);
        let joining = timeout(Duration::from_secs(4), join(&pair.bob, &room, &[ONE]));
        assert!(joining.await.is_err());
        sleep(Duration::from_secs(within)).await;
        assert!(synced(&pair.bob, "join", &room).await.is_some());
        let told = pair.alice.messages(&room, 20).await;
        let joins = told
            .iter()
            .filter(|event| event["state_key"] == pair.bob.id.as_str());
        assert_eq!(joins.count(), 1, "{fate:?}");
    }
}

/// The answer of a server that takes its time is waited for, though it is asked again.
#[tokio::test(start_paused = true)]
async fn a_join_may_take_its_time() {
    let pair = Pair::new().await;
    let room = pair.room("public_chat", "11").await;
    judge_paths(&pair.federation.wire, |path| {
        let is_join = path.contains("/send_join/");
        is_join.then_some(Fate::After(Duration::from_secs(220)))
    });
    let begun = Instant::now();
    assert_eq!(join(&pair.bob, &room, &[ONE]).await.0, 200);
    assert_eq!(begun.elapsed().as_secs(), 220);
}

/// A join that was handed over is, also by a server that lost its power before the answer came; what was said there meanwhile is heard.
#[tokio::test(start_paused = true)]
async fn a_join_is_handed_over_again_after_a_restart() {
    for version in ["1", "11"] {
        let mut pair = Pair::new().await;
        let room = pair.room("public_chat", version).await;
        lose_first(&pair.federation.wire, Fate::AnswerLost);
        let joining = timeout(Duration::from_secs(4), join(&pair.bob, &room, &[ONE]));
        assert!(joining.await.is_err());
        pair.federation.restart(TWO).await;
        pair.alice.send(&room, "welcome").await;
        sleep(Duration::from_secs(60)).await;
        let bob = pair.federation[TWO].login("bob").await;
        let seen = synced(&bob, "join", &room).await.unwrap();
        assert_eq!(bodies(&seen), ["welcome"], "{version}");
        let told = pair.alice.messages(&room, 20).await;
        let joins = told
            .iter()
            .filter(|event| event["state_key"] == bob.id.as_str());
        assert_eq!(joins.count(), 1, "{version}");
        // It is done: who leaves is out, whatever comes of the server.
        bob.leave(&room).await;
        sleep(Duration::from_secs(5)).await;
        pair.federation.restart(TWO).await;
        sleep(Duration::from_secs(60)).await;
        let bob = pair.federation[TWO].login("bob").await;
        assert!(synced(&bob, "join", &room).await.is_none(), "{version}");
    }
}

/// Nor is it forgotten while the other server can't be reached.
#[tokio::test(start_paused = true)]
async fn a_join_is_handed_over_again_to_a_server_that_was_away() {
    let mut pair = Pair::new().await;
    let room = pair.room("public_chat", "11").await;
    lose_first(&pair.federation.wire, Fate::AnswerLost);
    let joining = timeout(Duration::from_secs(4), join(&pair.bob, &room, &[ONE]));
    assert!(joining.await.is_err());
    judge_paths(&pair.federation.wire, |_| Some(Fate::Refused));
    pair.federation.restart(TWO).await;
    sleep(Duration::from_secs(5 * 60)).await;
    pair.federation.wire.judge(|_| Fate::Arrives);
    sleep(Duration::from_secs(15 * 60)).await;
    let bob = pair.federation[TWO].login("bob").await;
    assert!(synced(&bob, "join", &room).await.is_some());
}

/// Nor by a server that has told its user to try again: the others count them in, and the room may take nobody any more. So where no answer
/// came, and where the one that came couldn't be checked yet.
#[tokio::test(start_paused = true)]
async fn a_join_that_came_to_nothing_is_handed_over_later() {
    type Troubled = fn(&str, &str) -> Option<Fate>;
    let unanswered: Troubled = |_, path| path.contains("/send_join/").then_some(Fate::AnswerBroken);
    let unchecked: Troubled =
        |from, path| (from == TWO && path.starts_with("/_matrix/key/")).then_some(Fate::Refused);
    for (troubled, what) in [(unanswered, "answer"), (unchecked, "key")] {
        let pair = Pair::new().await;
        let room = pair.room("public_chat", "11").await;
        let wire = &pair.federation.wire;
        wire.judge(move |passing| {
            let fate = troubled(passing.from.as_str(), passing.request.uri().path());
            fate.unwrap_or(Fate::Arrives)
        });
        assert_eq!(join(&pair.bob, &room, &[ONE]).await.0, 404, "no {what}");
        assert_eq!(membership(&pair.alice, &room, &pair.bob).await, "join");
        let rules = json!({ "join_rule": "invite" });
        pair.alice
            .set_state(&room, "m.room.join_rules", "", rules)
            .await;
        wire.judge(|_| Fate::Arrives);
        sleep(Duration::from_secs(10 * 60)).await;
        assert!(
            synced(&pair.bob, "join", &room).await.is_some(),
            "no {what}"
        );
    }
}

/// What others say between letting us in and our knowing it isn't lost: they were told that it came.
#[tokio::test(start_paused = true)]
async fn what_is_said_while_a_room_is_entered_is_heard() {
    let pair = Pair::new().await;
    let room = pair.room("public_chat", "11").await;
    lose_first(&pair.federation.wire, Fate::AnswerLost);
    let joining = timeout(Duration::from_secs(10), join(&pair.bob, &room, &[ONE]));
    assert!(joining.await.is_err());
    pair.alice.send(&room, "welcome").await;
    pair.alice.send(&room, "bob").await;
    sleep(Duration::from_secs(2 * 60)).await;
    let seen = synced(&pair.bob, "join", &room).await.unwrap();
    assert_eq!(bodies(&seen), ["welcome", "bob"]);
}

/// Nor while another server is asked, since the answer of the one that let us in broke off.
#[tokio::test(start_paused = true)]
async fn what_is_said_while_another_server_is_asked_is_heard() {
    let federation = Federation::of([ONE, TWO, THREE]).await;
    let alice = federation[ONE].register("alice").await;
    let bob = federation[THREE].register("bob").await;
    let carol = federation[TWO].register("carol").await;
    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    assert_eq!(join(&carol, &room, &[ONE]).await.0, 200);
    sleep(Duration::from_secs(1)).await;
    federation.wire.judge(|passing| {
        let (path, from) = (passing.request.uri().path(), passing.from.as_str());
        match passing.to.as_str() {
            ONE if path.contains("/send_join/") => Fate::AnswerBroken,
            TWO if path.contains("/make_join/") => Fate::After(Duration::from_secs(15)),
            // It hears nothing of this.
            TWO if from == ONE => Fate::Refused,
            _ => Fate::Arrives,
        }
    });
    let joining = join(&bob, &room, &[ONE, TWO]);
    let joining = timeout(Duration::from_secs(18), joining);
    assert!(joining.await.is_err());
    alice.send(&room, "welcome").await;
    sleep(Duration::from_secs(2 * 60)).await;
    let heard = bob.messages(&room, 20).await;
    let mut bodies = heard.iter().map(|event| &event["content"]["body"]);
    assert!(bodies.any(|body| body == "welcome"));
}

/// Law 11: what is held of rooms that are being entered is bounded, by the room and by who sent it, who needn't be in the room: whoever
/// sends most gives way to others, and nobody to strangers through whom the room is entered. What doesn't fit holds up nothing that comes
/// with it, and is found when something follows it.
#[tokio::test(start_paused = true)]
async fn what_is_held_meanwhile_is_bounded() {
    const OF_ROOM: usize = 8 << 20;
    const HELD_EACH: usize = 4 << 10;
    let pair = Pair::new().await;
    let (wire, two) = (&pair.federation.wire, &pair.federation[TWO]);
    let room = pair.room("public_chat", "11").await;
    let other = json!({ "preset": "public_chat" });
    let other = pair.bob.create_room(other).await;
    let [evil, friend, third, fair] =
        [EVIL, "friend.test", THREE, "fair.test"].map(|name| HostilePeer::on(wire, name));
    let other = evil.join(two, &other, "mallory").await;
    let mut member = fair.join(&pair.federation[ONE], &room, "carol").await;
    lose_first(wire, Fate::AnswerLost);
    let joining = timeout(Duration::from_secs(10), join(&pair.bob, &room, &[ONE]));
    assert!(joining.await.is_err());

    let send_to = async |server: &Server, peer: &HostilePeer, txn: &str, pdus: Vec<&Value>| {
        let path = format!("/_matrix/federation/v1/send/{txn}");
        let body = json!({ "origin": peer.name, "origin_server_ts": 1, "pdus": pdus });
        let answer = peer.to(server).put(path).json(body).send().await;
        answer.ok()["pdus"].clone()
    };
    let send = async |peer: &HostilePeer, txn: &str, pdus: Vec<&Value>| {
        send_to(two, peer, txn, pdus).await
    };
    let large = |bytes: usize| json!({ "room_id": room, "content": { "x": "x".repeat(bytes) } });
    let many = large(64_000);
    let lot = 50 * many.to_string().len() + HELD_EACH;
    send(&evil, "0", vec![&many; 50]).await;
    let content = json!({ "msgtype": "m.text", "body": "elsewhere" });
    let beside = evil.event(&other, "mallory", "m.room.message", None, content);
    let mut pdus = vec![&many; 49];
    pdus.push(&beside.json);
    let told = send(&evil, "1", pdus).await;
    assert_eq!(told, json!({ &beside.id: {} }), "the server has its part");
    send(&friend, "0", vec![&many; 50]).await;
    let around = large(0).to_string().len() + HELD_EACH;
    let rest = large(OF_ROOM - 2 * lot - around);
    send(&third, "0", vec![&rest]).await;
    // What is said now follows the join.
    let events = pair.alice.messages(&room, 20).await;
    let join = events
        .iter()
        .find(|event| event["state_key"] == pair.bob.id.as_str());
    member.last = Pdu {
        id: join.unwrap()["event_id"].as_str().unwrap().to_owned(),
        json: json!({ "depth": 20 }),
    };
    let mut say = |body: &str| {
        let content = json!({ "msgtype": "m.text", "body": body });
        let said = fair.event(&member, "carol", "m.room.message", None, content);
        member.went_on(&said);
        said.json
    };
    let (little, too_much) = (say("a little"), say("too much"));
    send(&fair, "0", vec![&little]).await;
    send(&fair, "1", vec![&many; 49]).await;
    let mut pdus = vec![&many; 49];
    pdus.push(&too_much);
    send(&fair, "2", pdus).await;
    pair.alice.send(&room, "welcome").await;
    sleep(Duration::from_secs(2 * 60)).await;
    let texts = async |room: &str| {
        let heard = pair.bob.messages(room, 20).await;
        let bodies = heard.iter().map(|event| event["content"]["body"].clone());
        let mut bodies: Vec<Value> = bodies.filter(|body| !body.is_null()).collect();
        bodies.sort_by_key(Value::to_string);
        bodies
    };
    assert_eq!(texts(&other.id).await, ["elsewhere"]);
    assert_eq!(texts(&room).await, ["a little", "welcome"]);
    send_to(&pair.federation[ONE], &fair, "3", vec![&little, &too_much]).await;
    sleep(Duration::from_secs(10)).await;
    pair.alice.send(&room, "later").await;
    sleep(Duration::from_secs(10)).await;
    let all = ["a little", "later", "too much", "welcome"];
    assert_eq!(texts(&room).await, all);
}
