//! Making rooms, their aliases and the directory.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)]

mod world;

use comity_protocol::id::RoomAliasId;
use comity_rooms::{
    CreateRoom, DirectoryFilter, Intent, Invitee, Preset, Profile, RoomError, StateEvent,
    Visibility,
};
use comity_storage::engine::Memory;
use serde_json::{Value, json, value::to_raw_value};
use world::*;

fn state(kind: &str, key: &str, content: &Value) -> StateEvent {
    StateEvent {
        event_type: kind.into(),
        state_key: key.into(),
        content: to_raw_value(content).unwrap(),
    }
}

fn invitee(id: &str) -> Invitee {
    Invitee {
        user: user(id).to_owned(),
        profile: profile("Invited"),
    }
}

fn object(value: Value) -> serde_json::Map<String, Value> {
    match value {
        Value::Object(object) => object,
        _ => panic!("no object"),
    }
}

/// R3.4: a room with everything asked for has its events in the specification's order, in one
/// commit, and is found whole after a restart.
#[tokio::test(start_paused = true)]
async fn a_room_begins_with_what_was_asked_for() {
    for lanes in LANES {
        let disk = Memory::new();
        let rooms = open(&disk, lanes).await;
        let alice = user("@alice:localhost");
        let request = CreateRoom {
            visibility: Visibility::Public,
            room_alias_name: Some("pub".into()),
            name: Some("The Pub".into()),
            topic: Some("Beer".into()),
            invite: vec![invitee("@bob:localhost"), invitee("@bob:localhost")],
            is_direct: true,
            room_version: Some("10".into()),
            creation_content: object(json!({
                "creator": "@mallory:localhost", "room_version": "1", "m.federate": false, "type": "m.space",
            })),
            initial_state: vec![
                state("m.room.topic", "", &json!({ "topic": "overwritten" })),
                state(
                    "m.room.history_visibility",
                    "",
                    &json!({ "history_visibility": "joined" }),
                ),
                state("org.example", "k", &json!({ "n": 1 })),
            ],
            power_level_content_override: object(json!({ "invite": 7 })),
            ..CreateRoom::default()
        };
        let room = create(&rooms, alice, request).await;
        let rooms = open(&disk.crash(), lanes).await;
        assert_eq!(
            types(&rooms, &room).await,
            [
                "m.room.create",
                "m.room.member",
                "m.room.power_levels",
                "m.room.canonical_alias",
                "m.room.join_rules",
                "m.room.history_visibility",
                "org.example",
                "m.room.name",
                "m.room.topic",
                "m.room.member",
            ]
        );
        let get = async |kind, key| content(&rooms, &room, kind, key).await.unwrap();
        assert_eq!(
            get("m.room.create", "").await,
            json!({ "creator": alice, "room_version": "10", "m.federate": false, "type": "m.space" })
        );
        assert_eq!(
            get("m.room.topic", "").await,
            json!({ "topic": "Beer", "m.topic": { "m.text": [{ "body": "Beer" }] } })
        );
        assert_eq!(
            get("m.room.join_rules", "").await,
            json!({ "join_rule": "public" })
        );
        assert_eq!(
            get("m.room.member", "@bob:localhost").await,
            json!({ "membership": "invite", "is_direct": true, "displayname": "Invited" })
        );
        let levels = get("m.room.power_levels", "").await;
        assert_eq!(levels["invite"], 7);
        assert_eq!(levels["users"], json!({ "@alice:localhost": 100 }));

        let summary = rooms.summary(&room).await.unwrap();
        assert_eq!((summary.joined, summary.invited), (1, 1));
        assert_eq!(summary.name.as_deref(), Some("The Pub"));
        assert_eq!(summary.room_type.as_deref(), Some("m.space"));
        assert_eq!(summary.canonical_alias.as_deref(), Some("#pub:localhost"));
        let alias = RoomAliasId::parse("#pub:localhost").unwrap();
        assert_eq!(rooms.resolve_alias(&alias).await.unwrap().room_id, room);
        assert_eq!(rooms.visibility(&room).await.unwrap(), Visibility::Public);
    }
}

/// R3.4, version 12: creators stand in the create event and nowhere else; a tombstone needs more
/// than `state_default`.
#[tokio::test(start_paused = true)]
async fn creators_of_a_trusted_room_stand_above_the_levels() {
    for lanes in LANES {
        let rooms = fresh(lanes).await;
        let request = CreateRoom {
            preset: Some(Preset::TrustedPrivate),
            invite: vec![invitee("@bob:localhost")],
            creation_content: object(json!({ "additional_creators": ["@carol:localhost"] })),
            ..CreateRoom::default()
        };
        let room = create(&rooms, user("@alice:localhost"), request.clone()).await;
        let create_content = content(&rooms, &room, "m.room.create", "").await.unwrap();
        assert_eq!(
            create_content["additional_creators"],
            json!(["@carol:localhost", "@bob:localhost"])
        );
        let levels = content(&rooms, &room, "m.room.power_levels", "")
            .await
            .unwrap();
        assert_eq!(levels["users"], json!({}));
        assert_eq!(levels["events"]["m.room.tombstone"], 150);
        assert_eq!(rooms.summary(&room).await.unwrap().creators.len(), 3);

        let older = CreateRoom {
            room_version: Some("11".into()),
            ..request
        };
        let room = create(&rooms, user("@alice:localhost"), older).await;
        let levels = content(&rooms, &room, "m.room.power_levels", "")
            .await
            .unwrap();
        assert_eq!(
            levels["users"],
            json!({ "@alice:localhost": 100, "@bob:localhost": 100 })
        );
    }
}

/// <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3createroom>: what presets set. That guests may
/// not come in is what a room without `m.room.guest_access` says, so a public one has none.
#[tokio::test(start_paused = true)]
async fn presets_say_who_may_come_in() {
    for lanes in LANES {
        let alice = user("@alice:localhost");
        let rooms = fresh(lanes).await;
        for (preset, rule, guests) in [
            (Preset::Private, "invite", Some("can_join")),
            (Preset::TrustedPrivate, "invite", Some("can_join")),
            (Preset::Public, "public", None),
        ] {
            let request = CreateRoom {
                preset: Some(preset),
                ..CreateRoom::default()
            };
            let room = create(&rooms, alice, request).await;
            let get = async |kind| content(&rooms, &room, kind, "").await;
            let rules = get("m.room.join_rules").await.unwrap();
            assert_eq!(rules["join_rule"], rule);
            let access = get("m.room.guest_access").await;
            assert_eq!(
                access,
                guests.map(|access| json!({ "guest_access": access }))
            );
            let visibility = get("m.room.history_visibility").await.unwrap();
            assert_eq!(visibility["history_visibility"], "shared");
        }
    }
}

type Expected = fn(&RoomError) -> bool;

/// R3.4: what can't be made is refused with its reason, and nothing of it is there.
#[tokio::test(start_paused = true)]
async fn an_impossible_room_leaves_nothing() {
    let alice = user("@alice:localhost");
    let base = || CreateRoom {
        room_alias_name: Some("never".into()),
        ..CreateRoom::default()
    };
    let cases: [(CreateRoom, Expected); 7] = [
        (
            CreateRoom {
                room_version: Some("0".into()),
                ..base()
            },
            |error| matches!(error, RoomError::UnsupportedVersion),
        ),
        (
            CreateRoom {
                room_version: Some("10".into()),
                power_level_content_override: object(json!({ "users": { "@alice:localhost": 1 } })),
                ..base()
            },
            |error| matches!(error, RoomError::InvalidState(_)),
        ),
        (
            CreateRoom {
                power_level_content_override: object(
                    json!({ "users": { "@alice:localhost": 100 } }),
                ),
                ..base()
            },
            |error| matches!(error, RoomError::InvalidState(_)),
        ),
        (
            CreateRoom {
                creation_content: object(json!({ "additional_creators": ["nobody"] })),
                ..base()
            },
            |error| matches!(error, RoomError::BadJson(_)),
        ),
        (
            CreateRoom {
                initial_state: vec![state("m.room.create", "", &json!({}))],
                ..base()
            },
            |error| matches!(error, RoomError::BadJson(_)),
        ),
        (
            CreateRoom {
                room_alias_name: Some("a:b".into()),
                ..base()
            },
            |error| matches!(error, RoomError::Invalid(_)),
        ),
        (
            CreateRoom {
                invite: vec![invitee("@bob:elsewhere")],
                ..base()
            },
            |error| matches!(error, RoomError::OtherServer(_)),
        ),
    ];
    for lanes in LANES {
        let rooms = fresh(lanes).await;
        let alias = RoomAliasId::parse("#never:localhost").unwrap();
        for (request, expected) in &cases {
            let error = rooms
                .create_room(alice, &Profile::default(), request.clone())
                .await
                .unwrap_err();
            assert!(expected(&error), "{request:?}: {error:?}");
            assert!(matches!(
                rooms.resolve_alias(&alias).await,
                Err(RoomError::UnknownAlias)
            ));
        }
        let request = CreateRoom {
            room_alias_name: Some("taken".into()),
            ..CreateRoom::default()
        };
        create(&rooms, alice, request.clone()).await;
        let again = rooms.create_room(alice, &Profile::default(), request).await;
        assert!(matches!(again, Err(RoomError::Taken(_))));
    }
}

/// Aliases: members make them, their creator and moderators delete them, the canonical alias
/// follows, and only aliases of the room may be canonical.
#[tokio::test(start_paused = true)]
async fn aliases_come_and_go() {
    for lanes in LANES {
        let rooms = fresh(lanes).await;
        let (alice, bob, eve) = (
            user("@alice:localhost"),
            user("@bob:localhost"),
            user("@eve:localhost"),
        );
        let room = public_room(&rooms, alice).await;
        let other = public_room(&rooms, alice).await;
        join(&rooms, bob, &room).await.unwrap();
        let [one, two] = ["#one:localhost", "#zwei-äß:localhost"]
            .map(|alias| RoomAliasId::parse(alias).unwrap());
        assert_eq!(rooms.aliases(bob, &room).await.unwrap().len(), 0);
        let refused = rooms.create_alias(eve, &one, &room).await;
        assert!(matches!(refused, Err(RoomError::Rejected(_))));
        rooms.create_alias(bob, &one, &room).await.unwrap();
        rooms.create_alias(alice, &two, &room).await.unwrap();
        let taken = rooms.create_alias(alice, &one, &other).await;
        assert!(matches!(taken, Err(RoomError::Taken(_))));
        assert_eq!(
            rooms.aliases(bob, &room).await.unwrap(),
            [one.clone(), two.clone()]
        );
        assert_eq!(rooms.aliases(alice, &other).await.unwrap().len(), 0);
        let refused = rooms.aliases(eve, &room).await;
        assert!(matches!(refused, Err(RoomError::Forbidden(_))));

        let canonical = to_raw_value(&json!({ "alias": one, "alt_aliases": [two] })).unwrap();
        rooms
            .check_canonical_alias(&room, &canonical)
            .await
            .unwrap();
        let refused = rooms.check_canonical_alias(&other, &canonical).await;
        assert!(matches!(refused, Err(RoomError::BadAlias)));
        let unknown = to_raw_value(&json!({ "alt_aliases": ["#three:localhost"] })).unwrap();
        let refused = rooms.check_canonical_alias(&room, &unknown).await;
        assert!(matches!(refused, Err(RoomError::BadAlias)));
        let malformed = to_raw_value(&json!({ "alias": "%one:localhost" })).unwrap();
        let refused = rooms.check_canonical_alias(&room, &malformed).await;
        assert!(matches!(refused, Err(RoomError::Invalid(_))));
        let intent = Intent::state(alice, "m.room.canonical_alias", "", &canonical);
        send(&rooms, &room, intent).await.unwrap();

        let refused = rooms.delete_alias(bob, &two).await;
        assert!(matches!(refused, Err(RoomError::Forbidden(_))));
        rooms.delete_alias(bob, &one).await.unwrap();
        let canonical = || content(&rooms, &room, "m.room.canonical_alias", "");
        assert_eq!(canonical().await.unwrap()["alias"], json!(one));
        rooms.delete_alias(alice, &two).await.unwrap();
        assert_eq!(canonical().await.unwrap(), json!({ "alias": one }));
        let gone = rooms.delete_alias(alice, &two).await;
        assert!(matches!(gone, Err(RoomError::UnknownAlias)));
        assert_eq!(rooms.aliases(bob, &room).await.unwrap().len(), 0);
        rooms.create_alias(alice, &one, &other).await.unwrap();
    }
}

/// R7.5: the directory lists published rooms by members, filtered and in pages that meet.
#[tokio::test(start_paused = true)]
async fn the_directory_is_read_in_pages() {
    for lanes in LANES {
        let rooms = fresh(lanes).await;
        let (alice, bob) = (user("@alice:localhost"), user("@bob:localhost"));
        let mut ids = Vec::new();
        for n in 0..5 {
            let request = CreateRoom {
                visibility: Visibility::Public,
                topic: Some(format!("Test Topic WOMBLES {n}")),
                ..CreateRoom::default()
            };
            ids.push(create(&rooms, alice, request).await);
        }
        join(&rooms, bob, &ids[3]).await.unwrap();
        public_room(&rooms, alice).await;
        let all = DirectoryFilter::default();
        let whole = rooms.directory(&all, 100, None).await.unwrap();
        assert_eq!((whole.rooms.len(), whole.total), (5, 5));
        assert_eq!(whole.rooms[0].room_id, ids[3].as_str());
        assert_eq!((whole.next, whole.prev), (None, None));
        let mut seen = Vec::new();
        let mut since = None;
        let last = loop {
            let page = rooms.directory(&all, 2, since.as_deref()).await.unwrap();
            seen.extend(page.rooms.iter().map(|room| room.room_id.clone()));
            since = page.next.clone();
            if since.is_none() {
                break page;
            }
        };
        let ids_of = |rooms: &[comity_rooms::tables::Summary]| -> Vec<String> {
            rooms.iter().map(|room| room.room_id.clone()).collect()
        };
        assert_eq!(seen, ids_of(&whole.rooms));
        let back = rooms
            .directory(&all, 2, last.prev.as_deref())
            .await
            .unwrap();
        assert_eq!(ids_of(&back.rooms), seen[2..4]);
        assert!(rooms.directory(&all, 2, Some("x")).await.is_err());

        let search = DirectoryFilter {
            search_term: Some("wombles 2".into()),
            ..all.clone()
        };
        let found = rooms.directory(&search, 10, None).await.unwrap();
        assert_eq!(ids_of(&found.rooms), [ids[2].to_string()]);
        let spaces = DirectoryFilter {
            room_types: Some(vec![Some("m.space".into())]),
            ..all.clone()
        };
        assert_eq!(rooms.directory(&spaces, 10, None).await.unwrap().total, 0);
        let refused = rooms
            .set_visibility(Some(bob), &ids[3], Visibility::Private)
            .await;
        assert!(matches!(refused, Err(RoomError::Forbidden(_))));
        rooms
            .set_visibility(Some(alice), &ids[3], Visibility::Private)
            .await
            .unwrap();
        assert_eq!(rooms.directory(&all, 10, None).await.unwrap().total, 4);
    }
}
