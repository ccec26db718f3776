//! Encryption as a room mode (R20.1), whatever others do to the room.

use comity_testkit::{Federation, encode};
use serde_json::json;

use crate::world::{HERE, World};

/// A room that requires encryption by its own state goes on requiring it of our users when somebody elsewhere, who may, blanks its
/// encryption.
#[tokio::test(start_paused = true)]
async fn r20_1_who_blanks_the_encryption_does_not_end_it() {
    let federation = Federation::of([HERE]).await;
    let alice = federation[HERE].register("alice").await;
    let room = json!({
        "preset": "public_chat", "room_version": "11",
        "power_level_content_override": { "events": { "m.room.encryption": 0 } },
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
    assert_eq!(world.send(&[&blank]).await[&blank.id], json!({}));
    let alice = &world.alice;
    let current = async || {
        let asked = alice.get(&encryption).unchecked_events();
        asked.send().await.ok()
    };
    while current().await != json!({}) {
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    let text = json!({ "msgtype": "m.text", "body": "in the clear" });
    let send = alice
        .put(format!("{of_room}/send/m.room.message/t"))
        .json(text);
    send.send().await.error(403, "M_FORBIDDEN");
}
