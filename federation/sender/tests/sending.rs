//! What a peer hears of our own accord, in good times and after bad ones.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use comity_federation_client::Limits;
use comity_protocol::{
    event::{Limits as EventLimits, WellFormed},
    id::{RoomId, ServerName},
    room_version::RoomVersion,
    sign::{KeyRing, PublishedKey, ServerKeys},
};
use comity_rooms::{Arrival, Outcome, Way, tables::Verdict};
use comity_storage::{Home, RoomKey};
use comity_testkit::{Asked, Fate, Federation, HostilePeer, User, encode};
use http::Method;
use serde_json::{Value, json};

const US: &str = "us.test";
const SEND: &str = "/_matrix/federation/v1/send/";

async fn after(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

/// A peer that takes every transaction.
fn peer(federation: &Federation, name: &str) -> HostilePeer {
    let peer = HostilePeer::on(&federation.wire, name);
    peer.answer(Method::PUT, SEND, |_: &Asked| json!({ "pdus": {} }));
    peer
}

async fn public_room(user: &User) -> String {
    user.create_room(json!({ "preset": "public_chat" })).await
}

/// The keys that a peer publishes.
struct Ring(ServerKeys);

impl KeyRing for Ring {
    fn key(&self, server: &ServerName, key_id: &str) -> Option<PublishedKey> {
        (server == self.0.server()).then(|| self.0.key(key_id))?
    }
}

/// Makes a user of a peer a member, as a join that the peer hands to us does.
async fn join(federation: &Federation, peer: &HostilePeer, room: &str, localpart: &str) {
    let server = &federation[US];
    let (user, versions) = (peer.user(localpart), "ver=12");
    let path = format!(
        "/_matrix/federation/v1/make_join/{}/{}?{versions}",
        encode(room),
        encode(user.as_str())
    );
    let template = peer.to(server).get(path).send().await.ok();
    let join = peer.sign("12", peer.completed(&template["event"], "12"));
    let request = http::Request::get("/_matrix/key/v2/server");
    let limits = Limits {
        timeout: Duration::from_secs(1),
        max_bytes: 10_000,
    };
    let wire = federation.wire.end(server.name());
    let request = request.body(Default::default()).unwrap();
    let keys = wire.send(&peer.name, request, limits).await.unwrap();
    let rooms = &server.api.rooms;
    let now = rooms.tenant().runtime().clock().now_ms();
    let ring = Ring(ServerKeys::check(&peer.name, keys.body(), now).unwrap());
    let join = join.json.to_string();
    let join = WellFormed::parse(RoomVersion::V12, join.as_bytes(), EventLimits::New).unwrap();
    let arrival = Arrival {
        event: join.verify(&ring).unwrap(),
        way: Way::Handshake,
    };
    let room = <&RoomId>::try_from(room).unwrap();
    let outcome = rooms.receive(room, vec![arrival]).await.unwrap();
    assert_eq!(outcome[0].1, Outcome::Settled(Verdict::Accepted));
}

/// A server, a peer, a user of ours, and a room in which a user of the peer is.
async fn one_room() -> (Federation, HostilePeer, User, String) {
    let federation = Federation::of([US]).await;
    let peer = peer(&federation, "peer.test");
    let alice = federation[US].register("alice").await;
    let room = public_room(&alice).await;
    join(&federation, &peer, &room, "bob").await;
    after(5).await;
    drop(peer.heard());
    (federation, peer, alice, room)
}

/// The transactions a peer was sent since it told last.
fn transactions(peer: &HostilePeer) -> Vec<Asked> {
    let heard = peer.heard().into_iter();
    heard
        .filter(|asked| asked.target.starts_with(SEND))
        .collect()
}

fn of(transactions: &[Asked], what: &str) -> Vec<Value> {
    let all = transactions.iter();
    all.flat_map(|asked| asked.body[what].as_array().cloned().unwrap_or_default())
        .collect()
}

/// The messages in them, in order.
fn messages(transactions: &[Asked]) -> Vec<String> {
    let pdus = of(transactions, "pdus");
    let bodies = pdus
        .iter()
        .filter_map(|pdu| pdu["content"]["body"].as_str());
    bodies.map(str::to_owned).collect()
}

/// Ephemeral data of a kind: its contents.
fn edus(transactions: &[Asked], kind: &str) -> Vec<Value> {
    let edus = of(transactions, "edus").into_iter();
    edus.filter(|edu| edu["edu_type"] == kind)
        .map(|edu| edu["content"].clone())
        .collect()
}

/// One request in flight, at most 50 events in it, in order, under ids of their own.
#[tokio::test(start_paused = true)]
async fn events_go_in_order() {
    let (federation, peer, alice, room) = one_room().await;
    federation.wire.hold(US, "peer.test");
    let said: Vec<String> = (0..120).map(|n| format!("message {n}")).collect();
    for body in &said {
        alice.send(&room, body).await;
    }
    after(5).await;
    assert!(transactions(&peer).is_empty());
    federation.wire.heal();
    after(5).await;
    let sent = transactions(&peer);
    assert_eq!(messages(&sent), said);
    let sizes = sent
        .iter()
        .map(|asked| asked.body["pdus"].as_array().unwrap().len());
    assert!(sizes.max().unwrap() <= 50);
    let mut ids: Vec<&str> = sent.iter().map(|asked| asked.target.as_str()).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), sent.len());
    for asked in &sent {
        assert_eq!(asked.body["origin"], US);
        for pdu in asked.body["pdus"].as_array().unwrap() {
            assert!(pdu["signatures"][US].is_object() && pdu.get("unsigned").is_none());
        }
    }
}

/// What was dispatched and not sent when the server died is sent by the next run.
#[tokio::test(start_paused = true)]
async fn a_crash_loses_nothing() {
    let (mut federation, peer, alice, room) = one_room().await;
    federation.wire.cut(US, "peer.test");
    for n in 0..5 {
        alice.send(&room, &n.to_string()).await;
        after(1).await;
    }
    drop(peer.heard());
    federation.restart(US).await;
    federation.wire.heal();
    after(60).await;
    let mut heard = messages(&transactions(&peer));
    // What is sent again does nothing twice.
    heard.dedup();
    assert_eq!(heard, ["0", "1", "2", "3", "4"]);
}

/// What was told before an orderly stop isn't told again, nor what nobody was to be told.
#[tokio::test(start_paused = true)]
async fn after_a_stop_nothing_is_repeated() {
    let (mut federation, peer, alice, room) = one_room().await;
    let device = format!("/_matrix/client/v3/devices/{}", alice.device);
    let named = alice.put(device).json(json!({ "display_name": "mine" }));
    named.send().await.ok();
    alice.send(&room, "once").await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    let told = transactions(&peer);
    assert_eq!(messages(&told), ["once"]);
    assert_eq!(edus(&told, "m.device_list_update").len(), 1);
    federation[US].sender.close().await.unwrap();
    federation.restart(US).await;
    after(60).await;
    let told = transactions(&peer);
    assert!(messages(&told).is_empty(), "{told:?}");
    assert!(edus(&told, "m.device_list_update").is_empty(), "{told:?}");
}

/// What is told of a room is told to those who were in it then: that it is ours alone now says nothing of what was said before.
#[tokio::test(start_paused = true)]
async fn who_was_there_hears_it_after_a_crash() {
    let (mut federation, peer, alice, room) = one_room().await;
    federation.wire.cut(US, "peer.test");
    alice.send(&room, "before").await;
    alice.kick(&room, peer.user("bob").as_str()).await;
    alice.send(&room, "after").await;
    after(2).await;
    drop(peer.heard());
    federation.restart(US).await;
    federation.wire.heal();
    after(60).await;
    let mut heard = messages(&transactions(&peer));
    heard.dedup();
    assert_eq!(heard, ["before"]);
}

/// data-model.md, Logs' horizon: what was not sent stays in the log, however old it is.
#[tokio::test(start_paused = true)]
async fn what_is_not_sent_is_not_pruned() {
    let (mut federation, peer, alice, room) = one_room().await;
    federation.wire.cut(US, "peer.test");
    alice.send(&room, "unsent").await;
    after(2).await;
    for body in ["more", "and more"] {
        let tenant = federation[US].api.rooms.tenant().clone();
        tenant.prune_logs(Duration::ZERO).await.unwrap();
        alice.send(&room, body).await;
        after(1).await;
    }
    federation.restart(US).await;
    federation.wire.heal();
    after(60).await;
    let mut heard = messages(&transactions(&peer));
    heard.dedup();
    assert_eq!(heard, ["unsent", "more", "and more"]);
    // Once it is sent it goes.
    let tenant = federation[US].api.rooms.tenant().clone();
    let before = tenant.heads();
    for _ in 0..2 {
        tenant.prune_logs(Duration::ZERO).await.unwrap();
        after(1).await;
    }
    let horizons = tenant.prune_logs(Duration::ZERO).await.unwrap();
    let lane = tenant.lane(Home::Room(RoomKey::of(&room))).lane();
    assert!(horizons.get(lane) >= before.get(lane));
}

/// After an outage of days: the newest event of each room, whatever happened in between, across
/// restarts; then in order again.
#[tokio::test(start_paused = true)]
async fn after_an_outage_the_newest_of_each_room() {
    let (mut federation, peer, alice, one) = one_room().await;
    let two = public_room(&alice).await;
    join(&federation, &peer, &two, "bob").await;
    after(5).await;
    federation.wire.cut(US, "peer.test");
    for n in 0..10 {
        alice.send(&one, &format!("one {n}")).await;
        alice.send(&two, &format!("two {n}")).await;
        after(60).await;
    }
    federation.restart(US).await;
    let alice = federation[US].login("alice").await;
    alice.send(&one, "one 10").await;
    after(7 * 24 * 3600).await;
    drop(federation.wire.log());
    after(24 * 3600).await;
    let tries = federation.wire.log().len();
    assert!((12..=50).contains(&tries), "about once an hour: {tries}");
    federation.wire.heal();
    drop(peer.heard());
    after(2 * 3600).await;
    let mut heard = messages(&transactions(&peer));
    heard.sort();
    assert_eq!(heard, ["one 10", "two 9"]);
    for n in 0..3 {
        alice.send(&one, &n.to_string()).await;
    }
    after(5).await;
    assert_eq!(messages(&transactions(&peer)), ["0", "1", "2"]);
    // Nothing is owed after that, for the next run either.
    federation.restart(US).await;
    after(3600).await;
    assert!(
        messages(&transactions(&peer))
            .iter()
            .all(|body| body.len() == 1)
    );
}

/// Who asks for anything, signed, is told at once what it missed.
#[tokio::test(start_paused = true)]
async fn who_speaks_to_us_is_told_at_once() {
    let (federation, peer, alice, room) = one_room().await;
    federation.wire.cut(US, "peer.test");
    alice.send(&room, "missed").await;
    after(6 * 3600).await;
    federation.wire.heal();
    drop(peer.heard());
    let path = format!(
        "/_matrix/federation/v1/query/profile?user_id={}",
        encode(&alice.id)
    );
    peer.to(&federation[US]).get(path).send().await.ok();
    after(1).await;
    assert_eq!(messages(&transactions(&peer)), ["missed"]);
}

async fn texts(user: &User, room: &str) -> Vec<String> {
    let events = user.messages(room, 50).await;
    let texts = events.iter().filter_map(|event| {
        let text = event["content"]["body"].as_str()?;
        Some(text.to_owned())
    });
    let mut texts: Vec<String> = texts.collect();
    texts.sort();
    texts
}

/// Two servers tell each other, also what was said while they could not.
#[tokio::test(start_paused = true)]
async fn two_servers_talk_across_an_outage() {
    const THEM: &str = "them.test";
    let mut federation = Federation::of([US, THEM]).await;
    let alice = federation[US].register("alice").await;
    let bob = federation[THEM].register("bob").await;
    let room = public_room(&alice).await;
    let join = bob.post(format!("/_matrix/client/v3/join/{}", encode(&room)));
    join.query("via", US).json(json!({})).send().await.ok();
    alice.send(&room, "a1").await;
    bob.send(&room, "b1").await;
    after(5).await;
    for user in [&alice, &bob] {
        assert_eq!(texts(user, &room).await, ["a1", "b1"]);
    }
    federation.wire.cut(US, THEM);
    for n in 2..5 {
        alice.send(&room, &format!("a{n}")).await;
        bob.send(&room, &format!("b{n}")).await;
        after(60).await;
    }
    federation.restart(THEM).await;
    let bob = federation[THEM].login("bob").await;
    federation.wire.heal();
    after(600).await;
    for user in [&alice, &bob] {
        let all = ["a1", "a2", "a3", "a4", "b1", "b2", "b3", "b4"];
        assert_eq!(texts(user, &room).await, all);
    }
}

/// What was said in a room before it was left and entered anew isn't followed by what is said there since: a server that was behind all
/// the while is told of both, by the next run as well.
#[tokio::test(start_paused = true)]
async fn who_comes_back_during_an_outage_is_heard_whole() {
    const THEM: &str = "them.test";
    let mut federation = Federation::of([US, THEM]).await;
    let alice = federation[US].register("alice").await;
    let mut bob = federation[THEM].register("bob").await;
    let room = public_room(&alice).await;
    let path = format!("/_matrix/client/v3/join/{}", encode(&room));
    federation.wire.judge(|passing| {
        let is_news = passing.request.uri().path().starts_with(SEND);
        if is_news && passing.to.as_str() == US {
            Fate::Refused
        } else {
            Fate::Arrives
        }
    });
    for stay in ["first", "second", "third"] {
        let join = bob.post(path.clone()).query("via", US).json(json!({}));
        join.send().await.ok();
        for n in 1..=2 {
            bob.send(&room, &format!("{stay} {n}")).await;
        }
        if stay == "second" {
            // From here on it is behind, and says so by rows.
            after(300).await;
            federation.restart(THEM).await;
            bob = federation[THEM].login("bob").await;
        }
        bob.leave(&room).await;
        // Of events of one time their ids say which comes first.
        after(1).await;
    }
    after(5).await;
    federation.wire.judge(|_| Fate::Arrives);
    after(3_600).await;
    let said = [
        "first 1", "first 2", "second 1", "second 2", "third 1", "third 2",
    ];
    assert_eq!(texts(&alice, &room).await, said);
}

/// Who was banned while they could not be reached learns it, though their server has to ask for what the ban rests on when it is in the
/// room no more. What came after the ban it isn't told.
#[tokio::test(start_paused = true)]
async fn a_ban_reaches_across_an_outage() {
    const THEM: &str = "them.test";
    let federation = Federation::of([US, THEM]).await;
    let alice = federation[US].register("alice").await;
    let bob = federation[THEM].register("bob").await;
    let room = public_room(&alice).await;
    let join = bob.post(format!("/_matrix/client/v3/join/{}", encode(&room)));
    join.query("via", US).json(json!({})).send().await.ok();
    after(5).await;
    let token = bob.sync(None).await["next_batch"].clone();
    federation.wire.cut(US, THEM);
    for n in 1..30 {
        alice.send(&room, &format!("a{n}")).await;
        after(10).await;
    }
    alice.ban(&room, &bob.id).await;
    after(60).await;
    alice.send(&room, "after the ban").await;
    federation.wire.heal();
    after(3_600).await;
    let left = bob.sync(token.as_str()).await["rooms"]["leave"][&room].clone();
    let events = left["timeline"]["events"].as_array().unwrap();
    let ban = events.iter().find(|event| event["state_key"] == bob.id);
    assert_eq!(ban.unwrap()["content"]["membership"], "ban", "{left}");
    assert!(!left.to_string().contains("after the ban"), "{left}");
}

/// F11: what a peer refuses for ever is left out, the rest is delivered within a minute.
#[tokio::test(start_paused = true)]
async fn f11_a_refused_event_is_parked() {
    let (federation, peer, alice, room) = one_room().await;
    let taken = Arc::new(Mutex::new(Vec::new()));
    let kept = taken.clone();
    peer.answer(Method::PUT, SEND, move |asked: &Asked| {
        if asked.body.to_string().contains("poison") {
            return (413, json!({ "errcode": "M_TOO_LARGE" }));
        }
        kept.lock().unwrap().push(asked.clone());
        (200, json!({ "pdus": {} }))
    });
    federation.wire.hold(US, "peer.test");
    for body in ["a", "poison", "b", "c"] {
        alice.send(&room, body).await;
    }
    after(1).await;
    federation.wire.heal();
    after(60).await;
    alice.send(&room, "d").await;
    after(5).await;
    assert_eq!(messages(&taken.lock().unwrap()), ["a", "b", "c", "d"]);
    assert_eq!(federation[US].sender.parked(), 1);
}

/// Who shuts us out keeps being owed: that isn't about an event.
#[tokio::test(start_paused = true)]
async fn a_server_that_shuts_us_out_is_owed() {
    let (federation, peer, alice, room) = one_room().await;
    peer.answer(Method::PUT, SEND, |_: &Asked| {
        (403, json!({ "errcode": "M_FORBIDDEN" }))
    });
    alice.send(&room, "hello").await;
    after(600).await;
    let tries = transactions(&peer).len();
    assert!((3..=20).contains(&tries), "{tries}");
    peer.answer(Method::PUT, SEND, |_: &Asked| json!({ "pdus": {} }));
    after(3600).await;
    assert_eq!(messages(&transactions(&peer)), ["hello"]);
    assert_eq!(federation[US].sender.parked(), 0);
}

/// Whoever comes in through us is made known to the others; whoever is kicked hears of it, and of
/// nothing after.
#[tokio::test(start_paused = true)]
async fn who_is_to_hear_of_an_event() {
    let federation = Federation::of([US]).await;
    let first = peer(&federation, "first.test");
    let second = peer(&federation, "second.test");
    let alice = federation[US].register("alice").await;
    let room = public_room(&alice).await;
    let alone = public_room(&alice).await;
    join(&federation, &first, &room, "bob").await;
    after(5).await;
    let own = of(&transactions(&first), "pdus");
    assert!(own.is_empty(), "its own join isn't told");
    join(&federation, &second, &room, "carol").await;
    after(5).await;
    let told = of(&transactions(&first), "pdus");
    let told: Vec<_> = told.iter().map(|pdu| &pdu["state_key"]).collect();
    assert_eq!(told, [&json!("@carol:second.test")]);
    assert!(of(&transactions(&second), "pdus").is_empty());

    alice.send(&alone, "for nobody").await;
    alice.send(&room, "before").await;
    alice.kick(&room, "@carol:second.test").await;
    alice.send(&room, "after").await;
    after(5).await;
    assert_eq!(messages(&transactions(&first)), ["before", "after"]);
    let sent = transactions(&second);
    assert_eq!(messages(&sent), ["before"]);
    let pdus = of(&sent, "pdus");
    assert_eq!(pdus.last().unwrap()["content"]["membership"], "leave");
}

/// E7: receipts and typing reach only the servers in the room, private receipts none.
#[tokio::test(start_paused = true)]
async fn e7_ephemeral_data_stays_in_the_room() {
    let federation = Federation::of([US]).await;
    let inside = peer(&federation, "inside.test");
    let outside = peer(&federation, "outside.test");
    let alice = federation[US].register("alice").await;
    let room = public_room(&alice).await;
    let other = public_room(&alice).await;
    join(&federation, &inside, &room, "bob").await;
    join(&federation, &outside, &other, "eve").await;
    let event = alice.send(&room, "hello").await;
    after(10).await;
    drop((inside.heard(), outside.heard()));

    let path = |what: &str, which: &str| {
        let room = encode(&room);
        format!("/_matrix/client/v3/rooms/{room}/{what}/{}", encode(which))
    };
    let set = json!({ "typing": true, "timeout": 20_000 });
    let typing = alice.put(path("typing", &alice.id)).json(set);
    typing.send().await.ok();
    let private = alice.post(path("receipt/m.read.private", &event));
    private.json(json!({})).send().await.ok();
    after(5).await;
    let sent = transactions(&inside);
    assert!(edus(&sent, "m.receipt").is_empty());
    let types = |typing| json!({ "room_id": room, "user_id": alice.id, "typing": typing });
    assert_eq!(edus(&sent, "m.typing"), [types(true)]);

    let message = alice.send(&room, "read me").await;
    let read = alice.post(path("receipt/m.read", &message));
    read.json(json!({ "thread_id": "main" })).send().await.ok();
    after(30).await;
    let sent = transactions(&inside);
    let receipts = edus(&sent, "m.receipt");
    let receipt = &receipts.last().unwrap()[&room]["m.read"][&alice.id];
    assert_eq!(receipt["event_ids"], json!([message]));
    assert_eq!(receipt["data"]["thread_id"], "main");
    assert_eq!(edus(&sent, "m.typing").last().unwrap(), &types(false));
    let sent = transactions(&outside);
    assert!(edus(&sent, "m.receipt").is_empty() && edus(&sent, "m.typing").is_empty());
}

/// E7: presence reaches the servers that share a room with the user.
#[tokio::test(start_paused = true)]
async fn e7_presence_reaches_those_who_share_a_room() {
    let federation = Federation::of([US]).await;
    let inside = peer(&federation, "inside.test");
    let outside = peer(&federation, "outside.test");
    let alice = federation[US].register("alice").await;
    let carol = federation[US].register("carol").await;
    let room = public_room(&alice).await;
    let other = public_room(&carol).await;
    join(&federation, &inside, &room, "bob").await;
    join(&federation, &outside, &other, "eve").await;
    after(60).await;
    drop((inside.heard(), outside.heard()));
    let path = format!("/_matrix/client/v3/presence/{}/status", encode(&alice.id));
    let set = json!({ "presence": "unavailable", "status_msg": "away" });
    alice.put(path).json(set).send().await.ok();
    after(2).await;
    let told = |peer: &HostilePeer| {
        let presence = edus(&transactions(peer), "m.presence").into_iter();
        presence
            .flat_map(|content| content["push"].as_array().cloned().unwrap())
            .filter(|push| push["user_id"] == alice.id)
            .collect::<Vec<_>>()
    };
    let last = told(&inside).pop().unwrap();
    let said = (&last["presence"], &last["status_msg"]);
    assert_eq!(said, (&json!("unavailable"), &json!("away")));
    assert!(told(&outside).is_empty());
}

/// A black hole among the servers delays nobody else.
#[tokio::test(start_paused = true)]
async fn a_black_hole_delays_nobody() {
    let (federation, good, alice, room) = one_room().await;
    let hole = peer(&federation, "hole.test");
    join(&federation, &hole, &room, "eve").await;
    after(5).await;
    federation.wire.judge(|passing| {
        if passing.to == "hole.test" {
            Fate::Lost
        } else {
            Fate::Arrives
        }
    });
    drop(good.heard());
    for n in 0..20 {
        alice.send(&room, &n.to_string()).await;
        after(1).await;
        assert_eq!(messages(&transactions(&good)), [n.to_string()]);
    }
}

async fn tell(user: &User, to: &str, content: Value) {
    let path = format!(
        "/_matrix/client/v3/sendToDevice/org.example.message/{}",
        user.transaction()
    );
    let body = json!({ "messages": { to: { "*": content } } });
    let _: Value = user.put(path).json(body).send().await.ok();
}

/// The numbers in messages to devices.
fn numbers(edus: &[Value], to: &str) -> Vec<u64> {
    let all = edus.iter();
    all.map(|edu| edu["messages"][to]["*"]["n"].as_u64().unwrap())
        .collect()
}

/// Messages to devices wait for a server through outages and crashes, in order, under ids that stay, and with a room's event comes no
/// later what was sent before it.
/// <https://spec.matrix.org/v1.19/server-server-api/#send-to-device-messaging>
#[tokio::test(start_paused = true)]
async fn messages_to_devices_arrive_in_order() {
    const KIND: &str = "m.direct_to_device";
    let (mut federation, peer, alice, room) = one_room().await;
    let bob = peer.user("bob").to_string();
    tell(&alice, &bob, json!({ "n": 0 })).await;
    alice.send(&room, "opened by it").await;
    after(5).await;
    let sent = transactions(&peer);
    let key = sent
        .iter()
        .position(|asked| !edus(std::slice::from_ref(asked), KIND).is_empty());
    let event = sent
        .iter()
        .position(|asked| asked.body.to_string().contains("opened by it"));
    assert!(key.unwrap() <= event.unwrap());
    let told = edus(&sent, KIND);
    assert_eq!(numbers(&told, &bob), [0]);
    assert_eq!(told[0]["sender"], alice.id.as_str());
    assert_eq!(told[0]["type"], "org.example.message");

    // The answer is lost: it comes again, under its id.
    let lost = Arc::new(std::sync::atomic::AtomicBool::new(true));
    let (once, to) = (lost.clone(), peer.name.clone());
    federation.wire.judge(move |passing| {
        let is_lost =
            passing.to == to.as_str() && once.swap(false, std::sync::atomic::Ordering::Relaxed);
        if is_lost {
            Fate::AnswerLost
        } else {
            Fate::Arrives
        }
    });
    tell(&alice, &bob, json!({ "n": 1 })).await;
    after(120).await;
    let told = edus(&transactions(&peer), KIND);
    assert_eq!(numbers(&told, &bob), [1, 1]);
    assert_eq!(told[0]["message_id"], told[1]["message_id"]);

    federation.wire.cut(US, "peer.test");
    for n in 2..152 {
        tell(&alice, &bob, json!({ "n": n })).await;
    }
    after(90).await;
    federation.restart(US).await;
    after(90).await;
    federation.wire.heal();
    after(600).await;
    let sent = transactions(&peer);
    assert!(
        sent.iter()
            .all(|asked| asked.body["edus"].as_array().unwrap().len() <= 100)
    );
    let told = edus(&sent, KIND);
    assert!(numbers(&told, &bob).into_iter().eq(2..152));
    let mut ids: Vec<String> = told
        .iter()
        .map(|edu| edu["message_id"].to_string())
        .collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 150);
    after(600).await;
    assert!(
        edus(&transactions(&peer), KIND).is_empty(),
        "nothing is left"
    );
    let reader = federation[US].api.rooms.tenant().reader();
    let everywhere = comity_storage::Range::everywhere(|_| {});
    let owed = reader.scan::<comity_to_device::tables::Owed>(everywhere);
    assert!(owed.await.unwrap().is_empty());
}

/// Law 11: what waits for a server that isn't there goes after two weeks. One that is back then gets what is said after.
#[tokio::test(start_paused = true)]
async fn messages_to_who_is_not_there_are_given_up() {
    let (federation, peer, alice, _) = one_room().await;
    let bob = peer.user("bob").to_string();
    federation.wire.cut(US, "peer.test");
    for n in 0..3 {
        tell(&alice, &bob, json!({ "n": n })).await;
    }
    let waiting = async || {
        let reader = federation[US].api.rooms.tenant().reader();
        let everywhere = || comity_storage::Range::everywhere(|_| {});
        let rows = reader.scan::<comity_to_device::tables::Outgoing>(everywhere());
        let owed = reader.scan::<comity_to_device::tables::Owed>(everywhere());
        (rows.await.unwrap().len(), owed.await.unwrap().len())
    };
    after(13 * 24 * 3600).await;
    assert_eq!(waiting().await, (3, 1));
    after(2 * 24 * 3600).await;
    assert_eq!(waiting().await, (0, 0));
    federation.wire.heal();
    drop(peer.heard());
    tell(&alice, &bob, json!({ "n": 3 })).await;
    after(2 * 3600).await;
    let told = edus(&transactions(&peer), "m.direct_to_device");
    assert_eq!(numbers(&told, &bob), [3]);
}

/// F11: a message that a peer refuses for ever holds up no other.
#[tokio::test(start_paused = true)]
async fn f11_a_refused_message_is_parked() {
    let (federation, peer, alice, _) = one_room().await;
    let bob = peer.user("bob").to_string();
    let taken = Arc::new(Mutex::new(Vec::new()));
    let kept = taken.clone();
    peer.answer(Method::PUT, SEND, move |asked: &Asked| {
        if asked.body.to_string().contains("poison") {
            return (413, json!({ "errcode": "M_TOO_LARGE" }));
        }
        kept.lock().unwrap().push(asked.clone());
        (200, json!({ "pdus": {} }))
    });
    federation.wire.hold(US, "peer.test");
    for content in [
        json!({ "n": 1 }),
        json!({ "n": 2, "text": "poison" }),
        json!({ "n": 3 }),
    ] {
        tell(&alice, &bob, content).await;
    }
    after(1).await;
    federation.wire.heal();
    after(60).await;
    let told = edus(&taken.lock().unwrap(), "m.direct_to_device");
    assert_eq!(numbers(&told, &bob), [1, 3]);
    assert_eq!(federation[US].sender.parked(), 1);
}

/// Two servers: a message reaches a device of the other, also of one that was down with its server, each once.
#[tokio::test(start_paused = true)]
async fn messages_cross_between_servers() {
    const THEM: &str = "them.test";
    let mut federation = Federation::of([US, THEM]).await;
    let alice = federation[US].register("alice").await;
    let bob = federation[THEM].register("bob").await;
    federation.wire.cut(US, THEM);
    for n in 0..3 {
        tell(&alice, &bob.id, json!({ "n": n })).await;
        after(60).await;
    }
    federation.restart(US).await;
    federation.restart(THEM).await;
    federation.wire.heal();
    after(600).await;
    let bob = federation[THEM].with_token(&bob.token);
    let answer = bob.get("/_matrix/client/v3/sync").send().await.ok();
    let events = answer["to_device"]["events"].as_array().unwrap();
    let numbers: Vec<u64> = events
        .iter()
        .map(|event| event["content"]["n"].as_u64().unwrap())
        .collect();
    assert_eq!(numbers, [0, 1, 2]);
    assert_eq!(events[0]["sender"], alice.id.as_str());
}
