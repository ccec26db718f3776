//! <https://spec.matrix.org/v1.19/server-server-api/#querying-for-information>, and what else needs no room.

use comity_testkit::{Federation, HostilePeer, encode};
use serde_json::json;

const A: &str = "a.test";
const V1: &str = "/_matrix/federation/v1";

/// A profile, whole and by field; what isn't there is empty, who isn't there is 404.
#[tokio::test]
async fn profiles_of_our_users() {
    let federation = Federation::of([A]).await;
    let server = &federation[A];
    let alice = server.register("alice").await;
    let name = format!(
        "/_matrix/client/v3/profile/{}/displayname",
        encode(&alice.id)
    );
    let named = alice.put(name).json(json!({"displayname": "Alice"}));
    named.send().await.ok();
    let mallory = HostilePeer::on(&federation.wire, "mallory.test");
    let query = |query: String| {
        let peer = mallory.to(server);
        async move { peer.get(format!("{V1}/query/profile?{query}")).send().await }
    };
    let id = encode(&alice.id);
    let whole = query(format!("user_id={id}")).await.ok();
    assert_eq!(whole, json!({"displayname": "Alice"}));
    let field = query(format!("user_id={id}&field=avatar_url")).await.ok();
    assert_eq!(field, json!({}));
    for nobody in ["@bob:a.test", "@alice:b.test"] {
        let answer = query(format!("user_id={}", encode(nobody))).await;
        answer.error(404, "M_NOT_FOUND");
    }
    query("user_id=alice".into())
        .await
        .error(400, "M_INVALID_PARAM");
    let unknown = mallory.to(server).get(format!("{V1}/query/weather"));
    unknown.send().await.error(404, "M_NOT_FOUND");
}

/// Aliases lead to the room and the servers in it; the directory lists what was published.
#[tokio::test]
async fn aliases_and_the_directory() {
    let federation = Federation::of([A]).await;
    let server = &federation[A];
    let alice = server.register("alice").await;
    let room = alice
        .create_room(json!({
            "preset": "public_chat",
            "visibility": "public",
            "room_alias_name": "lobby",
            "name": "Lobby",
        }))
        .await;
    alice.create_room(json!({"preset": "public_chat"})).await;
    let mallory = HostilePeer::on(&federation.wire, "mallory.test");
    let peer = mallory.to(server);
    let query = format!(
        "{V1}/query/directory?room_alias={}",
        encode("#lobby:a.test")
    );
    let found = peer.get(query).send().await.ok();
    assert_eq!(found["room_id"], room);
    assert_eq!(found["servers"], json!([A]));
    for nowhere in ["#x:a.test", "#lobby:b.test"] {
        let query = format!("{V1}/query/directory?room_alias={}", encode(nowhere));
        peer.get(query).send().await.error(404, "M_NOT_FOUND");
    }
    let listed = peer.get(format!("{V1}/publicRooms")).send().await.ok();
    assert_eq!(listed["total_room_count_estimate"], 1);
    assert_eq!(listed["chunk"][0]["room_id"], room);
    let filter = |term: &str| {
        let body = json!({"filter": {"generic_search_term": term}});
        peer.post(format!("{V1}/publicRooms")).json(body).send()
    };
    assert_eq!(filter("lob").await.ok()["chunk"][0]["name"], "Lobby");
    assert_eq!(filter("nothing").await.ok()["chunk"], json!([]));
}

/// Threat E6: of users of other servers, and of those who don't exist, nothing is said.
#[tokio::test]
async fn e6_keys_of_others_are_empty() {
    let federation = Federation::of([A]).await;
    let server = &federation[A];
    let alice = server.register("alice").await;
    let mallory = HostilePeer::on(&federation.wire, "mallory.test");
    let peer = mallory.to(server);
    let asked = json!({"device_keys": {
        (&alice.id): [], "@bob:b.test": [], "@nobody:a.test": ["D"],
    }});
    let answer = peer.post(format!("{V1}/user/keys/query")).json(asked);
    assert_eq!(
        answer.send().await.ok(),
        json!({"device_keys": {(&alice.id): {}}})
    );
    let claimed = json!({"one_time_keys": {(&alice.id): {"D": "signed_curve25519"}}});
    let answer = peer.post(format!("{V1}/user/keys/claim")).json(claimed);
    assert_eq!(answer.send().await.ok(), json!({"one_time_keys": {}}));
    for (user, status) in [(alice.id.as_str(), 200), ("@bob:b.test", 404)] {
        let path = format!("{V1}/user/devices/{}", encode(user));
        assert_eq!(peer.get(path).send().await.status, status);
    }
}

/// A space as another server may show it: what its users could enter, what they couldn't (by id alone), nothing of what isn't here.
#[tokio::test]
async fn spaces_are_shown_as_far_as_they_are_open() {
    let federation = Federation::of([A]).await;
    let server = &federation[A];
    let alice = server.register("alice").await;
    let open = alice.create_room(json!({"preset": "public_chat"})).await;
    let closed = alice.create_room(json!({"preset": "private_chat"})).await;
    let space = alice
        .create_room(json!({
            "preset": "public_chat",
            "creation_content": {"type": "m.space"},
        }))
        .await;
    for child in [open.as_str(), closed.as_str(), "!elsewhere:b.test"] {
        let via = json!({"via": [A]});
        alice.set_state(&space, "m.space.child", child, via).await;
    }
    let mallory = HostilePeer::on(&federation.wire, "mallory.test");
    let peer = mallory.to(server);
    let hierarchy = |room: &str| {
        let path = format!("{V1}/hierarchy/{}", encode(room));
        peer.get(path).send()
    };
    let shown = hierarchy(&space).await.ok();
    assert_eq!(shown["room"]["room_id"], space);
    assert_eq!(shown["room"]["children_state"].as_array().unwrap().len(), 3);
    assert_eq!(shown["children"].as_array().unwrap().len(), 1);
    assert_eq!(shown["children"][0]["room_id"], open);
    assert_eq!(shown["inaccessible_children"], json!([closed]));
    // Threat E5: a closed room and one that isn't there look the same.
    let closed = hierarchy(&closed).await;
    let nowhere = hierarchy("!nowhere:a.test").await;
    assert_eq!(closed.bytes, nowhere.bytes);
    closed.error(404, "M_NOT_FOUND");
}
