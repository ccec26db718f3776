//! What isn't kept: <https://spec.matrix.org/v1.19/server-server-api/#edus>

use serde_json::{Value, json};

use crate::world::World;

/// The content of our user's ephemeral event of a kind in the room.
async fn ephemeral(world: &World, kind: &str) -> Option<Value> {
    let answer = world.alice.sync(None).await;
    let events = &answer["rooms"]["join"][&world.room.id]["ephemeral"]["events"];
    let mut events = events.as_array().into_iter().flatten();
    let event = events.find(|event| event["type"] == kind)?;
    Some(event["content"].clone())
}

fn typing(world: &World, user: &str, typing: bool) -> Value {
    let content = json!({ "room_id": world.room.id, "user_id": user, "typing": typing });
    json!({ "edu_type": "m.typing", "content": content })
}

fn receipt(world: &World, user: &str, event_id: &str) -> Value {
    let receipt = json!({ "event_ids": [event_id], "data": { "ts": 1234 } });
    let content = json!({ &world.room.id: { "m.read": { user: receipt } } });
    json!({ "edu_type": "m.receipt", "content": content })
}

fn presence(user: &str) -> Value {
    let push = json!([{ "user_id": user, "presence": "online", "last_active_ago": 10 }]);
    json!({ "edu_type": "m.presence", "content": { "push": push } })
}

/// <https://spec.matrix.org/v1.19/server-server-api/#typing-notifications>,
/// <https://spec.matrix.org/v1.19/server-server-api/#receipts>: also of events that come with them.
#[tokio::test(start_paused = true)]
async fn what_users_of_the_peer_do_is_seen() {
    let mut world = World::new("11").await;
    let mallory = world.peer.user("mallory").to_string();
    let event = world.say("read by its writer");
    let edus = [
        typing(&world, &mallory, true),
        receipt(&world, &mallory, &event.id),
        presence(&mallory),
    ];
    world.transaction(&[&event.json], &edus).await;
    let typed = ephemeral(&world, "m.typing").await.unwrap();
    assert_eq!(typed["user_ids"], json!([mallory]));
    let read = ephemeral(&world, "m.receipt").await.unwrap();
    assert_eq!(read[&event.id]["m.read"][&mallory]["ts"], 1234);
    let answer = world.alice.sync(None).await;
    let mut presence = answer["presence"]["events"].as_array().unwrap().iter();
    let seen = presence.find(|event| event["sender"] == mallory).unwrap();
    assert_eq!(seen["content"]["presence"], "online");
    world.edus(&[typing(&world, &mallory, false)]).await;
    assert_eq!(ephemeral(&world, "m.typing").await, None);
}

/// F1: what is said of users of another server, or of users who aren't in the room, is ignored. So is
/// what can't be read.
#[tokio::test(start_paused = true)]
async fn f1_nobody_speaks_for_others() {
    let mut world = World::new("11").await;
    let event = world.say("unread");
    world.send(&[&event]).await;
    world.sees(&event.id).await;
    let alice = world.alice.id.clone();
    let stranger = world.peer.user("stranger").to_string();
    let before = world.alice.sync(None).await["presence"].clone();
    for user in [
        alice,
        stranger,
        "@third:other.test".to_owned(),
        "nobody".to_owned(),
    ] {
        let edus = [
            typing(&world, &user, true),
            receipt(&world, &user, &event.id),
            presence(&user),
            json!({ "edu_type": "m.typing", "content": "x" }),
            json!({ "edu_type": 7 }),
            json!(null),
        ];
        world.edus(&edus).await;
    }
    assert_eq!(ephemeral(&world, "m.typing").await, None);
    assert_eq!(ephemeral(&world, "m.receipt").await, None);
    let answer = world.alice.sync(None).await;
    let senders = |presence: &Value| -> Vec<Value> {
        let events = presence["events"].as_array().into_iter().flatten();
        events.map(|event| event["sender"].clone()).collect()
    };
    assert_eq!(senders(&answer["presence"]), senders(&before));
}
