//! Account data, tags, filters: what clients keep on the server.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use comity_testkit::{Server, User, encode};
use serde_json::{Value, json};

const V3: &str = "/_matrix/client/v3";
const ROOM: &str = "!room:localhost";

/// Client config: kept a type, global and a room; nobody else's; what the server writes itself is 405.
#[tokio::test(start_paused = true)]
async fn account_data_is_kept_for_its_user() {
    let server = Server::start().await;
    let alice = server.register("alice").await;
    let bob = server.register("bob").await;
    let user = format!("{V3}/user/{}", alice.id);
    for place in [user.clone(), format!("{user}/rooms/{ROOM}")] {
        let path = format!("{place}/account_data/org.example.theme");
        alice.get(&path).send().await.error(404, "M_NOT_FOUND");
        let content = json!({"dark": true});
        let _ = alice.put(&path).json(&content).send().await.ok();
        assert_eq!(alice.get(&path).send().await.ok(), content);
        bob.get(&path).send().await.error(403, "M_FORBIDDEN");
        bob.put(&path)
            .json(&content)
            .send()
            .await
            .error(403, "M_FORBIDDEN");
        let array = alice.put(&path).json(json!([1])).send().await;
        array.error(400, "M_BAD_JSON");
        let server_s = format!("{place}/account_data/m.fully_read");
        let refused = alice.put(server_s).json(&content).send().await;
        refused.error(405, "M_BAD_JSON");
    }
    let rules = alice.get(format!("{user}/account_data/m.push_rules"));
    assert!(rules.send().await.ok()["global"]["override"].is_array());
    let no_room = format!("{user}/rooms/room/account_data/x.y");
    alice
        .get(no_room)
        .send()
        .await
        .error(400, "M_INVALID_PARAM");
}

/// Room tagging.
#[tokio::test(start_paused = true)]
async fn tags_come_and_go() {
    let server = Server::start().await;
    let alice = server.register("alice").await;
    let tags = format!("{V3}/user/{}/rooms/{ROOM}/tags", alice.id);
    assert_eq!(alice.get(&tags).send().await.ok(), json!({"tags": {}}));
    let favourite = format!("{tags}/m.favourite");
    let order = json!({"order": 0.25});
    let _ = alice.put(&favourite).json(&order).send().await.ok();
    let _ = alice.put(format!("{tags}/u.work")).send().await.ok();
    assert_eq!(
        alice.get(&tags).send().await.ok(),
        json!({"tags": {"m.favourite": order, "u.work": {}}})
    );
    let bad = json!({"order": "first"});
    let refused = alice.put(&favourite).json(bad).send().await;
    refused.error(400, "M_BAD_JSON");
    let _ = alice.delete(&favourite).send().await.ok();
    assert_eq!(
        alice.get(&tags).send().await.ok(),
        json!({"tags": {"u.work": {}}})
    );
}

/// Filtering: given back as stored, refused if no sync could use it.
#[tokio::test(start_paused = true)]
async fn filters_are_stored_if_they_can_be_used() {
    let server = Server::start().await;
    let alice = server.register("alice").await;
    let filters = format!("{V3}/user/{}/filter", alice.id);
    let filter = json!({"room": {"timeline": {"limit": 3}}, "org.example.other": 1});
    let stored = alice.post(&filters).json(&filter).send().await.ok();
    let id = stored["filter_id"].as_str().unwrap();
    let path = format!("{filters}/{id}");
    assert_eq!(alice.get(path).send().await.ok(), filter);
    let unknown = alice.get(format!("{filters}/nothing")).send().await;
    unknown.error(404, "M_NOT_FOUND");
    for bad in [
        json!({"presence": "nobody"}),
        json!({"room": {"timeline": "none"}}),
        json!({"room": {"timeline": {"types": [1]}}}),
        json!({"room": {"rooms": ["not_a_room_id"]}}),
        json!({"room": {"state": {"senders": ["not_a_sender_id"]}}}),
    ] {
        let refused = alice.post(&filters).json(bad).send().await;
        refused.error(400, "M_BAD_JSON");
    }
}

/// <https://spec.matrix.org/v1.19/client-server-api/#ignoring-users>: what ignored users say and whither they invite is not shown,
/// however one asks; what they make of rooms is. Whoever is ignored no more is heard again.
#[tokio::test(start_paused = true)]
async fn ignored_users_are_not_heard() {
    let server = Server::start().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = alice.create_room(json!({"preset": "public_chat"})).await;
    let elsewhere = bob.create_room(json!({})).await;
    let ignore = async |users: Value| {
        let path = format!(
            "{V3}/user/{}/account_data/m.ignored_user_list",
            encode(&alice.id)
        );
        let list = json!({"ignored_users": users});
        let _ = alice.put(path).json(list).send().await.ok();
    };
    ignore(json!({&bob.id: {}})).await;
    let since = alice.sync(None).await["next_batch"]
        .as_str()
        .unwrap()
        .to_owned();
    bob.join(&room).await;
    bob.send(&room, "noise").await;
    alice.send(&room, "mine").await;
    bob.invite(&elsewhere, &alice.id).await;
    let joins = |events: &[Value]| events.iter().any(|it| it["state_key"] == bob.id.as_str());
    let words = |events: &[Value]| -> Vec<String> {
        let words = events
            .iter()
            .filter_map(|it| it["content"]["body"].as_str());
        words.map(str::to_owned).collect()
    };
    let seen = async |user: &User, since: Option<&str>| {
        let sync = user.sync(since).await;
        let timeline = sync["rooms"]["join"][&room]["timeline"]["events"].as_array();
        let mut pages = vec![timeline.unwrap().clone()];
        let mut page = user.messages(&room, 50).await;
        page.reverse();
        pages.push(page);
        (pages, sync["rooms"]["invite"][&elsewhere].is_object())
    };
    for since in [None, Some(since.as_str())] {
        let (pages, invited) = seen(&alice, since).await;
        for page in pages {
            assert!(joins(&page), "{since:?}");
            assert_eq!(words(&page), ["mine"], "{since:?}");
        }
        assert!(!invited, "{since:?}");
    }
    ignore(json!({})).await;
    let (pages, invited) = seen(&alice, None).await;
    for page in pages {
        assert_eq!(words(&page), ["noise", "mine"]);
    }
    assert!(invited);
}
