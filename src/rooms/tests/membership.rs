//! Coming and going.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)]

mod world;

use comity_protocol::auth::Membership;
use comity_rooms::{CreateRoom, Intent, Join, RoomError, StateEvent};
use comity_storage::{Home, engine::Memory};
use serde_json::{Value, json, value::to_raw_value};
use world::*;

fn with_join_rule(rule: Value) -> CreateRoom {
    CreateRoom {
        initial_state: vec![StateEvent {
            event_type: "m.room.join_rules".into(),
            state_key: String::new(),
            content: to_raw_value(&rule).unwrap(),
        }],
        ..CreateRoom::default()
    }
}

/// R3.4: what each user may do to whom, from which membership.
#[tokio::test(start_paused = true)]
async fn members_come_and_go_by_the_rules() {
    for lanes in LANES {
        let rooms = fresh(lanes).await;
        let (alice, bob) = (user("@alice:localhost"), user("@bob:localhost"));
        let room = create(&rooms, alice, CreateRoom::default()).await;
        let nobody = profile("Bob");
        let counts = async || {
            let summary = rooms.summary(&room).await.unwrap();
            (summary.joined, summary.invited)
        };
        assert!(matches!(
            join(&rooms, bob, &room).await,
            Err(RoomError::Rejected(_))
        ));
        let kick = rooms.kick(alice, &room, bob, None).await;
        assert!(matches!(kick, Err(RoomError::Forbidden(_))));
        let unban = rooms.unban(alice, &room, bob, None).await;
        assert!(matches!(unban, Err(RoomError::Forbidden(_))));
        let leave = rooms.leave(bob, &room, None).await;
        assert!(matches!(leave, Err(RoomError::Rejected(_))));
        let oneself = rooms.invite(alice, &room, alice, &nobody, None).await;
        assert!(matches!(oneself, Err(RoomError::Rejected(_))));

        rooms
            .invite(alice, &room, bob, &nobody, Some("come"))
            .await
            .unwrap();
        let member = || content(&rooms, &room, "m.room.member", bob.as_str());
        assert_eq!(
            member().await.unwrap(),
            json!({ "membership": "invite", "displayname": "Bob", "reason": "come" })
        );
        assert_eq!(counts().await, (1, 1));
        rooms.leave(bob, &room, None).await.unwrap();
        assert_eq!(counts().await, (1, 0));
        rooms
            .invite(alice, &room, bob, &nobody, None)
            .await
            .unwrap();
        let request = Join {
            profile: profile("Bob"),
            reason: Some("hello".into()),
            extra: json!({ "foo": "bar", "membership": "ban", "displayname": "Eve",
                "join_authorised_via_users_server": "@alice:localhost" })
            .as_object()
            .unwrap()
            .clone(),
            via: Vec::new(),
            guest: false,
        };
        let joined = rooms.join(bob, &room, request.clone()).await.unwrap();
        assert_eq!(
            member().await.unwrap(),
            json!({ "membership": "join", "displayname": "Bob", "reason": "hello", "foo": "bar" })
        );
        assert_eq!(rooms.join(bob, &room, request).await.unwrap(), joined);
        assert_eq!(counts().await, (2, 0));
        let again = rooms.invite(alice, &room, bob, &nobody, None).await;
        assert!(matches!(again, Err(RoomError::Rejected(_))));
        let above = rooms.kick(bob, &room, alice, None).await;
        assert!(matches!(above, Err(RoomError::Rejected(_))));
        let early = rooms.forget(bob, &room).await;
        assert!(matches!(early, Err(RoomError::NotLeft)));

        rooms.kick(alice, &room, bob, Some("out")).await.unwrap();
        assert_eq!(
            member().await.unwrap(),
            json!({ "membership": "leave", "reason": "out" })
        );
        let twice = rooms.kick(alice, &room, bob, Some("out")).await;
        assert!(matches!(twice, Err(RoomError::Forbidden(_))));
        rooms.ban(alice, &room, bob, None).await.unwrap();
        let banned = rooms.invite(alice, &room, bob, &nobody, None).await;
        assert!(matches!(banned, Err(RoomError::Rejected(_))));
        rooms.unban(alice, &room, bob, None).await.unwrap();
        assert_eq!(counts().await, (1, 0));

        rooms.forget(bob, &room).await.unwrap();
        rooms.forget(bob, &room).await.unwrap();
        let forgotten = async || {
            rooms
                .member(bob, &room)
                .await
                .unwrap()
                .unwrap()
                .value
                .forgotten
        };
        assert!(forgotten().await);
        rooms
            .invite(alice, &room, bob, &nobody, None)
            .await
            .unwrap();
        assert!(!forgotten().await);
    }
}

/// R3.4: a guest joins only where guests may.
#[tokio::test(start_paused = true)]
async fn guests_join_where_they_may() {
    for lanes in LANES {
        let rooms = fresh(lanes).await;
        let (alice, guest) = (user("@alice:localhost"), user("@1:localhost"));
        let room = public_room(&rooms, alice).await;
        let request = Join {
            guest: true,
            ..Join::default()
        };
        let refused = rooms.join(guest, &room, request.clone()).await;
        assert!(matches!(refused, Err(RoomError::GuestAccess)));
        let allow = json!({ "guest_access": "can_join" });
        send(
            &rooms,
            &room,
            Intent::state(alice, "m.room.guest_access", "", &allow),
        )
        .await
        .unwrap();
        rooms.join(guest, &room, request).await.unwrap();
    }
}

/// R3.4: knocking, and joining by the membership of another room.
#[tokio::test(start_paused = true)]
async fn knocks_and_restricted_joins() {
    for lanes in LANES {
        let rooms = fresh(lanes).await;
        let (alice, bob, eve) = (
            user("@alice:localhost"),
            user("@bob:localhost"),
            user("@eve:localhost"),
        );
        let space = public_room(&rooms, alice).await;
        let allow = |room: &str| json!([{ "type": "m.room_membership", "room_id": room }]);
        let rule = json!({ "join_rule": "knock_restricted", "allow": allow(space.as_str()) });
        let room = create(&rooms, alice, with_join_rule(rule)).await;
        assert!(matches!(
            join(&rooms, bob, &room).await,
            Err(RoomError::Forbidden(_))
        ));
        join(&rooms, bob, &space).await.unwrap();
        join(&rooms, bob, &room).await.unwrap();
        let member = content(&rooms, &room, "m.room.member", bob.as_str())
            .await
            .unwrap();
        assert_eq!(member["join_authorised_via_users_server"], json!(alice));

        rooms
            .knock(eve, &room, &profile("Eve"), Some("please"), &[])
            .await
            .unwrap();
        assert_eq!(
            content(&rooms, &room, "m.room.member", eve.as_str())
                .await
                .unwrap(),
            json!({ "membership": "knock", "displayname": "Eve", "reason": "please" })
        );
        rooms.leave(eve, &room, None).await.unwrap();
        rooms.ban(alice, &room, eve, None).await.unwrap();
        join(&rooms, eve, &space).await.unwrap();
        assert!(matches!(
            join(&rooms, eve, &room).await,
            Err(RoomError::Rejected(_))
        ));

        // Nobody is left who could let others in; and of a room elsewhere nobody here can tell.
        let carol = user("@carol:localhost");
        let closed = json!({ "invite": 100, "users": { "@alice:localhost": 100 } });
        let rule = json!({ "join_rule": "restricted", "allow": allow(space.as_str()) });
        let request = CreateRoom {
            room_version: Some("10".into()),
            power_level_content_override: closed.as_object().unwrap().clone(),
            ..with_join_rule(rule)
        };
        let room = create(&rooms, alice, request).await;
        join(&rooms, bob, &room).await.unwrap();
        rooms.leave(alice, &room, None).await.unwrap();
        join(&rooms, carol, &space).await.unwrap();
        let refused = join(&rooms, carol, &room).await;
        assert!(matches!(refused, Err(RoomError::UnableToGrantJoin)));
        let rule = json!({ "join_rule": "restricted", "allow": allow("!there:elsewhere") });
        let room = create(&rooms, alice, with_join_rule(rule)).await;
        let refused = join(&rooms, carol, &room).await;
        assert!(matches!(refused, Err(RoomError::UnableToAuthoriseJoin)));
    }
}

/// R3.4: a new profile is shown in every joined room, once, also when the server dies in between.
#[tokio::test(start_paused = true)]
async fn a_new_profile_is_shown_in_every_room() {
    for lanes in LANES {
        let disk = Memory::new();
        let rooms = open(&disk, lanes).await;
        let (alice, bob) = (user("@alice:localhost"), user("@bob:localhost"));
        let [one, two, left] = [
            public_room(&rooms, alice).await,
            public_room(&rooms, alice).await,
            public_room(&rooms, alice).await,
        ];
        for room in [&one, &two, &left] {
            join(&rooms, bob, room).await.unwrap();
        }
        rooms.leave(bob, &left, None).await.unwrap();
        let note = async |name: &str| {
            let writer = rooms.tenant().lane(Home::User(bob.as_str()));
            let mut batch = writer.batch();
            rooms.note_profile(&mut batch, bob, &profile(name));
            writer.commit(batch).await.unwrap();
        };
        note("Bobby").await;
        rooms.show_profile(bob).await.unwrap();
        let name = async |rooms: &comity_rooms::Rooms, room: &comity_protocol::id::RoomId| {
            content(rooms, room, "m.room.member", bob.as_str())
                .await
                .unwrap()["displayname"]
                .clone()
        };
        assert_eq!(name(&rooms, &one).await, "Bobby");
        assert_eq!(name(&rooms, &two).await, "Bobby");
        assert_eq!(name(&rooms, &left).await, Value::Null);
        let before = types(&rooms, &one).await.len();
        note("Bobby").await;
        rooms.show_profile(bob).await.unwrap();
        assert_eq!(types(&rooms, &one).await.len(), before);

        // The server dies as soon as the profile is noted down.
        note("Robert").await;
        let rooms = open(&disk.crash(), lanes).await;
        rooms.resume_profiles().await.unwrap();
        assert_eq!(name(&rooms, &one).await, "Robert");
        assert_eq!(name(&rooms, &two).await, "Robert");
        assert_eq!(
            rooms.rooms_with(bob, Membership::Join).await.unwrap().len(),
            2
        );
        assert_eq!(rooms.mutual_rooms(bob, alice).await.unwrap().len(), 2);
    }
}
