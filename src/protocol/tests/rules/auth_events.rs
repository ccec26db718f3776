//! The rules about the list of `auth_events` itself (threats D2, D3), against the oracle.

use comity_protocol::auth::{
    AuthEntry, AuthEvent, Rejection, auth_types_for_event, check_auth_events,
};
use comity_protocol::id::RoomId;
use comity_protocol::room_version::RoomVersion;
use serde_json::{Value, json};

use crate::event::{Num, TestEvent};
use crate::oracle;
use crate::world::{Draft, World};

const ADA: &str = "@ada:one";
const BOB: &str = "@bob:two";

/// A room with the usual state: create 0, Ada 1, power levels 2, join rules 3, Bob 4, an older
/// membership of Bob's 5, a topic 6, a message 7, a third-party invite 8.
fn room(version: RoomVersion) -> World {
    let mut world = World::new(version);
    let state: [(&str, Option<&str>, &str, Value); 9] = [
        ("m.room.create", Some(""), ADA, json!({ "creator": ADA })),
        (
            "m.room.member",
            Some(ADA),
            ADA,
            json!({ "membership": "join" }),
        ),
        ("m.room.power_levels", Some(""), ADA, json!({})),
        (
            "m.room.join_rules",
            Some(""),
            ADA,
            json!({ "join_rule": "public" }),
        ),
        (
            "m.room.member",
            Some(BOB),
            BOB,
            json!({ "membership": "join" }),
        ),
        (
            "m.room.member",
            Some(BOB),
            BOB,
            json!({ "membership": "leave" }),
        ),
        ("m.room.topic", Some(""), ADA, json!({})),
        ("m.room.message", None, ADA, json!({})),
        ("m.room.third_party_invite", Some("token"), ADA, json!({})),
    ];
    for (event_type, state_key, sender, content) in state {
        let event = make(&world, event_type, state_key, sender, content, Vec::new());
        world.add(event);
    }
    world
}

fn make(
    world: &World,
    event_type: &str,
    state_key: Option<&str>,
    sender: &str,
    content: Value,
    auth: Vec<Num>,
) -> TestEvent {
    let event_id = format!("${:0>43}", world.events.len());
    world.make(Draft {
        event_id,
        event_type,
        state_key,
        sender,
        content,
        ts: 0,
        prev: Vec::new(),
        auth,
    })
}

/// The verdict on an event's list, which the oracle must share.
fn verdict(world: &World, event: &TestEvent) -> Result<(), Rejection> {
    let entry = |num: Num| {
        let event = world.event(num);
        AuthEntry {
            event_type: event.event_type(),
            state_key: event.state_key(),
            room_id: event.room_id(),
            rejected: event.rejected,
        }
    };
    let entries = event.auth.iter().map(|num| entry(*num));
    let ours = check_auth_events(world.rules(), event, entries, Some(entry(0)));
    let theirs = oracle::accepts_auth_events(world, event);
    assert_eq!(ours.is_ok(), theirs, "{ours:?} {event:?}\n{}", world.tell());
    ours
}

/// The list of an event with the create event where the version wants it.
fn with_create(version: RoomVersion, mut auth: Vec<Num>) -> Vec<Num> {
    if !version.rules().room_id_is_create_hash {
        auth.insert(0, 0);
    }
    auth
}

fn message(world: &World, auth: Vec<Num>) -> TestEvent {
    make(world, "m.room.message", None, BOB, json!({}), auth)
}

#[test]
fn d3_the_right_list() {
    for version in RoomVersion::ALL {
        let world = room(version);
        for auth in [vec![2, 4], vec![4, 2], vec![4], vec![]] {
            assert_eq!(
                verdict(&world, &message(&world, with_create(version, auth))),
                Ok(())
            );
        }
    }
}

/// Threat D3: two entries for one key, the wrong ones, and what is no state at all.
#[test]
fn d3_duplicate_and_unexpected_entries() {
    for version in RoomVersion::ALL {
        let world = room(version);
        for (auth, expected) in [
            (vec![2, 4, 5], Rejection::DuplicateAuthEvent),
            (vec![2, 4, 4], Rejection::DuplicateAuthEvent),
            (vec![1, 2, 4], Rejection::UnexpectedAuthEvent),
            (vec![2, 3, 4], Rejection::UnexpectedAuthEvent),
            (vec![2, 4, 6], Rejection::UnexpectedAuthEvent),
            (vec![2, 4, 7], Rejection::UnexpectedAuthEvent),
            (vec![2, 4, 8], Rejection::UnexpectedAuthEvent),
        ] {
            let event = message(&world, with_create(version, auth.clone()));
            assert_eq!(verdict(&world, &event), Err(expected), "{version} {auth:?}");
        }
    }
}

/// Threats D2, D3: the create event is listed in every version but 12, where it must not be.
#[test]
fn d2_the_create_event_in_the_list() {
    for version in RoomVersion::ALL {
        let world = room(version);
        let listed = verdict(&world, &message(&world, vec![0, 2, 4]));
        let left_out = verdict(&world, &message(&world, vec![2, 4]));
        if version == RoomVersion::V12 {
            assert_eq!(
                (listed, left_out),
                (Err(Rejection::UnexpectedAuthEvent), Ok(()))
            );
        } else {
            assert_eq!(
                (listed, left_out),
                (Ok(()), Err(Rejection::CreateNotInAuthEvents))
            );
        }
    }
}

/// Threat D3 (CVE-2022-39374): a rejected entry spoils the event that lists it, and no other.
#[test]
fn d3_rejected_entries() {
    for version in RoomVersion::ALL {
        let mut world = room(version);
        world.events[4].rejected = true;
        let event = message(&world, with_create(version, vec![2, 4]));
        assert_eq!(
            verdict(&world, &event),
            Err(Rejection::RejectedAuthEvent),
            "{version}"
        );
        let event = message(&world, with_create(version, vec![2, 5]));
        assert_eq!(verdict(&world, &event), Ok(()), "{version}");
    }
}

/// Threat D3: an entry of another room.
#[test]
fn d3_entries_of_another_room() {
    for version in RoomVersion::ALL {
        let mut world = room(version);
        world.events[2].room_id = RoomId::parse("!two:one").unwrap();
        let event = message(&world, with_create(version, vec![2, 4]));
        assert_eq!(
            verdict(&world, &event),
            Err(Rejection::AuthEventOfOtherRoom),
            "{version}"
        );
    }
}

/// From version 12 the room's id has to name a create event that stands.
#[test]
fn d2_the_room_needs_an_accepted_create_event() {
    let mut world = room(RoomVersion::V12);
    let event = message(&world, vec![2, 4]);
    let none = check_auth_events(world.rules(), &event, [], None);
    assert_eq!(none, Err(Rejection::NoCreate));
    let other = AuthEntry {
        event_type: "m.room.member",
        state_key: Some(""),
        room_id: event.room_id(),
        rejected: false,
    };
    assert_eq!(
        check_auth_events(world.rules(), &event, [], Some(other)),
        Err(Rejection::NoCreate)
    );
    world.events[0].rejected = true;
    assert_eq!(verdict(&world, &event), Err(Rejection::NoCreate));
}

/// Type, state key, sender, content; the keys by their first letter, members by their user.
type Selected = (
    &'static str,
    Option<&'static str>,
    &'static str,
    Value,
    &'static [&'static str],
);

/// [Auth events selection](https://spec.matrix.org/v1.19/server-server-api/#auth-events-selection):
/// the keys, event by event.
#[test]
fn auth_events_selection() {
    let invite =
        json!({ "membership": "invite", "third_party_invite": { "signed": { "token": "token" } } });
    let join = json!({ "membership": "join", "join_authorised_via_users_server": "@eve:three" });
    let odd = json!({ "membership": "join", "join_authorised_via_users_server": 1 });
    let table: [Selected; 9] = [
        ("m.room.create", Some(""), ADA, json!({}), &[]),
        ("m.room.message", None, ADA, json!({}), &["C", "P", ADA]),
        ("m.room.topic", Some(""), ADA, json!({}), &["C", "P", ADA]),
        (
            "m.room.member",
            Some(BOB),
            BOB,
            json!({ "membership": "join" }),
            &["C", "J", "P", BOB],
        ),
        (
            "m.room.member",
            Some(BOB),
            BOB,
            join,
            &["C", "J", "P", BOB, "restricted @eve:three"],
        ),
        ("m.room.member", Some(BOB), BOB, odd, &["C", "J", "P", BOB]),
        (
            "m.room.member",
            Some(BOB),
            ADA,
            json!({ "membership": "ban" }),
            &["C", "P", ADA, BOB],
        ),
        (
            "m.room.member",
            Some(BOB),
            ADA,
            invite,
            &["C", "J", "P", ADA, BOB, "T"],
        ),
        (
            "m.room.member",
            Some(BOB),
            ADA,
            json!({}),
            &["C", "P", ADA, BOB],
        ),
    ];
    for version in RoomVersion::ALL {
        for (event_type, state_key, sender, content, keys) in &table {
            let world = World::new(version);
            let event = make(
                &world,
                event_type,
                *state_key,
                sender,
                content.clone(),
                Vec::new(),
            );
            let expected: std::collections::BTreeSet<_> = keys
                .iter()
                .filter_map(|key| match (*key, version.rules()) {
                    ("C", rules) => {
                        (!rules.room_id_is_create_hash).then_some(("m.room.create", ""))
                    }
                    ("P", _) => Some(("m.room.power_levels", "")),
                    ("J", _) => Some(("m.room.join_rules", "")),
                    ("T", _) => Some(("m.room.third_party_invite", "token")),
                    ("restricted @eve:three", rules) => {
                        rules.restricted.then_some(("m.room.member", "@eve:three"))
                    }
                    (user, _) => Some(("m.room.member", user)),
                })
                .map(|(event_type, state_key)| (event_type, state_key.to_owned()))
                .collect();
            assert_eq!(
                auth_types_for_event(version.rules(), &event),
                expected,
                "{version} {event:?}"
            );
        }
    }
}
