//! What other servers may read of a room, and the templates they get.

use comity_protocol::{
    auth::Membership,
    event::{Event, Limits, WellFormed},
    id::{EventId, OwnedEventId, ServerName, UserId},
    room_version::RoomVersion,
};
use comity_rooms::{Outcome, PeerView, RoomError, tables::Verdict};
use serde_json::{Value, json};

use crate::remote::{ADMIN, Draft, USERS, World};

const SOME: [RoomVersion; 3] = [RoomVersion::V1, RoomVersion::V10, RoomVersion::V12];

fn server(name: &str) -> &ServerName {
    name.try_into().unwrap()
}

async fn seen_by(world: &World, name: &str) -> PeerView {
    let room_id = &world.remote.room_id;
    world.rooms.peer_view(server(name), room_id).await.unwrap()
}

fn ids(events: &[Event]) -> Vec<OwnedEventId> {
    events
        .iter()
        .map(|event| event.event_id().to_owned())
        .collect()
}

async fn chain(world: &mut World, count: usize) -> Vec<OwnedEventId> {
    let mut said = Vec::new();
    for at in 0..count {
        let draft = Draft::message(USERS[0], &at.to_string(), &[&world.tip.clone()]);
        world.tip = world.accepted(draft).await;
        said.push(world.tip.clone());
    }
    said
}

fn is_refused<T>(result: Result<T, RoomError>) -> bool {
    matches!(result, Err(RoomError::Forbidden(_)))
}

fn is_unknown<T>(result: Result<T, RoomError>) -> bool {
    matches!(result, Err(RoomError::UnknownEvent))
}

/// The servers of a room are those of its joined users, at any of its events; who leaves still hears
/// of it.
#[tokio::test(start_paused = true)]
async fn servers_follow_the_members() {
    for version in SOME {
        let mut world = World::new(version).await;
        let room_id = world.remote.room_id.clone();
        let all = ["localhost", "other", "remote"].map(|name| server(name).to_owned());
        assert_eq!(world.rooms.servers_in(&room_id).await.unwrap(), all);
        let before = world.tip.clone();
        let leave = Draft::member(USERS[2], USERS[2], "leave", &[&before]);
        world.tip = world.accepted(leave).await;
        let left = world.rooms.servers_in(&room_id).await.unwrap();
        assert_eq!(left, [all[0].clone(), all[2].clone()]);
        assert!(
            !world
                .rooms
                .is_server_in(server("other"), &room_id)
                .await
                .unwrap()
        );
        let view = world.rooms.view(&room_id).await.unwrap();
        for event_id in [&before, &world.tip] {
            let found = view.event(event_id).await.unwrap().unwrap();
            let around = view.servers_around(&found).await.unwrap();
            assert_eq!(around, all.iter().cloned().collect());
        }
    }
}

/// E2: who isn't in the room learns nothing of it, not even that it is there. F9: who is shut out
/// by the room's list likewise.
#[tokio::test(start_paused = true)]
async fn e2_servers_outside_read_nothing() {
    let mut world = World::new(RoomVersion::V10).await;
    let room_id = world.remote.room_id.clone();
    let rooms = world.rooms.clone();
    let unknown = "!nowhere:localhost".try_into().unwrap();
    assert!(is_refused(
        rooms.peer_view(server("stranger"), &room_id).await
    ));
    assert!(is_refused(rooms.peer_view(server("remote"), unknown).await));
    let tip = world.tip.clone();
    assert!(is_unknown(rooms.peer_event(server("stranger"), &tip).await));
    assert!(rooms.peer_event(server("other"), &tip).await.is_ok());

    let acl = json!({ "allow": ["*"], "deny": ["oth?r"] });
    let acl = Draft::state(ADMIN, "m.room.server_acl", "", acl, &[&tip]);
    world.tip = world.accepted(acl).await;
    for (name, expected) in [("other", false), ("OTHER:8448", false), ("remote", true)] {
        assert_eq!(
            rooms.lets_in(server(name), &room_id).await.unwrap(),
            expected
        );
    }
    assert!(is_refused(rooms.peer_view(server("other"), &room_id).await));
    assert!(is_unknown(rooms.peer_event(server("other"), &tip).await));
    let user: &UserId = "@new:other".try_into().unwrap();
    let template = rooms.template(server("other"), &room_id, user, Membership::Leave, None);
    assert!(is_refused(template.await));
}

/// E2: a server that isn't in the room any more is shown what it was owed when it was, so that it learns why it is
/// out; nothing that came since, and nothing that it says itself opens more to it.
#[tokio::test(start_paused = true)]
async fn e2_a_server_that_is_out_reads_what_it_was_owed() {
    for version in [RoomVersion::V10, RoomVersion::V12] {
        let mut world = World::new(version).await;
        let (room_id, rooms) = (world.remote.room_id.clone(), world.rooms.clone());
        let knocks = json!({ "join_rule": "knock" });
        let knocks = Draft::state(
            ADMIN,
            "m.room.join_rules",
            "",
            knocks,
            &[&world.tip.clone()],
        );
        world.tip = world.accepted(knocks).await;
        let theirs = chain(&mut world, 1).await.remove(0);
        let before = chain(&mut world, 2).await;
        let kick = Draft::member(ADMIN, USERS[2], "leave", &[&world.tip.clone()]);
        world.tip = world.accepted(kick).await;
        let kick = world.tip.clone();
        // Who hadn't heard of the kick said something to them too.
        let beside = world
            .accepted(Draft::message(USERS[0], "beside", &[&before[1]]))
            .await;
        let secret = Draft::state(ADMIN, "m.room.topic", "", json!({}), &[&kick, &beside]);
        let secret = world.accepted(secret).await;
        let knock = Draft::member(USERS[2], USERS[2], "knock", &[&secret, &theirs]);
        let knock = world.accepted(knock).await;
        let after = world
            .accepted(Draft::message(USERS[0], "after", &[&knock]))
            .await;

        let other = server("other");
        assert!(is_refused(rooms.peer_view(other, &room_id).await));
        let about = async |events: &[&OwnedEventId]| {
            let events: Vec<_> = events.iter().map(|id| (*id).clone()).collect();
            rooms.peer_view_about(other, &room_id, &events).await
        };
        for closed in [&secret, &knock, &after] {
            assert!(is_refused(about(&[closed]).await), "{version}");
            assert!(is_unknown(rooms.peer_event(other, closed).await));
        }
        for open in [&before[0], &kick, &beside] {
            assert!(about(&[open]).await.is_ok(), "{version}");
            assert!(rooms.peer_event(other, open).await.is_ok());
        }
        let view = about(&[&knock, &kick]).await.unwrap();
        let theirs = [theirs.clone()];
        let latest = [kick.clone(), knock.clone(), after.clone()];
        let found = view.missing_events(&theirs, &latest, 20, 0).await.unwrap();
        assert_eq!(ids(&found), before, "{version}");
        let found = view
            .backfill(std::slice::from_ref(&after), 100)
            .await
            .unwrap();
        assert!(ids(&found).contains(&kick), "{version}");
        for closed in [&secret, &knock, &after] {
            assert!(!ids(&found).contains(closed), "{version}");
            assert!(is_unknown(view.event(closed).await), "{version}");
            assert!(is_unknown(view.state_before(closed).await), "{version}");
            assert!(is_unknown(view.event_auth(closed).await), "{version}");
        }
        let state = view.state_before(&kick).await.unwrap();
        let state = view.ids(&state.state).await.unwrap();
        let joined = world
            .remote
            .state_after(&before[1], "m.room.member", USERS[2]);
        assert!(state.contains(&joined), "{version}");
    }
}

/// E1: another room's event is a missing one, whatever is asked of it. State and auth chain are those
/// of the event.
#[tokio::test(start_paused = true)]
async fn e1_state_and_auth_chain_of_this_rooms_events() {
    for version in SOME {
        let mut world = World::new(version).await;
        let before = world.tip.clone();
        let topic = Draft::state(
            ADMIN,
            "m.room.topic",
            "",
            json!({ "topic": "x" }),
            &[&before],
        );
        world.tip = world.accepted(topic).await;
        let said = chain(&mut world, 1).await;
        let view = seen_by(&world, "remote").await;

        let state = view
            .state_before(world.remote.events[&said[0]].0.event_id())
            .await
            .unwrap();
        let mut listed = view.ids(&state.state).await.unwrap();
        listed.sort();
        let mut expected: Vec<_> = world.state().await.into_values().collect();
        expected.sort();
        assert_eq!(listed, expected, "{version}");
        let whole = view.pdus(&state.state).await.unwrap();
        assert_eq!(ids(&whole), view.ids(&state.state).await.unwrap());
        // Each event's auth events are in the chain.
        let chain = view.ids(&state.auth_chain).await.unwrap();
        for event in &whole {
            assert!(
                event.auth_events().iter().all(|auth| chain.contains(auth)),
                "{version}"
            );
        }
        let earlier = view.state_before(&world.tip.clone()).await.unwrap();
        assert_eq!(earlier.state.len(), state.state.len());
        let at_topic = view
            .state_before(
                &ids(&whole
                    .iter()
                    .filter(|event| event.event_type() == "m.room.topic")
                    .cloned()
                    .collect::<Vec<_>>())[0],
            )
            .await
            .unwrap();
        assert_eq!(at_topic.state.len() + 1, state.state.len(), "{version}");

        let auth = view.event_auth(&said[0]).await.unwrap();
        let auth = view.ids(&auth).await.unwrap();
        let event = view.event(&said[0]).await.unwrap();
        assert!(
            event.auth_events().iter().all(|id| auth.contains(id)),
            "{version}"
        );

        let other = World::new(if version == RoomVersion::V10 {
            RoomVersion::V11
        } else {
            RoomVersion::V10
        })
        .await;
        let missing: &EventId = "$nothing:remote".try_into().unwrap();
        for event_id in [&*other.tip, missing] {
            assert!(is_unknown(view.state_before(event_id).await), "{version}");
            assert!(is_unknown(view.event_auth(event_id).await), "{version}");
            assert!(is_unknown(view.event(event_id).await), "{version}");
            let from = [event_id.to_owned()];
            assert!(view.backfill(&from, 10).await.unwrap().is_empty());
        }
    }
}

/// History goes out backwards from what was asked for, without what was rejected, and never more
/// than its bound.
#[tokio::test(start_paused = true)]
async fn history_is_walked_backwards() {
    let mut world = World::new(RoomVersion::V11).await;
    let first = world.tip.clone();
    let mut said = chain(&mut world, 3).await;
    let levels = json!({ "users": { USERS[1]: 100 } });
    let grab = Draft::state(USERS[1], "m.room.power_levels", "", levels, &[&world.tip]);
    let (grab, outcome) = world.deliver(grab).await;
    assert_eq!(outcome, Outcome::Settled(Verdict::Rejected));
    let after = Draft::message(USERS[0], "after", &[&grab]);
    world.tip = world.accepted(after).await;
    said.push(world.tip.clone());
    said.extend(chain(&mut world, 2).await);
    let view = seen_by(&world, "remote").await;

    let newest: Vec<_> = said.iter().rev().cloned().collect();
    let back = view.backfill(&[world.tip.clone()], 4).await.unwrap();
    assert_eq!(ids(&back), newest[..4]);
    let back = view
        .backfill(&[world.tip.clone()], usize::MAX)
        .await
        .unwrap();
    assert_eq!(ids(&back)[..6], newest[..]);
    assert_eq!(back.last().unwrap().event_type(), "m.room.create");

    let latest = [world.tip.clone()];
    let between = view.missing_events(&[first], &latest, 20, 0).await.unwrap();
    assert_eq!(ids(&between), said[..5]);
    let some = view.missing_events(&[], &latest, 2, 0).await.unwrap();
    assert_eq!(ids(&some), said[3..5]);
    let depth = world.remote.events[&said[4]].0.depth();
    let some = view.missing_events(&[], &latest, 20, depth).await.unwrap();
    assert_eq!(ids(&some), said[4..5]);
    let many = chain(&mut world, 120).await;
    let view = seen_by(&world, "remote").await;
    let back = view.backfill(&many[119..], 1_000).await.unwrap();
    assert_eq!(back.len(), 100);
    let missing = view
        .missing_events(&[], &many[119..], 1_000, 0)
        .await
        .unwrap();
    assert_eq!(ids(&missing), many[99..119]);
}

/// E3: what was said when no user of the server could see it goes out redacted.
#[tokio::test(start_paused = true)]
async fn e3_unseen_history_is_redacted() {
    for (setting, before_invite, invited) in [
        ("shared", true, true),
        ("world_readable", true, true),
        ("invited", false, true),
        ("joined", false, false),
    ] {
        let mut world = World::new(RoomVersion::V10).await;
        let content = json!({ "history_visibility": setting });
        let content = Draft::state(
            ADMIN,
            "m.room.history_visibility",
            "",
            content,
            &[&world.tip],
        );
        world.tip = world.accepted(content).await;
        let user = "@new:latecomer";
        let mut said = chain(&mut world, 1).await;
        for membership in ["invite", "join"] {
            let sender = if membership == "join" { user } else { ADMIN };
            let member = Draft::member(sender, user, membership, &[&world.tip]);
            world.tip = world.accepted(member).await;
            said.extend(chain(&mut world, 1).await);
        }
        let view = seen_by(&world, "latecomer").await;
        for (event_id, expected) in said.iter().zip([before_invite, invited, true]) {
            let event = view.event(event_id).await.unwrap();
            assert_eq!(
                event.content_member("body").is_some(),
                expected,
                "{setting}"
            );
            let back = view
                .backfill(std::slice::from_ref(event_id), 1)
                .await
                .unwrap();
            assert_eq!(back, [event], "{setting}");
        }
        let ts = world.remote.events[&said[0]].0.origin_server_ts();
        let near = view.near(ts, false).await.unwrap().unwrap();
        assert_eq!(near.event_id() == said[0], before_invite, "{setting}");
        let theirs = seen_by(&world, "remote").await;
        let near = theirs.near(ts, false).await.unwrap().unwrap();
        assert_eq!(near.event_id(), said[0], "{setting}");
    }
}

/// E3: a redaction that none of a server's users could see goes out whole all the same where they may see what it has taken back: before
/// version 11 it would take no effect there otherwise. Not so one that took back nothing, or what they may not see.
#[tokio::test(start_paused = true)]
async fn e3_redactions_of_what_is_seen_are_whole() {
    let mut world = World::new(RoomVersion::V10).await;
    let tip = world.tip.clone();
    let joined = json!({ "history_visibility": "joined" });
    let joined = Draft::state(ADMIN, "m.room.history_visibility", "", joined, &[&tip]);
    world.tip = world.accepted(joined).await;
    let user = "@new:latecomer";
    let join = Draft::member(user, user, "join", &[&world.tip]);
    world.tip = world.accepted(join).await;
    let seen = chain(&mut world, 2).await;
    let leave = Draft::member(user, user, "leave", &[&world.tip]);
    world.tip = world.accepted(leave).await;
    let unseen = chain(&mut world, 1).await;
    let mut redactions = Vec::new();
    for (sender, target) in [(ADMIN, &seen[0]), (USERS[2], &seen[1]), (ADMIN, &unseen[0])] {
        let redaction = Draft {
            content: json!({ "reason": "canary" }),
            ..Draft::redaction(sender, target, &[&world.tip])
        };
        world.tip = world.accepted(redaction).await;
        redactions.push(world.tip.clone());
    }
    let join = Draft::member(user, user, "join", &[&world.tip]);
    world.tip = world.accepted(join).await;
    let view = seen_by(&world, "latecomer").await;
    for (event_id, is_whole) in redactions.iter().zip([true, false, false]) {
        let event = view.event(event_id).await.unwrap();
        assert_eq!(event.redacts().is_some(), is_whole);
        assert_eq!(event.content_member("reason").is_some(), is_whole);
    }
}

/// C9, C4: a template is for a user of the asking server, of a version it knows, and for what the
/// room allows; with its server's signature it is let in.
#[tokio::test(start_paused = true)]
async fn templates_are_events_to_be() {
    for version in RoomVersion::ALL {
        let mut world = World::new(version).await;
        let room_id = world.remote.room_id.clone();
        let rooms = world.rooms.clone();
        let user: &UserId = "@new:latecomer".try_into().unwrap();
        let versions = [version.as_str().to_owned()];
        let ask = async |origin: &str, membership, versions: &[String]| {
            let versions = Some(versions);
            rooms
                .template(server(origin), &room_id, user, membership, versions)
                .await
        };
        assert!(
            is_refused(ask("remote", Membership::Join, &versions).await),
            "{version}"
        );
        let none = ask("latecomer", Membership::Join, &["0".to_owned()]).await;
        assert!(matches!(none, Err(RoomError::IncompatibleVersion(v)) if v == version));
        let template = ask("latecomer", Membership::Join, &versions).await.unwrap();
        let event: Value = serde_json::from_str(template.event.get()).unwrap();
        assert_eq!(
            event["content"],
            json!({ "membership": "join" }),
            "{version}"
        );
        assert_eq!(event["state_key"], json!(user));
        assert_eq!(event["sender"], json!(user));
        assert_eq!(event["room_id"], json!(room_id));
        for absent in ["event_id", "hashes", "signatures"] {
            assert!(event.get(absent).is_none(), "{version} {absent}");
        }
        assert!(WellFormed::parse(version, template.event.get().as_bytes(), Limits::New).is_err());
        let leave = ask("latecomer", Membership::Leave, &versions).await;
        assert!(matches!(leave, Err(RoomError::Rejected(_))), "{version}");
        let ban = Draft::member(ADMIN, user.as_str(), "ban", &[&world.tip]);
        world.accepted(ban).await;
        let join = ask("latecomer", Membership::Join, &versions).await;
        assert!(matches!(join, Err(RoomError::Rejected(_))), "{version}");
    }
}
