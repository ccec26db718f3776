//! Events that rest on what can't be had for now.

use std::time::Duration;

use comity_federation_receiver::tables::WaitingEvents;
use comity_storage::Range;
use comity_testkit::{Asked, HostilePeer, Pdu, PeerRoom};
use http::Method;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::world::{HERE, PEER, World};

const MISSING: &str = "/_matrix/federation/v1/get_missing_events";
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

fn has(events: &[Pdu]) -> impl Fn(&Asked) -> Value + use<> {
    let events: Vec<Value> = events.iter().map(|event| event.json.clone()).collect();
    move |_| json!({ "events": events })
}

async fn waiting(world: &World) -> usize {
    let reader = world.here().api.rooms.tenant().reader();
    let rows = reader.scan::<WaitingEvents>(Range::everywhere(|_| {}));
    rows.await.unwrap().len()
}

/// News that follow what nobody has heard of; the room stays where it was.
fn beyond(world: &World, n: usize) -> Pdu {
    beyond_by(&world.peer, "mallory", &world.room, n)
}

fn beyond_by(peer: &HostilePeer, user: &str, room: &PeerRoom, n: usize) -> Pdu {
    let last = Pdu {
        id: format!("${n:043}"),
        json: json!({ "depth": 20 }),
    };
    let room = PeerRoom {
        last,
        ..room.clone()
    };
    let content = json!({ "msgtype": "m.text", "body": n.to_string() });
    peer.event(&room, user, "m.room.message", None, content)
}

/// What can't be had holds up nothing; its event waits, over a restart as well, and comes in when its
/// parents can be had, with what follows it.
#[tokio::test(start_paused = true)]
async fn events_wait_for_what_they_rest_on() {
    let mut world = World::new("11").await;
    let known = world.room.clone();
    let unsent = world.unsent(3);
    let (news, more) = (world.say("news"), world.say("more"));
    let later = std::mem::replace(&mut world.room, known);
    world.send(&[&news, &more]).await;
    world.settle().await;
    assert_eq!(waiting(&world).await, 2);
    world.federation.restart(HERE).await;
    world.alice = world.here().login("alice").await;
    sleep(DAY).await;
    assert_eq!(world.texts().await, ["settled"]);
    assert!(
        world.peer.heard().len() < 200,
        "it is asked for with patience"
    );
    world.peer.answer(Method::POST, MISSING, has(&unsent));
    // The longest wait is an hour and a quarter.
    sleep(Duration::from_secs(2 * 60 * 60)).await;
    world.sees(&more.id).await;
    let texts = world.texts().await;
    assert_eq!(
        texts
            .iter()
            .filter(|text| text.starts_with("unsent"))
            .count(),
        3
    );
    world.room = later;
    sleep(DAY).await;
    assert_eq!(waiting(&world).await, 0);
}

/// A server that was away is asked as soon as it speaks again, however long it was away.
#[tokio::test(start_paused = true)]
async fn who_speaks_again_is_asked() {
    let mut world = World::new("11").await;
    let known = world.room.clone();
    let unsent = world.unsent(2);
    let news = world.say("news");
    world.room = known;
    world.federation.wire.cut_one_way(HERE, PEER);
    world.send(&[&news]).await;
    sleep(DAY).await;
    world.federation.wire.heal();
    world.peer.answer(Method::POST, MISSING, has(&unsent));
    world.edus(&[]).await;
    let begun = Instant::now();
    world.sees(&news.id).await;
    assert!(begun.elapsed() < Duration::from_secs(10 * 60));
}

/// Another server that has the rest is found as soon as it is known to be in the room.
#[tokio::test(start_paused = true)]
async fn another_server_may_have_it() {
    let mut world = World::new("11").await;
    let known = world.room.clone();
    let unsent = world.unsent(2);
    let news = world.say("news");
    world.room = known;
    world.send(&[&news]).await;
    world.settle().await;
    let friend = HostilePeer::on(&world.federation.wire, "friend.test");
    friend.answer(Method::POST, MISSING, has(&unsent));
    friend.join(world.here(), &world.room.id, "frank").await;
    world.federation.wire.cut_one_way(HERE, PEER);
    world.sees(&news.id).await;
    assert!(!friend.heard().is_empty());
}

/// D8: of a room no more than 32 events wait, half of them by one server, so that nobody takes all the places; the
/// others are forgotten, and after a week all are.
#[tokio::test(start_paused = true)]
async fn d8_what_waits_is_bounded() {
    let mut world = World::new("11").await;
    for n in 0..40 {
        let event = beyond(&world, n);
        world.send(&[&event]).await;
        // Sent twice, it waits once.
        world.send(&[&event]).await;
    }
    world.settle().await;
    assert_eq!(waiting(&world).await, 16);
    for (at, name) in ["friend.test", "fiend.test"].into_iter().enumerate() {
        let peer = HostilePeer::on(&world.federation.wire, name);
        let room = peer.join(world.here(), &world.room.id, "frank").await;
        let events = (0..20).map(|n| beyond_by(&peer, "frank", &room, 100 * (at + 1) + n).json);
        let pdus: Vec<Value> = events.collect();
        let body = json!({ "origin": name, "origin_server_ts": 1, "pdus": pdus });
        let path = "/_matrix/federation/v1/send/one";
        let request = peer.to(world.here()).put(path);
        request.json(body).send().await.ok();
        world.settle().await;
        sleep(Duration::from_secs(60)).await;
        assert_eq!(waiting(&world).await, 32, "{name}");
    }
    // In one leap: else they would be tried each hour.
    tokio::time::advance(8 * DAY).await;
    sleep(Duration::from_secs(2 * 60 * 60)).await;
    assert_eq!(waiting(&world).await, 0);
}

/// However many rooms one server makes us search in, few searches go on at a time, and others are not
/// held up.
#[tokio::test(start_paused = true)]
async fn few_searches_at_a_time() {
    let mut world = World::new("11").await;
    let friend = HostilePeer::on(&world.federation.wire, "friend.test");
    let first = world.room.id.clone();
    let mut with_friend = friend.join(world.here(), &first, "frank").await;
    let mut rooms = Vec::new();
    for n in 0..20 {
        let room = json!({ "preset": "public_chat", "room_version": "11" });
        let room = world.alice.create_room(room).await;
        world.room = world.peer.join(world.here(), &room, "mallory").await;
        rooms.push((world.room.clone(), beyond(&world, n)));
    }
    drop(world.federation.wire.log());
    world.federation.wire.hold(HERE, PEER);
    for (_, event) in &rooms {
        world.send(&[event]).await;
    }
    sleep(Duration::from_secs(5)).await;
    let searching = || {
        let log = world.federation.wire.log().into_iter();
        log.filter(|line| line.contains("get_missing_events"))
            .count()
    };
    assert_eq!(searching(), 8);
    // Another server's events are searched for all the same.
    let content = json!({ "msgtype": "m.text", "body": "unsent" });
    let parent = friend.event(
        &with_friend,
        "frank",
        "m.room.message",
        None,
        content.clone(),
    );
    with_friend.went_on(&parent);
    let news = friend.event(&with_friend, "frank", "m.room.message", None, content);
    friend.answer(Method::POST, MISSING, has(std::slice::from_ref(&parent)));
    let body = json!({ "origin": "friend.test", "origin_server_ts": 1, "pdus": [news.json] });
    let path = "/_matrix/federation/v1/send/one";
    let told = friend
        .to(world.here())
        .put(path)
        .json(body)
        .send()
        .await
        .ok();
    assert_eq!(told["pdus"][&news.id], json!({}));
    let begun = Instant::now();
    world.room = with_friend;
    world.sees(&news.id).await;
    assert!(begun.elapsed() < Duration::from_secs(10));
    world.federation.wire.heal();
}
