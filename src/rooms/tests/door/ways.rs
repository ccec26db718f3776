//! What is to come in, comes in.

use comity_protocol::{auth::Membership, id::UserId, room_version::RoomVersion};
use comity_rooms::{Arrival, Filled, Outcome, Run, Wanted, Way, tables::Verdict};
use serde_json::json;

use crate::{
    joining::signed,
    remote::{ADMIN, ALICE, Draft, USERS, World, id},
};

const SOME: [RoomVersion; 3] = [RoomVersion::V1, RoomVersion::V10, RoomVersion::V12];

/// Law 8: what a remote server sends becomes part of the room, our next event follows it, and a
/// second arrival changes nothing.
#[tokio::test(start_paused = true)]
async fn news_is_accepted_once() {
    for version in RoomVersion::ALL {
        let mut world = World::new(version).await;
        let signed = world
            .remote
            .make(Draft::message(USERS[0], "hello", &[&world.tip]));
        for _ in 0..2 {
            let outcome = world.receive(signed.clone(), Way::New).await;
            assert_eq!(outcome, Outcome::Settled(Verdict::Accepted), "{version}");
        }
        assert_eq!(world.bodies().await, ["hello"]);
        let reply = world.say("hi").await;
        assert_eq!(reply.prev_events(), [id(&signed)]);
        assert_eq!(world.bodies().await, ["hello", "hi"]);
    }
}

/// D8: an event whose parents aren't here is not stored; they are named, and only they. Once they
/// have come it is accepted, whatever order a batch has.
#[tokio::test(start_paused = true)]
async fn what_is_missing_is_named() {
    let mut world = World::new(RoomVersion::V12).await;
    let tip = world.tip.clone();
    let chain: Vec<_> = (0..40).fold(Vec::new(), |mut chain, at| {
        let parent = chain.last().map_or_else(|| tip.clone(), id);
        let draft = Draft::message(USERS[0], &at.to_string(), &[&parent]);
        chain.push(world.remote.make(draft));
        chain
    });
    let last = chain.last().unwrap().clone();
    let wanted = Wanted {
        prev: vec![id(&chain[38])],
        auth: Vec::new(),
    };
    let outcome = world.receive(last.clone(), Way::New).await;
    assert_eq!(outcome, Outcome::Wanted(wanted));
    assert!(!world.knows(&id(&last)).await && !world.knows(&id(&chain[38])).await);
    world.say("the room goes on").await;

    let backwards = chain.into_iter().rev().map(|event| Arrival {
        event,
        way: Way::New,
    });
    let outcomes = world.receive_all(backwards.collect()).await;
    let accepted = Outcome::Settled(Verdict::Accepted);
    assert!(outcomes.iter().all(|(_, outcome)| *outcome == accepted));
    assert_eq!(world.bodies().await.len(), 41);
    assert_eq!(world.extremities().await.len(), 2);
    assert_eq!(world.say("both").await.prev_events().len(), 2);
    assert_eq!(world.extremities().await.len(), 1);
}

/// Outliers are kept for what rests on them, and get their place when they come again as news.
#[tokio::test(start_paused = true)]
async fn an_outlier_gets_its_place_later() {
    let mut world = World::new(RoomVersion::V10).await;
    let user = "@late:other";
    let tip = world.tip.clone();
    let join = world
        .remote
        .make(Draft::member(user, user, "join", &[&tip]));
    let hello = world
        .remote
        .make(Draft::message(user, "late", &[&id(&join)]));
    let wanted = world.receive(hello.clone(), Way::New).await;
    assert!(matches!(wanted, Outcome::Wanted(wanted) if wanted.auth == [id(&join)]));
    let outlier = world.receive(join.clone(), Way::Outlier).await;
    assert_eq!(outlier, Outcome::Settled(Verdict::Outlier));
    let wanted = world.receive(hello.clone(), Way::New).await;
    assert!(matches!(wanted, Outcome::Wanted(wanted) if wanted.prev == [id(&join)]));
    for event in [join, hello] {
        let outcome = world.receive(event, Way::New).await;
        assert_eq!(outcome, Outcome::Settled(Verdict::Accepted));
    }
    assert_eq!(world.bodies().await, ["late"]);
}

/// Memberships and summaries follow the state, also where resolution takes an event back out of it:
/// a join on one fork does not survive the ban on the other.
#[tokio::test(start_paused = true)]
async fn what_is_derived_follows_resolution() {
    let user = "@late:other";
    for version in SOME {
        let mut world = World::new(version).await;
        let tip = world.tip.clone();
        let joined = world
            .accepted(Draft::member(user, user, "join", &[&tip]))
            .await;
        let topic = json!({ "topic": "by late" });
        let (_, denied) = world
            .deliver(Draft::state(user, "m.room.topic", "", topic, &[&joined]))
            .await;
        assert_eq!(denied, Outcome::Settled(Verdict::Rejected), "{version}");
        world
            .accepted(Draft::member(ADMIN, user, "ban", &[&tip]))
            .await;
        let view = world.rooms.view(&world.remote.room_id).await.unwrap();
        let late: &UserId = user.try_into().unwrap();
        assert_eq!(
            view.membership(late).await.unwrap(),
            Membership::Ban,
            "{version}"
        );
        let summary = world.rooms.summary(&world.remote.room_id).await.unwrap();
        assert_eq!(summary.joined, 5, "{version}");
        let row = world.rooms.member(late, &world.remote.room_id).await;
        let row = row.unwrap().unwrap();
        assert_eq!(row.value.membership, "ban", "{version}");
        assert_eq!(world.extremities().await.len(), 2, "{version}");
    }
}

/// D5: a server that leaves most of the state out of its answer doesn't take it from us.
#[tokio::test(start_paused = true)]
async fn d5_a_short_state_does_not_shrink_ours() {
    for version in SOME {
        let mut world = World::new(version).await;
        let name = json!({ "name": "kept" });
        let tip = world.tip.clone();
        let name = Draft::state(ADMIN, "m.room.name", "", name, &[&tip]);
        let tip = world.accepted(name).await;
        let before = world.state().await;
        let unseen = world
            .remote
            .make(Draft::message(USERS[0], "unseen", &[&tip]));
        let news = world
            .remote
            .make(Draft::message(USERS[0], "news", &[&id(&unseen)]));
        let given = [
            ("m.room.create", ""),
            ("m.room.power_levels", ""),
            ("m.room.member", USERS[0]),
        ]
        .map(|(kind, key)| world.remote.state_after(&tip, kind, key));
        let outcome = world.receive(news, Way::Beyond(given.to_vec())).await;
        assert_eq!(outcome, Outcome::Settled(Verdict::Accepted), "{version}");
        assert_eq!(world.state().await, before, "{version}");

        // The parent that was missing comes after all: it is no end of the graph.
        let ends = world.extremities().await;
        let outcome = world.receive(unseen, Way::New).await;
        assert_eq!(outcome, Outcome::Settled(Verdict::Accepted), "{version}");
        assert_eq!(world.extremities().await, ends, "{version}");
        assert_eq!(world.state().await, before, "{version}");
        let alice: &UserId = ALICE.try_into().unwrap();
        let mut change = world.rooms.change(&world.remote.room_id).await.unwrap();
        assert_eq!(change.membership(alice).await.unwrap(), Membership::Join);
    }
}

/// D5: what came as part of a state and is followed is no end of the graph either once it has its place.
#[tokio::test(start_paused = true)]
async fn what_is_followed_before_it_has_its_place() {
    for version in SOME {
        let mut world = World::new(version).await;
        let topic = json!({ "topic": "what it is about" });
        let topic = Draft::state(ADMIN, "m.room.topic", "", topic, &[&world.tip]);
        let topic = world.remote.make(topic);
        let outlier = world.receive(topic.clone(), Way::Outlier).await;
        assert_eq!(outlier, Outcome::Settled(Verdict::Outlier));
        let news = Draft::message(USERS[0], "news", &[&id(&topic)]);
        let news = world.remote.make(news);
        let state = &world.remote.events[&id(&topic)].1;
        let state = state.values().cloned().collect();
        let outcome = world.receive(news, Way::Beyond(state)).await;
        assert_eq!(outcome, Outcome::Settled(Verdict::Accepted), "{version}");
        let ends = world.extremities().await;
        let outcome = world.receive(topic, Way::New).await;
        assert_eq!(outcome, Outcome::Settled(Verdict::Accepted), "{version}");
        assert_eq!(world.extremities().await, ends, "{version}");
    }
}

/// What is kept of an event stays, and what is derived from it says the same: who sends it again may have redacted it.
#[tokio::test(start_paused = true)]
async fn what_comes_again_is_as_it_was_kept() {
    for version in SOME {
        let mut world = World::new(version).await;
        let topic = json!({ "topic": "kept" });
        let topic = Draft::state(ADMIN, "m.room.topic", "", topic, &[&world.tip]);
        let topic = world.remote.make(topic);
        let outlier = world.receive(topic.clone(), Way::Outlier).await;
        assert_eq!(outlier, Outcome::Settled(Verdict::Outlier));
        let redacted = signed(&topic.event().redact());
        let outcome = world.receive(redacted, Way::New).await;
        assert_eq!(outcome, Outcome::Settled(Verdict::Accepted), "{version}");
        let summary = world.rooms.summary(&world.remote.room_id).await.unwrap();
        assert_eq!(summary.topic.as_deref(), Some("kept"), "{version}");
    }
}

/// data-model.md, Events: a number is given once, also to what a run of history brings and the rules forbid.
#[tokio::test(start_paused = true)]
async fn a_run_that_fills_nothing() {
    for version in SOME {
        let mut world = World::new(version).await;
        let strange = Draft::message("@nobody:remote", "forbidden", &[&world.tip]);
        let strange = world.remote.make(strange);
        let unknown = world.remote.make(Draft::message(USERS[0], "unknown", &[]));
        let parents = [id(&strange), id(&unknown)];
        let before = Draft::message(USERS[0], "before", &[&parents[0], &parents[1]]);
        let before = world.remote.make(before);
        let news = Draft::message(USERS[0], "news", &[&id(&before)]);
        let news = world.remote.make(news);
        let state = &world.remote.events[&world.tip].1;
        let state = state.values().cloned().collect();
        let news_id = id(&news);
        let outcome = world.receive(news, Way::Beyond(state)).await;
        assert_eq!(outcome, Outcome::Settled(Verdict::Accepted), "{version}");
        let view = world.rooms.view(&world.remote.room_id).await.unwrap();
        let found = view.event(&news_id).await.unwrap().unwrap();
        let run = Run {
            seq: found.place().unwrap().0,
            events: vec![strange.clone(), before],
            state: Vec::new(),
        };
        let filled = world.rooms.fill(&world.remote.room_id, run).await.unwrap();
        assert_eq!(filled, Filled::Placed(0), "{version}");
        assert!(world.knows(&id(&strange)).await, "{version}");
    }
}
