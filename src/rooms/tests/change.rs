//! Changing rooms, over the memory engine.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)]

mod world;

use comity_protocol::{client_event::ClientFormat, id::UserId, room_version::RoomVersion};
use comity_rooms::{Intent, RoomError, Transaction, Viewer, tables};
use comity_storage::{RoomKey, engine::Memory};
use serde_json::{json, value::to_raw_value};
use world::{LANES, start};

/// A room is made, talked in and redacted in every version; what is repeated is not done twice;
/// a restart finds it all (R3.4, R3.6, R12.1, R12.2).
#[tokio::test(start_paused = true)]
async fn a_room_of_every_version_lives_through_a_restart() {
    let alice: &UserId = "@alice:localhost".try_into().unwrap();
    let bob: &UserId = "@bob:localhost".try_into().unwrap();
    for version in RoomVersion::ALL {
        for lanes in LANES {
            let disk = Memory::new();
            let rooms = start(&disk, lanes, 1).await;
            let mut content = json!({ "room_version": version.as_str() });
            if version < RoomVersion::V11 {
                content["creator"] = json!(alice);
            }
            let mut change = rooms
                .create_event(version, alice, to_raw_value(&content).unwrap())
                .await
                .unwrap();
            let join = json!({ "membership": "join" });
            let rules = json!({ "join_rule": "public" });
            change
                .add(
                    Intent::state(alice, "m.room.member", alice.as_str(), &join),
                    None,
                )
                .await
                .unwrap();
            change
                .add(Intent::state(alice, "m.room.join_rules", "", &rules), None)
                .await
                .unwrap();
            let room_id = change.room_id().unwrap().to_owned();
            change.commit().await.unwrap();

            let rooms = start(&disk.crash(), lanes, 2).await;
            let mut change = rooms.change(&room_id).await.unwrap();
            let refused = change
                .add(Intent::message(bob, "m.room.message", &json!({})), None)
                .await;
            assert!(
                matches!(refused, Err(RoomError::Rejected(_))),
                "{version}: {refused:?}"
            );
            change
                .add(
                    Intent::state(bob, "m.room.member", bob.as_str(), &join),
                    None,
                )
                .await
                .unwrap();
            change.commit().await.unwrap();

            let txn = Transaction {
                user: bob.to_owned(),
                device: "D".into(),
                path: "send/m.room.message".into(),
                txn: "1".into(),
            };
            let mut change = rooms.change(&room_id).await.unwrap();
            assert_eq!(change.done(&txn).await.unwrap(), None);
            let hello = Intent::message(
                bob,
                "m.room.message",
                &json!({ "msgtype": "m.text", "body": "hello" }),
            );
            let sent = change.add(hello, Some(&txn)).await.unwrap();
            assert_eq!(change.commit().await.unwrap(), std::slice::from_ref(&sent));
            assert_eq!(sent.seq, 5);
            let mut change = rooms.change(&room_id).await.unwrap();
            assert_eq!(change.done(&txn).await.unwrap(), Some(sent.clone()));

            let mut redaction = Intent::message(
                alice,
                "m.room.redaction",
                &json!({ "redacts": sent.event_id }),
            );
            redaction.redacts = Some(sent.event_id.clone());
            change.add(redaction, None).await.unwrap();
            change.commit().await.unwrap();
            let reader = rooms.tenant().reader();
            let room = RoomKey::of(room_id.as_str());
            let name = sent.event_id.to_string();
            let num = reader
                .get::<tables::EventNums>(&tables::RoomText { room, name })
                .await
                .unwrap()
                .unwrap()
                .value
                .0;
            let body = reader
                .get::<tables::Bodies>(&tables::RoomNum { room, num })
                .await
                .unwrap()
                .unwrap();
            assert!(!body.value.json.contains("hello"), "{version}");
        }
    }
}

/// R3.4, R12.3: redacted state is in no summary any more.
#[tokio::test(start_paused = true)]
async fn a_redacted_name_leaves_the_summary() {
    let alice: &UserId = "@alice:localhost".try_into().unwrap();
    for lanes in LANES {
        let rooms = start(&Memory::new(), lanes, 1).await;
        let create = to_raw_value(&json!({ "room_version": "12" })).unwrap();
        let mut change = rooms
            .create_event(RoomVersion::V12, alice, create)
            .await
            .unwrap();
        let join = Intent::state(
            alice,
            "m.room.member",
            alice.as_str(),
            &json!({ "membership": "join" }),
        );
        change.add(join, None).await.unwrap();
        let name = Intent::state(alice, "m.room.name", "", &json!({ "name": "a slur" }));
        let name = change.add(name, None).await.unwrap();
        let room_id = change.room_id().unwrap().to_owned();
        change.commit().await.unwrap();
        assert_eq!(
            rooms.summary(&room_id).await.unwrap().name.as_deref(),
            Some("a slur")
        );

        let mut change = rooms.change(&room_id).await.unwrap();
        let mut redaction = Intent::message(
            alice,
            "m.room.redaction",
            &json!({ "redacts": name.event_id }),
        );
        redaction.redacts = Some(name.event_id);
        change.add(redaction, None).await.unwrap();
        change.commit().await.unwrap();
        assert_eq!(rooms.summary(&room_id).await.unwrap().name, None);
    }
}

/// E3: what is bundled with an event came after it, and is shown to those who may see that too.
#[tokio::test(start_paused = true)]
async fn an_edit_after_a_kick_is_not_bundled_for_the_kicked() {
    let alice: &UserId = "@alice:localhost".try_into().unwrap();
    let bob: &UserId = "@bob:localhost".try_into().unwrap();
    for lanes in LANES {
        let rooms = start(&Memory::new(), lanes, 1).await;
        let create = to_raw_value(&json!({ "room_version": "12" })).unwrap();
        let mut change = rooms
            .create_event(RoomVersion::V12, alice, create)
            .await
            .unwrap();
        let member = |membership: &str| json!({ "membership": membership });
        let text = |body: &str| json!({ "msgtype": "m.text", "body": body });
        for intent in [
            Intent::state(alice, "m.room.member", alice.as_str(), &member("join")),
            Intent::state(
                alice,
                "m.room.join_rules",
                "",
                &json!({ "join_rule": "public" }),
            ),
            Intent::state(bob, "m.room.member", bob.as_str(), &member("join")),
        ] {
            change.add(intent, None).await.unwrap();
        }
        let message = Intent::message(alice, "m.room.message", &text("before"));
        let message = change.add(message, None).await.unwrap();
        let kick = Intent::state(alice, "m.room.member", bob.as_str(), &member("leave"));
        change.add(kick, None).await.unwrap();
        let room_id = change.room_id().unwrap().to_owned();
        change.commit().await.unwrap();
        let mut edit = text("* after");
        edit["m.new_content"] = text("after");
        edit["m.relates_to"] = json!({ "rel_type": "m.replace", "event_id": message.event_id });
        let mut change = rooms.change(&room_id).await.unwrap();
        let edit = Intent::message(alice, "m.room.message", &edit);
        change.add(edit, None).await.unwrap();
        change.commit().await.unwrap();

        let view = rooms.view(&room_id).await.unwrap();
        let found = view.event(&message.event_id).await.unwrap().unwrap();
        for (user, sees) in [(alice, true), (bob, false)] {
            let viewer = Viewer { user, device: None };
            let shown = view
                .render(
                    std::slice::from_ref(&found),
                    viewer,
                    ClientFormat::WithRoomId,
                )
                .await
                .unwrap();
            assert_eq!(shown[0].get().contains("m.replace"), sees, "{user}");
        }
    }
}
