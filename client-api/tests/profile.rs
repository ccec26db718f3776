//! Profiles, and what rooms show of them.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use comity_protocol::id::RoomId;
use comity_testkit::Server;
use serde_json::{Value, json};

const V3: &str = "/_matrix/client/v3";

fn field(user: &str, name: &str) -> String {
    format!("{V3}/profile/{user}/{name}")
}

/// Profiles: everybody reads, the user writes; fields of one's own are kept as they are.
#[tokio::test(start_paused = true)]
async fn fields_are_public_and_their_users_own() {
    let server = Server::start().await;
    let alice = server.register("alice").await;
    let bob = server.register("bob").await;
    for (name, value) in [
        ("displayname", json!("Alice")),
        ("m.tz", json!("Europe/London")),
        ("org.example.pets", json!([{ "cat": 1 }, null])),
    ] {
        let path = field(&alice.id, name);
        let body = json!({ name: value });
        let _ = alice.put(&path).json(&body).send().await.ok();
        assert_eq!(server.get(&path).send().await.ok(), body);
        bob.put(&path)
            .json(&body)
            .send()
            .await
            .error(403, "M_FORBIDDEN");
    }
    let pets = field(&alice.id, "org.example.pets");
    for _ in 0..2 {
        let _ = alice.delete(&pets).send().await.ok();
    }
    server.get(&pets).send().await.error(404, "M_NOT_FOUND");
    let whole = server
        .get(format!("{V3}/profile/{}", alice.id))
        .send()
        .await
        .ok();
    assert_eq!(
        whole,
        json!({"displayname": "Alice", "m.tz": "Europe/London"})
    );
    let nobody = format!("{V3}/profile/@nobody:localhost");
    server.get(nobody).send().await.error(404, "M_NOT_FOUND");
}

/// Profile fields, PUT: each way a field is refused has its code.
#[tokio::test(start_paused = true)]
async fn what_a_profile_does_not_take() {
    let server = Server::start().await;
    let alice = server.register("alice").await;
    let long = "a".repeat(256);
    let large = "x".repeat(64 << 10);
    for (name, body, errcode) in [
        ("displayname", json!({}), "M_MISSING_PARAM"),
        ("displayname", json!({"displayname": 5}), "M_INVALID_PARAM"),
        ("Shouting", json!({"Shouting": 5}), "M_INVALID_PARAM"),
        (&long, json!({ &long: 1 }), "M_KEY_TOO_LARGE"),
        ("a.b", json!({ "a.b": large }), "M_PROFILE_TOO_LARGE"),
    ] {
        let answer = alice.put(field(&alice.id, name)).json(body).send().await;
        answer.error(400, errcode);
    }
}

/// The member event in each joined room follows; an avatar need be no `mxc:` URI to be taken.
#[tokio::test(start_paused = true)]
async fn rooms_show_a_new_name_and_avatar() {
    let server = Server::start().await;
    let alice = server.register("alice").await;
    let room = alice.create_room(json!({"name": "Here"})).await;
    for (name, value) in [("displayname", "Alice"), ("avatar_url", "LemurLover")] {
        let set = alice.put(field(&alice.id, name));
        let _ = set.json(json!({ name: value })).send().await.ok();
        assert_eq!(shown(&server, &room, &alice.id).await[name], value);
    }
    let avatar = field(&alice.id, "avatar_url");
    let _ = alice.delete(avatar).send().await.ok();
    assert_eq!(
        shown(&server, &room, &alice.id).await,
        json!({"membership": "join", "displayname": "Alice"})
    );
}

/// The content of a user's member event.
async fn shown(server: &Server, room: &str, user: &str) -> Value {
    let room = <&RoomId>::try_from(room).unwrap();
    let view = server.api.rooms.view(room).await.unwrap();
    let found = view.state("m.room.member", user).await.unwrap().unwrap();
    found.event.content_as().unwrap()
}
