//! Encryption as a room mode (R20.1), whatever others do to the room.

use comity_testkit::{Federation, encode};
use serde_json::json;

use crate::world::{HERE, World};

/// A room that requires encryption by its own state goes on requiring it of our users when somebody elsewhere, who may, blanks its
/// encryption and its mode; so does the room that one of ours makes of it.
#[tokio::test(start_paused = true)]
async fn r20_1_who_blanks_the_encryption_does_not_end_it() {
    let federation = Federation::of([HERE]).await;
    let alice = federation[HERE].register("alice").await;
    let room = json!({
        "preset": "public_chat", "room_version": "11",
        "power_level_content_override": { "events": {
            "m.room.encryption": 0, "org.comity.room.encryption_mode": 0,
        } },
    });
    let room = alice.create_room(room).await;
    let of_room = format!("/_matrix/client/v3/rooms/{}", encode(&room));
    let encryption = format!("{of_room}/state/m.room.encryption/");
    let mode = format!("{of_room}/state/org.comity.room.encryption_mode/");
    for (path, content) in [
        (&encryption, json!({ "algorithm": "m.megolm.v1.aes-sha2" })),
        (&mode, json!({ "mode": "required" })),
    ] {
        let set = alice.put(path.clone()).json(content).unchecked_events();
        set.send().await.ok();
    }
    let mut world = World::around(federation, alice, &room).await;
    let (peer, room) = (&world.peer, &world.room);
    let blank = peer.event(room, "mallory", "m.room.encryption", Some(""), json!({}));
    world.room.went_on(&blank);
    let allow = json!({ "mode": "allowed" });
    let kind = "org.comity.room.encryption_mode";
    let allow = world
        .peer
        .event(&world.room, "mallory", kind, Some(""), allow);
    world.room.went_on(&allow);
    let taken = world.send(&[&blank, &allow]).await;
    assert_eq!(
        (&taken[&blank.id], &taken[&allow.id]),
        (&json!({}), &json!({}))
    );
    let alice = &world.alice;
    let current = async || {
        let asked = alice.get(&mode).unchecked_events();
        asked.send().await.ok()
    };
    while current().await != json!({ "mode": "allowed" }) {
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    let text = json!({ "msgtype": "m.text", "body": "in the clear" });
    let send = alice
        .put(format!("{of_room}/send/m.room.message/t"))
        .json(text.clone());
    send.send().await.error(403, "M_FORBIDDEN");
    let path = format!("/_matrix/client/v1/room_summary/{}", encode(&world.room.id));
    let summary = alice.get(path).send().await.ok();
    assert_eq!(summary["org.comity.encryption_mode"], "required");
    assert_eq!(summary["org.comity.url_previews"], false);
    let upgrade = alice.post(format!("{of_room}/upgrade"));
    let upgraded = upgrade
        .json(json!({ "new_version": "12" }))
        .send()
        .await
        .ok();
    let upgraded = encode(upgraded["replacement_room"].as_str().unwrap());
    let state = alice.get(format!("/_matrix/client/v3/rooms/{upgraded}/state"));
    let state = state.unchecked_events().send().await.ok();
    let content = |kind: &str| {
        let mut events = state.as_array().unwrap().iter();
        events
            .find(|event| event["type"] == kind)
            .map(|event| event["content"].clone())
    };
    assert_eq!(content(kind), Some(json!({ "mode": "required" })));
    let megolm = json!({ "algorithm": "m.megolm.v1.aes-sha2" });
    assert_eq!(content("m.room.encryption"), Some(megolm));
    let path = format!("/_matrix/client/v3/rooms/{upgraded}/send/m.room.message/t");
    let send = alice.put(path).json(text).send().await;
    send.error(403, "M_FORBIDDEN");
}

/// Where nothing is encrypted, somebody elsewhere who may set the mode silences nobody for good: whoever may set it takes it back.
#[tokio::test(start_paused = true)]
async fn r20_1_what_is_required_of_a_plain_room_can_be_taken_back() {
    let federation = Federation::of([HERE]).await;
    let alice = federation[HERE].register("alice").await;
    let kind = "org.comity.room.encryption_mode";
    let room = json!({
        "preset": "public_chat", "room_version": "11",
        "power_level_content_override": { "events": { kind: 0 } },
    });
    let room = alice.create_room(room).await;
    let of_room = format!("/_matrix/client/v3/rooms/{}", encode(&room));
    let mut world = World::around(federation, alice, &room).await;
    let mut sent = 0;
    for (mode, status) in [("required", 403), ("allowed", 200)] {
        let content = json!({ "mode": mode });
        let event = world
            .peer
            .event(&world.room, "mallory", kind, Some(""), content);
        world.room.went_on(&event);
        let taken = world.send(&[&event]).await;
        assert_eq!(taken[&event.id], json!({}));
        let alice = &world.alice;
        let of_mode = format!("{of_room}/state/{kind}/");
        while alice.get(&of_mode).unchecked_events().send().await.ok()["mode"] != mode {
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
        sent += 1;
        let text = json!({ "msgtype": "m.text", "body": "in the clear" });
        let path = format!("{of_room}/send/m.room.message/{sent}");
        let answer = alice.put(path).json(text).send().await;
        assert_eq!(answer.status.as_u16(), status, "{mode}");
    }
}
