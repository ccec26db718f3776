//! What an event rests on and isn't here:
//! <https://spec.matrix.org/v1.19/server-server-api/#backfilling-and-retrieving-missing-events>

use std::time::Duration;

use comity_testkit::{Asked, HostilePeer, Pdu, encode};
use http::Method;
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::world::{HERE, World};

const MISSING: &str = "/_matrix/federation/v1/get_missing_events";
const STATE_IDS: &str = "/_matrix/federation/v1/state_ids";
const EVENT: &str = "/_matrix/federation/v1/event/";
const CHAIN: &str = "/_matrix/federation/v1/event_auth/";

/// Answers `get_missing_events` by what comes before the latest of a chain, `at_a_time`.
fn chain_answers(chain: Vec<Pdu>, at_a_time: usize) -> impl Fn(&Asked) -> Value {
    move |asked| {
        let latest = asked.body["latest_events"][0].as_str().unwrap();
        let at = chain.iter().position(|event| event.id == latest);
        let until = at.unwrap_or(chain.len());
        let events: Vec<&Value> = chain[until.saturating_sub(at_a_time)..until]
            .iter()
            .map(|event| &event.json)
            .collect();
        json!({ "events": events })
    }
}

fn asked(world: &World) -> Vec<String> {
    let heard = world.peer.heard().into_iter();
    heard.map(|asked| asked.target).collect()
}

/// What is missing is asked for by its children and our ends of the graph, comes into the order where
/// it belongs, and nothing more is asked.
#[tokio::test(start_paused = true)]
async fn missing_parents_are_fetched() {
    for version in ["6", "10", "11", "12"] {
        let mut world = World::new(version).await;
        let known = world.room.last.id.clone();
        let chain = world.unsent(45);
        world
            .peer
            .answer(Method::POST, MISSING, chain_answers(chain.clone(), 20));
        let news = world.say("news");
        world.send(&[&news]).await;
        world.sees(&news.id).await;
        let mut texts: Vec<String> = (0..45).map(|at| format!("unsent {at}")).collect();
        texts.push("news".to_owned());
        assert_eq!(world.texts().await, texts, "{version}");
        let heard = world.peer.heard();
        let asked: Vec<&Asked> = heard
            .iter()
            .filter(|asked| !asked.target.contains("/send/"))
            .collect();
        assert!(asked.iter().all(|asked| asked.target.starts_with(MISSING)));
        assert_eq!(asked[0].body["earliest_events"], json!([known]));
        assert_eq!(asked[0].body["latest_events"], json!([news.id]));
        assert_eq!(asked.len(), 3, "{version}");
    }
}

/// D8: of an event with more ancestors than anybody wants no more than 1,024 are fetched, and the room
/// can be used meanwhile. With the state before them the event is part of the room.
#[tokio::test(start_paused = true)]
async fn d8_endless_ancestors_are_not_fetched() {
    let mut world = World::new("11").await;
    let state: Vec<String> = world
        .room
        .state
        .values()
        .map(|event| event.id.clone())
        .collect();
    let chain = world.unsent(1_200);
    world
        .peer
        .answer(Method::POST, MISSING, chain_answers(chain, 100));
    world.peer.answer(
        Method::GET,
        STATE_IDS,
        move |_| json!({ "pdu_ids": state, "auth_chain_ids": [] }),
    );
    let news = world.say("news");
    world.federation.wire.hold(HERE, "evil.test");
    world.send(&[&news]).await;
    world.alice.send(&world.room.id, "meanwhile").await;
    world.federation.wire.heal();
    world.sees(&news.id).await;
    let fetches = asked(&world);
    let rounds = fetches
        .iter()
        .filter(|path| path.starts_with(MISSING))
        .count();
    assert_eq!(rounds, 11);
    let texts = world.texts().await;
    assert_eq!(texts.last().unwrap(), "news");
}

/// D5: a state that leaves out most of the room takes nothing from ours.
#[tokio::test(start_paused = true)]
async fn d5_a_short_state_does_not_shrink_ours() {
    let mut world = World::new("11").await;
    let name = json!({ "name": "kept" });
    world
        .alice
        .set_state(&world.room.id, "m.room.name", "", name.clone())
        .await;
    let user = world.peer.user("mallory").to_string();
    let few = [
        ("m.room.create", String::new()),
        ("m.room.power_levels", String::new()),
        ("m.room.member", user),
    ];
    let few = few.map(|(kind, key)| world.room.state[&(kind.to_owned(), key)].id.clone());
    world.peer.answer(
        Method::GET,
        STATE_IDS,
        move |_| json!({ "pdu_ids": few, "auth_chain_ids": [] }),
    );
    world.unsent(1);
    let news = world.say("news");
    world.send(&[&news]).await;
    world.sees(&news.id).await;
    let room = world.room.id.clone();
    assert_eq!(world.alice.state(&room, "m.room.name", "").await, name);
    let alice = world.alice.id.clone();
    let member = world.alice.state(&room, "m.room.member", &alice).await;
    assert_eq!(member["membership"], "join");
}

/// Auth events that aren't here are fetched, one by one where the auth chain can't be had.
#[tokio::test(start_paused = true)]
async fn missing_auth_events_are_fetched() {
    let mut world = World::new("11").await;
    let content = json!({ "membership": "join", "displayname": "M" });
    let user = world.peer.user("mallory").to_string();
    let join = world.peer.event(
        &world.room,
        "mallory",
        "m.room.member",
        Some(&user),
        content,
    );
    world.room.went_on(&join);
    let news = world.say("news");
    let unsent = join.json.clone();
    world.peer.answer(
        Method::GET,
        EVENT,
        move |_| json!({ "origin": "evil.test", "origin_server_ts": 1, "pdus": [unsent] }),
    );
    let parent = join.json.clone();
    world.peer.answer(
        Method::POST,
        MISSING,
        move |_| json!({ "events": [parent] }),
    );
    world.send(&[&news]).await;
    world.sees(&news.id).await;
    assert!(world.shows(&join.id).await);
}

/// D8: an auth event that rests on something nobody has is given up, however much of what it rests on is here already and sent again.
#[tokio::test(start_paused = true)]
async fn d8_auth_events_that_cannot_be_had_end_the_search() {
    let mut world = World::new("11").await;
    let user = world.peer.user("mallory").to_string();
    let content = json!({ "membership": "join", "displayname": "M" });
    let mut join = (world.peer).unsigned(
        &world.room,
        "mallory",
        "m.room.member",
        Some(&user),
        content,
    );
    let nobodys = format!("${}", "A".repeat(43));
    join["auth_events"]
        .as_array_mut()
        .unwrap()
        .push(json!(nobodys));
    let join = world.peer.sign("11", join);
    let mut chain: Vec<Value> = world
        .room
        .state
        .values()
        .map(|at| at.json.clone())
        .collect();
    chain.push(join.json.clone());
    world
        .peer
        .answer(Method::GET, CHAIN, move |_| json!({ "auth_chain": chain }));
    let key = ("m.room.member".to_owned(), user);
    let known = world.room.state.insert(key.clone(), join).unwrap();
    let last = world.room.last.clone();
    let lost = world.say("lost");
    world.send(&[&lost]).await;
    world.room.state.insert(key, known);
    world.room.last = last;
    let news = world.say("news");
    world.send(&[&news]).await;
    world.sees(&news.id).await;
    sleep(Duration::from_secs(10)).await;
    assert_eq!(world.texts().await, ["news"]);
    // Each time it is tried it is asked for once.
    let fetches = asked(&world);
    let chains = fetches.iter().filter(|path| path.starts_with(CHAIN));
    let is_it = |path: &&String| path.starts_with(EVENT) && path.ends_with(&nobodys[1..]);
    let single = fetches.iter().filter(is_it);
    assert_eq!(single.count(), chains.count(), "{fetches:?}");
}

/// B2: an event that isn't signed as it should be is not stored, by whichever answer it comes.
#[tokio::test(start_paused = true)]
async fn b2_answers_are_checked() {
    let mut world = World::new("11").await;
    let unsent = world.unsent(1).remove(0);
    let mut forged = unsent.json.clone();
    forged["signatures"]["evil.test"]["ed25519:evil"] = json!("A".repeat(86));
    let news = world.say("news");
    let events = forged.clone();
    world.peer.answer(
        Method::POST,
        MISSING,
        move |_| json!({ "events": [events] }),
    );
    let ids = json!([unsent.id]);
    world.peer.answer(
        Method::GET,
        STATE_IDS,
        move |_| json!({ "pdu_ids": ids, "auth_chain_ids": [] }),
    );
    let pdus = forged.clone();
    world
        .peer
        .answer(Method::GET, EVENT, move |_| json!({ "pdus": [pdus] }));
    world.send(&[&news]).await;
    world.room.last = world.room.state[&(
        "m.room.member".to_owned(),
        world.peer.user("mallory").to_string(),
    )]
        .clone();
    world.settle().await;
    assert!(!world.shows(&unsent.id).await);
}

/// What was taken is judged after a restart too.
#[tokio::test(start_paused = true)]
async fn what_waits_survives_a_restart() {
    let mut world = World::new("11").await;
    let chain = world.unsent(3);
    world
        .peer
        .answer(Method::POST, MISSING, chain_answers(chain, 20));
    let news = world.say("news");
    world.federation.wire.hold(HERE, "evil.test");
    world.send(&[&news]).await;
    world.federation.restart(HERE).await;
    world.federation.wire.heal();
    world.alice = world.here().login("alice").await;
    world.sees(&news.id).await;
    assert_eq!(world.texts().await.len(), 4);
}

/// D8: who gives little at a time isn't followed for ever: after 12 answers the state before what was found
/// is asked for.
#[tokio::test(start_paused = true)]
async fn d8_a_trickle_of_ancestors_ends() {
    let mut world = World::new("11").await;
    let state = world.room.state.values();
    let state: Vec<String> = state.map(|event| event.id.clone()).collect();
    let chain = world.unsent(200);
    let answers = chain_answers(chain, 3);
    world.peer.answer(Method::POST, MISSING, answers);
    world.peer.answer(
        Method::GET,
        STATE_IDS,
        move |_| json!({ "pdu_ids": state, "auth_chain_ids": [] }),
    );
    let news = world.say("news");
    world.send(&[&news]).await;
    world.sees(&news.id).await;
    let fetches = asked(&world);
    let of = |path: &str| {
        fetches
            .iter()
            .filter(|asked| asked.starts_with(path))
            .count()
    };
    assert_eq!((of(MISSING), of(STATE_IDS)), (12, 1));
    assert_eq!(world.texts().await.len(), 12 * 3 + 1);
}

/// An event of whose state some can't be checked, as its server doesn't tell its keys, waits for them: a state without it would be
/// another for good. Where that server stays silent the room goes on without, after an hour; at once, where it answers that it has none.
#[tokio::test(start_paused = true)]
async fn a_state_waits_for_the_keys_of_its_events() {
    for (comes_back, answers) in [(true, false), (false, false), (false, true)] {
        let mut world = World::new("11").await;
        let third = HostilePeer::on(&world.federation.wire, "third.test");
        let mut of_third = world.room.clone();
        let user = third.user("theo").to_string();
        let content = json!({ "membership": "join" });
        let join = third.event(&of_third, "theo", "m.room.member", Some(&user), content);
        of_third.went_on(&join);
        world.room.went_on(&join);
        world.unsent(1);
        let news = world.say("news");
        let state = world.room.state.values();
        let state: Vec<String> = state.map(|event| event.id.clone()).collect();
        assert!(state.contains(&join.id));
        world.peer.answer(
            Method::GET,
            STATE_IDS,
            move |_| json!({ "pdu_ids": state, "auth_chain_ids": [] }),
        );
        let pdu = join.json.clone();
        world
            .peer
            .answer(Method::GET, EVENT, move |_| json!({ "pdus": [pdu] }));
        if answers {
            let nothing = json!({ "errcode": "M_NOT_FOUND", "error": "no keys here" });
            third.answer(Method::GET, "/_matrix/key/v2/server", move |_| {
                (404, nothing.clone())
            });
        } else {
            world.federation.wire.cut(HERE, "third.test");
        }
        world.send(&[&news]).await;
        sleep(Duration::from_secs(20 * 60)).await;
        assert_eq!(world.texts().await.is_empty(), !answers);
        if comes_back {
            world.federation.wire.heal();
        }
        sleep(Duration::from_secs(3 * 60 * 60)).await;
        assert_eq!(world.texts().await, ["news"], "{comes_back}");
        let path = format!(
            "/_matrix/client/v3/rooms/{}/state/m.room.member/{}",
            encode(&world.room.id),
            encode(&user)
        );
        let member = world.alice.get(path).send().await;
        assert_eq!(member.status == 200, comes_back);
    }
}
