//! Making rooms, coming and going, names and the directory.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use comity_testkit::{Server, User, encode};
use serde_json::{Value, json};

const V3: &str = "/_matrix/client/v3";

fn room_path(room: &str, rest: &str) -> String {
    format!("{V3}/rooms/{}/{rest}", encode(room))
}

async fn joined(user: &User) -> Vec<Value> {
    let body = user.get(format!("{V3}/joined_rooms")).send().await.ok();
    body["joined_rooms"].as_array().unwrap().clone()
}

/// <https://spec.matrix.org/v1.19/client-server-api/#room-membership>: each way in and out, and those that are closed.
#[tokio::test(start_paused = true)]
async fn coming_and_going() {
    let server = Server::start().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = alice.create_room(json!({"preset": "private_chat"})).await;
    let join = || {
        bob.post(room_path(&room, "join"))
            .json(json!({"foo": "bar"}))
    };
    let by = |user: &User, what: &str, target: &User| {
        let body = json!({"user_id": target.id, "reason": "because"});
        user.post(room_path(&room, what)).json(body)
    };
    join().send().await.error(403, "M_FORBIDDEN");
    by(&alice, "invite", &alice)
        .send()
        .await
        .error(403, "M_FORBIDDEN");
    alice.invite(&room, &bob.id).await;
    assert_eq!(join().send().await.ok()["room_id"], room.as_str());
    // Again: it is so already.
    join().send().await.ok();
    assert_eq!(joined(&bob).await, [room.as_str()]);
    bob.post(room_path(&room, "forget"))
        .send()
        .await
        .error(400, "M_UNKNOWN");
    by(&bob, "kick", &alice)
        .send()
        .await
        .error(403, "M_FORBIDDEN");
    by(&alice, "unban", &bob)
        .send()
        .await
        .error(403, "M_FORBIDDEN");
    by(&alice, "kick", &bob).send().await.ok();
    by(&alice, "kick", &bob)
        .send()
        .await
        .error(403, "M_FORBIDDEN");
    bob.post(room_path(&room, "forget")).send().await.ok();
    by(&alice, "ban", &bob).send().await.ok();
    by(&alice, "invite", &bob)
        .send()
        .await
        .error(403, "M_FORBIDDEN");
    by(&alice, "unban", &bob).send().await.ok();
    alice.invite(&room, &bob.id).await;
    // Without a body, as clients leave.
    bob.post(room_path(&room, "leave")).send().await.ok();
    assert!(joined(&bob).await.is_empty());
    let nowhere = room_path("!nowhere:localhost", "join");
    bob.post(nowhere).send().await.error(403, "M_FORBIDDEN");
}

#[tokio::test(start_paused = true)]
async fn knocking() {
    let server = Server::start().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let open = json!({"initial_state": [
        {"type": "m.room.join_rules", "content": {"join_rule": "knock"}},
    ]});
    let room = alice.create_room(open).await;
    let knock = |room: &str| bob.post(format!("{V3}/knock/{}", encode(room)));
    let body = knock(&room).json(json!({"reason": "hello?"})).send().await;
    assert_eq!(body.ok()["room_id"], room.as_str());
    let closed = alice.create_room(json!({})).await;
    knock(&closed).send().await.error(403, "M_FORBIDDEN");
    knock("#nowhere:localhost")
        .send()
        .await
        .error(404, "M_NOT_FOUND");
}

/// <https://spec.matrix.org/v1.19/client-server-api/#creation>: what can't be made, and why not.
#[tokio::test(start_paused = true)]
async fn rooms_that_cannot_be() {
    let server = Server::start().await;
    let alice = server.register("alice").await;
    alice.create_room(json!({"room_alias_name": "taken"})).await;
    for (body, errcode) in [
        (json!({"room_version": 10}), "M_BAD_JSON"),
        (
            json!({"room_version": "unheard"}),
            "M_UNSUPPORTED_ROOM_VERSION",
        ),
        (json!({"invite": ["bob"]}), "M_BAD_JSON"),
        (json!({"creation_content": {"float": 1.5}}), "M_BAD_JSON"),
        (
            json!({"initial_state": [{"type": "m.room.name", "content": 3}]}),
            "M_BAD_JSON",
        ),
        (json!({"room_alias_name": "taken"}), "M_ROOM_IN_USE"),
        (json!({"room_alias_name": "a b"}), "M_INVALID_PARAM"),
    ] {
        let request = alice.post(format!("{V3}/createRoom")).json(&body);
        request.send().await.error(400, errcode);
    }
    server
        .post(format!("{V3}/createRoom"))
        .send()
        .await
        .error(401, "M_MISSING_TOKEN");
}

/// <https://spec.matrix.org/v1.19/client-server-api/#room-aliases>: unicode names too; only members name a room, only its creator
/// or a moderator takes a name away.
#[tokio::test(start_paused = true)]
async fn aliases() {
    let server = Server::start().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = alice.create_room(json!({"preset": "public_chat"})).await;
    let alias = "#été:localhost";
    let path = format!("{V3}/directory/room/{}", encode(alias));
    let named = json!({"room_id": room});
    server.get(&path).send().await.error(404, "M_NOT_FOUND");
    bob.put(&path)
        .json(&named)
        .send()
        .await
        .error(403, "M_FORBIDDEN");
    alice.put(&path).json(&named).send().await.ok();
    alice
        .put(&path)
        .json(&named)
        .send()
        .await
        .error(409, "M_UNKNOWN");
    let found = server.get(&path).send().await.ok();
    assert_eq!(found, json!({"room_id": room, "servers": ["localhost"]}));
    assert_eq!(bob.join(alias).await, room);
    let listed = bob.get(room_path(&room, "aliases")).send().await.ok();
    assert_eq!(listed, json!({"aliases": [alias]}));
    bob.delete(&path).send().await.error(403, "M_FORBIDDEN");
    alice.delete(&path).send().await.ok();
    alice.delete(&path).send().await.error(404, "M_NOT_FOUND");
    let malformed = format!("{V3}/directory/room/{}", encode("#a b:localhost"));
    alice
        .put(&malformed)
        .json(&named)
        .send()
        .await
        .error(400, "M_INVALID_PARAM");
}

/// <https://spec.matrix.org/v1.19/client-server-api/#published-room-directory>
#[tokio::test(start_paused = true)]
async fn the_directory() {
    let server = Server::start().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = alice
        .create_room(json!({"visibility": "public", "topic": "Test Topic Wombles"}))
        .await;
    let space = json!({"visibility": "public", "creation_content": {"type": "m.space"}});
    let space = alice.create_room(space).await;
    let rooms = format!("{V3}/publicRooms");
    let search = async |filter: Value| -> Vec<String> {
        let request = bob.post(&rooms).json(json!({"filter": filter}));
        let body = request.send().await.ok();
        let chunk = body["chunk"].as_array().unwrap().iter();
        chunk
            .map(|room| room["room_id"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(
        search(json!({"generic_search_term": "wombles"})).await,
        [&*room]
    );
    assert_eq!(search(json!({"room_types": ["m.space"]})).await, [&*space]);
    assert_eq!(search(json!({"room_types": [null]})).await, [&*room]);
    let first = server.get(format!("{rooms}?limit=1")).send().await.ok();
    assert_eq!(first["total_room_count_estimate"], 2);
    let second = server
        .get(&rooms)
        .query("since", first["next_batch"].as_str().unwrap());
    let second = second.send().await.ok();
    assert_ne!(first["chunk"][0]["room_id"], second["chunk"][0]["room_id"]);
    let elsewhere = bob.get(&rooms).query("server", "elsewhere.example");
    elsewhere.send().await.error(404, "M_NOT_FOUND");
    let listed = format!("{V3}/directory/list/room/{}", encode(&room));
    let private = json!({"visibility": "private"});
    bob.put(&listed)
        .json(&private)
        .send()
        .await
        .error(403, "M_FORBIDDEN");
    alice.put(&listed).json(&private).send().await.ok();
    assert_eq!(server.get(&listed).send().await.ok(), private);
    assert!(
        search(json!({"generic_search_term": "wombles"}))
            .await
            .is_empty()
    );
}

/// E5: who has no part in a private room learns from the directory as little of it as of one that isn't there: not by asking, not
/// by publishing it, not by giving it a name. Who may know of it learns that it isn't listed.
#[tokio::test(start_paused = true)]
async fn e5_the_directory_is_silent_about_private_rooms() {
    let server = Server::start().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = alice.create_room(json!({"name": "canary"})).await;
    let none = room.replace(|c: char| c.is_ascii_alphanumeric(), "x");
    let listed = |room: &str| format!("{V3}/directory/list/room/{}", encode(room));
    let alias = format!("{V3}/directory/room/{}", encode("#name:localhost"));
    let public = json!({"visibility": "public"});
    let mut seen = Vec::new();
    for room in [&room, &none] {
        let asked = [server.get(listed(room)), bob.get(listed(room))];
        let written = [
            bob.put(listed(room)).json(&public),
            bob.put(&alias).json(json!({"room_id": room})),
        ];
        for (requests, status, errcode) in
            [(asked, 404, "M_NOT_FOUND"), (written, 403, "M_FORBIDDEN")]
        {
            for request in requests {
                seen.push(request.send().await.error(status, errcode));
            }
        }
    }
    let (of_room, of_none) = seen.split_at(seen.len() / 2);
    assert_eq!(of_room, of_none);
    let wrong = server.get(listed(&room)).token("wrong").send().await;
    wrong.error(401, "M_UNKNOWN_TOKEN");

    alice.invite(&room, &bob.id).await;
    for who in [&alice, &bob] {
        let answer = who.get(listed(&room)).send().await.ok();
        assert_eq!(answer, json!({"visibility": "private"}));
    }
    alice.put(listed(&room)).json(&public).send().await.ok();
    assert_eq!(server.get(listed(&room)).send().await.ok(), public);
}

/// <https://spec.matrix.org/v1.19/client-server-api/#leaving-rooms>: whoever has left a room reads on what was, whoever has forgotten it
/// reads nothing more.
#[tokio::test(start_paused = true)]
async fn a_forgotten_room_is_read_no_more() {
    let server = Server::start().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = alice.create_room(json!({"preset": "public_chat"})).await;
    bob.join(&room).await;
    bob.leave(&room).await;
    let read = async |status: u16| {
        for rest in ["messages?dir=b", "state", "members", "state/m.room.create/"] {
            let answer = bob.get(room_path(&room, rest)).send().await;
            assert_eq!(answer.status, status, "{rest}: {}", answer.body);
        }
    };
    read(200).await;
    bob.post(room_path(&room, "forget")).send().await.ok();
    read(403).await;
    bob.join(&room).await;
    read(200).await;
}
