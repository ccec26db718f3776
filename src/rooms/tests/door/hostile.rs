//! What isn't to come in stays out, and the room goes on.

use comity_protocol::{
    event::{Limits, Signed, WellFormed},
    id::ServerName,
    room_version::RoomVersion,
    sign::{KeyRing, PublishedKey},
};
use comity_rooms::{Arrival, Outcome, Refusal, Way, tables::Verdict};
use serde_json::{Value, json};

use crate::remote::{ADMIN, Draft, USERS, World, id};

const SOME: [RoomVersion; 3] = [RoomVersion::V1, RoomVersion::V10, RoomVersion::V12];
const REJECTED: Outcome = Outcome::Settled(Verdict::Rejected);
const ACCEPTED: Outcome = Outcome::Settled(Verdict::Accepted);
const SOFT_FAILED: Outcome = Outcome::Settled(Verdict::SoftFailed);

/// Knows nobody's key.
struct NoKeys;

impl KeyRing for NoKeys {
    fn key(&self, _: &ServerName, _: &str) -> Option<PublishedKey> {
        None
    }
}

/// A5: a new event with 21 parents or 11 auth events is dropped, as part of the past it is judged.
#[tokio::test(start_paused = true)]
async fn a5_too_many_parents() {
    let mut world = World::new(RoomVersion::V10).await;
    // Such an invite needs no signature of its sender, so that this test can write it freely.
    let content = json!({ "membership": "invite", "third_party_invite": { "signed": {} } });
    let draft = Draft::state(ADMIN, "m.room.member", "@x:other", content, &[&world.tip]);
    let event = world.remote.make(draft);
    let crowded = |field: &str, count: usize| -> Signed {
        let mut json: Value = serde_json::from_str(event.event().json()).unwrap();
        let ids = (0..count).map(|at| format!("${:043}", at));
        json[field] = ids.collect();
        let bytes = json.to_string();
        WellFormed::parse(RoomVersion::V10, bytes.as_bytes(), Limits::Past)
            .unwrap()
            .verify(&NoKeys)
            .unwrap()
    };
    for (field, most) in [("prev_events", 20), ("auth_events", 10)] {
        let outcome = world.receive(crowded(field, most + 1), Way::New).await;
        assert_eq!(outcome, Outcome::Refused(Refusal::TooManyParents));
        let outcome = world.receive(crowded(field, most), Way::New).await;
        assert!(matches!(outcome, Outcome::Wanted(_)));
        let outcome = world.receive(crowded(field, most + 1), Way::Outlier).await;
        assert!(!matches!(outcome, Outcome::Refused(_)));
    }
}

/// A6: the greatest depth is accepted, and what comes later still comes last.
#[tokio::test(start_paused = true)]
async fn a6_the_greatest_depth() {
    for version in SOME {
        let mut world = World::new(version).await;
        let mut deep = Draft::message(USERS[0], "deep", &[&world.tip]);
        deep.depth = Some(version.rules().max_depth);
        world.accepted(deep).await;
        let ours = world.say("later").await;
        assert_eq!(ours.depth(), version.rules().max_depth);
        assert_eq!(world.bodies().await, ["deep", "later"]);
    }
}

/// C3: an event of another room is no event of this one, and nothing of it is stored.
#[tokio::test(start_paused = true)]
async fn c3_another_rooms_event() {
    let mut world = World::new(RoomVersion::V12).await;
    let mut other = World::new(RoomVersion::V10).await;
    let stray = other
        .remote
        .make(Draft::message(USERS[0], "stray", &[&other.tip]));
    let outcome = world.receive(stray.clone(), Way::New).await;
    assert_eq!(outcome, Outcome::Refused(Refusal::OtherRoom));
    assert!(!world.knows(&id(&stray)).await);
    world.say("the room goes on").await;
}

/// D2: a room has one create event.
#[tokio::test(start_paused = true)]
async fn d2_a_second_create_event() {
    let mut world = World::new(RoomVersion::V10).await;
    let content = json!({ "creator": ADMIN, "room_version": "10" });
    let mut create = Draft::state(ADMIN, "m.room.create", "", content, &[]);
    create.depth = Some(1);
    let before = world.state().await;
    assert_eq!(world.deliver(create).await.1, REJECTED);
    assert_eq!(world.state().await, before);
}

/// D3 (CVE-2022-39374): auth events twice of one key, rejected ones, ones that don't belong there,
/// another room's.
#[tokio::test(start_paused = true)]
async fn d3_wrong_auth_events() {
    for version in SOME {
        let mut world = World::new(version).await;
        let tip = world.tip.clone();
        let auth = |world: &World, keys: &[(&str, &str)]| {
            let keys = keys.iter();
            let after = keys.map(|(kind, key)| world.remote.state_after(&tip, kind, key));
            after.collect::<Vec<_>>()
        };
        let mut right = vec![("m.room.power_levels", ""), ("m.room.member", USERS[0])];
        if version < RoomVersion::V12 {
            right.push(("m.room.create", ""));
        }
        let right = auth(&world, &right);

        // Power that its sender doesn't have, so rejected, and then cited.
        let levels = json!({ "users": { USERS[0]: 100 } });
        let grab = Draft::state(USERS[0], "m.room.power_levels", "", levels, &[&tip]);
        let (grab, outcome) = world.deliver(grab).await;
        assert_eq!(outcome, REJECTED, "{version}");

        let mut with_rejected = right.clone();
        with_rejected[0] = grab.clone();
        let mut twice = right.clone();
        twice.push(grab);
        let mut surplus = right.clone();
        surplus.extend(auth(&world, &[("m.room.join_rules", "")]));
        for wrong in [with_rejected, twice, surplus] {
            let mut draft = Draft::message(USERS[0], "no", &[&tip]);
            draft.auth = Some(wrong);
            assert_eq!(world.deliver(draft).await.1, REJECTED, "{version}");
        }

        let mut other = World::new(RoomVersion::V10).await;
        let stray = other
            .remote
            .make(Draft::member("@y:other", "@y:other", "join", &[&other.tip]));
        if !version.rules().references_with_hashes && version != RoomVersion::V10 {
            let mut draft = Draft::message(USERS[0], "no", &[&tip]);
            draft.auth = Some([right.clone(), vec![id(&stray)]].concat());
            let event = world.remote.make(draft);
            let arrivals = [stray, event].map(|event| Arrival {
                event,
                way: Way::New,
            });
            let outcomes = world.receive_all(arrivals.to_vec()).await;
            assert_eq!(outcomes[0].1, Outcome::Refused(Refusal::OtherRoom));
            assert!(matches!(outcomes[1].1, Outcome::Wanted(_)));
        }
        world
            .accepted(Draft::message(USERS[0], "yes", &[&tip]))
            .await;
        assert_eq!(world.bodies().await, ["yes"], "{version}");
    }
}

/// D6: a redaction takes effect on a target that comes later, if its sender may; never on the
/// create event, nor on another server's event without the power.
#[tokio::test(start_paused = true)]
async fn d6_redactions() {
    for version in [RoomVersion::V10, RoomVersion::V12] {
        let mut world = World::new(version).await;
        let tip = world.tip.clone();
        let early = world
            .remote
            .make(Draft::message(USERS[0], "secret", &[&tip]));
        let kept = world.remote.make(Draft::message(USERS[2], "kept", &[&tip]));
        let create = if version == RoomVersion::V12 {
            world.remote.room_id.as_str().replacen('!', "$", 1)
        } else {
            world
                .remote
                .state_after(&tip, "m.room.create", "")
                .to_string()
        };
        let create = comity_protocol::id::event_id(&create).unwrap();
        // Of the two redactions the first is of another server's user without power.
        for (sender, target) in [
            (USERS[2], id(&early)),
            (USERS[0], id(&early)),
            (USERS[0], id(&kept)),
            (ADMIN, create.clone()),
        ] {
            let redaction = Draft::redaction(sender, &target, &[&world.tip]);
            world.tip = world.accepted(redaction).await;
        }
        for event in [early.clone(), kept.clone()] {
            assert_eq!(world.receive(event, Way::New).await, ACCEPTED, "{version}");
        }
        assert_eq!(world.bodies().await, ["kept"], "{version}");
        let view = world.rooms.view(&world.remote.room_id).await.unwrap();
        let found = view.event(&id(&early)).await.unwrap().unwrap();
        assert!(found.status.redacted_by.is_some() && found.event.content().get() == "{}");
        let create = view.event(&create).await.unwrap().unwrap();
        assert_eq!(create.status.redacted_by, None, "{version}");

        // A redaction of a redaction takes its own content, and brings nothing back.
        let last = Draft::redaction(ADMIN, &world.tip, &[&world.tip]);
        world.tip = world.accepted(last).await;
        assert_eq!(world.bodies().await, ["kept"], "{version}");
    }
}

/// D9 (CVE-2026-45076): many rejected events in between do not keep readers from what is behind.
#[tokio::test(start_paused = true)]
async fn d9_rejected_events_amid_history() {
    let mut world = World::new(RoomVersion::V12).await;
    let mut tip = world.tip.clone();
    tip = world
        .accepted(Draft::message(USERS[0], "before", &[&tip]))
        .await;
    for at in 0..200 {
        let name = json!({ "name": at.to_string() });
        let draft = Draft::state(USERS[0], "m.room.name", "", name, &[&tip]);
        let (event_id, outcome) = world.deliver(draft).await;
        assert_eq!(outcome, REJECTED);
        tip = event_id;
    }
    world
        .accepted(Draft::message(USERS[0], "after", &[&tip]))
        .await;
    assert_eq!(world.bodies().await, ["before", "after"]);
    // By way of the rejected ones the last event follows the first.
    assert_eq!(world.extremities().await.len(), 1);
}

/// D10: what a banned user says from before their ban is kept, shown to nobody, and never our
/// parent; what others build upon it is judged by itself.
#[tokio::test(start_paused = true)]
async fn d10_evasion_of_a_ban() {
    for version in SOME {
        let mut world = World::new(version).await;
        let tip = world.tip.clone();
        let ban = Draft::member(ADMIN, USERS[0], "ban", &[&tip]);
        let ban = world.accepted(ban).await;
        let evading = Draft::message(USERS[0], "evading", &[&tip]);
        let (evading, outcome) = world.deliver(evading).await;
        assert_eq!(outcome, SOFT_FAILED, "{version}");
        let late = Draft::message(USERS[0], "late", &[&ban]);
        assert_eq!(world.deliver(late).await.1, REJECTED, "{version}");
        assert_eq!(world.bodies().await, Vec::<String>::new(), "{version}");
        assert_eq!(world.say("ours").await.prev_events(), [ban], "{version}");
        let tip = world.extremities().await.pop_first().unwrap();
        let both = Draft::message(USERS[1], "both", &[&tip, &evading]);
        let both = world.accepted(both).await;
        assert_eq!(world.bodies().await, ["ours", "both"], "{version}");
        assert_eq!(world.say("on").await.prev_events(), [both], "{version}");
    }
}

/// D11: 500 forks from one server: our next event has at most 20 parents, and they get fewer.
#[tokio::test(start_paused = true)]
async fn d11_many_forks() {
    let mut world = World::new(RoomVersion::V12).await;
    let tip = world.tip.clone();
    let mut arrivals = Vec::new();
    for at in 0..500 {
        let draft = if at % 50 == 0 {
            let name = json!({ "name": at.to_string() });
            Draft::state(ADMIN, "m.room.name", "", name, &[&tip])
        } else {
            Draft::message(USERS[0], &at.to_string(), &[&tip])
        };
        let event = world.remote.make(draft);
        let way = Way::New;
        arrivals.push(Arrival { event, way });
    }
    let outcomes = world.receive_all(arrivals).await;
    assert!(outcomes.iter().all(|(_, outcome)| *outcome == ACCEPTED));
    for left in [481, 462, 443] {
        assert_eq!(world.say("ours").await.prev_events().len(), 20);
        assert_eq!(world.extremities().await.len(), left);
    }
    assert_eq!(world.bodies().await.len(), 493);
}

/// D12: events that follow themselves, alone or in a ring, are dropped.
#[tokio::test(start_paused = true)]
async fn d12_cycles() {
    // Only where servers choose the ids can there be any.
    let mut world = World::new(RoomVersion::V1).await;
    let tip = world.tip.clone();
    let draft = |name: &str, prev: &[&comity_protocol::id::EventId]| {
        let mut draft = Draft::message(USERS[0], name, prev);
        draft.opaque_id = Some(name.to_owned());
        draft
    };
    let first = world.remote.make(draft("a", &[&tip]));
    let itself = world.remote.make(draft("a", &[&id(&first)]));
    let outcome = world.receive(itself, Way::New).await;
    assert_eq!(outcome, Outcome::Refused(Refusal::Cycle));
    let b = world.remote.make(draft("b", &[&id(&first)]));
    let a = world.remote.make(draft("a", &[&id(&b)]));
    let rest = world.remote.make(draft("c", &[&id(&a), &tip]));
    let arrivals = [a.clone(), b.clone(), rest].map(|event| Arrival {
        event,
        way: Way::New,
    });
    for (_, outcome) in world.receive_all(arrivals.to_vec()).await {
        assert_eq!(outcome, Outcome::Refused(Refusal::Cycle));
    }
    for event in [a, b] {
        let outcome = world.receive(event, Way::New).await;
        assert!(matches!(outcome, Outcome::Wanted(_)));
    }
    world.say("the room goes on").await;
}
