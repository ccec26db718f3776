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

/// MSC3391: what is deleted, or set to nothing, is gone; who may know it from before is told, who begins anew isn't.
#[tokio::test(start_paused = true)]
async fn deleted_account_data_is_gone() {
    const KIND: &str = "org.example.theme";
    let server = Server::start().await;
    let alice = server.register("alice").await;
    let room = alice.create_room(json!({})).await;
    let bob = server.register("bob").await;
    let user = format!("user/{}", alice.id);
    let of_room = format!("{user}/rooms/{}", encode(&room));
    let told = |sync: &Value, place: &str| -> Option<Value> {
        let data = match place == user {
            true => &sync["account_data"],
            false => &sync["rooms"]["join"][&room]["account_data"],
        };
        let mut events = data["events"].as_array().into_iter().flatten();
        let event = events.find(|event| event["type"] == KIND);
        event.map(|event| event["content"].clone())
    };
    for place in [&user, &of_room] {
        let path = format!("{V3}/{place}/account_data/{KIND}");
        let delete =
            format!("/_matrix/client/unstable/org.matrix.msc3391/{place}/account_data/{KIND}");
        for by_delete in [true, false] {
            let content = json!({"dark": true});
            let _ = alice.put(&path).json(&content).send().await.ok();
            let sync = alice.sync(None).await;
            assert_eq!(told(&sync, place), Some(content), "{place} {by_delete}");
            let request = match by_delete {
                true => alice.delete(&delete),
                false => alice.put(&path).json(json!({})),
            };
            assert_eq!(request.send().await.ok(), json!({}));
            alice.get(&path).send().await.error(404, "M_NOT_FOUND");
            let since = sync["next_batch"].as_str();
            let sync = alice.sync(since).await;
            assert_eq!(told(&sync, place), Some(json!({})), "{place} {by_delete}");
            assert_eq!(told(&alice.sync(None).await, place), None, "{place}");
            // Again: it is so already, and nobody is told.
            let _ = alice.delete(&delete).send().await.ok();
            let sync = alice.sync(sync["next_batch"].as_str()).await;
            assert_eq!(told(&sync, place), None, "{place} {by_delete}");
        }
        bob.delete(&delete).send().await.error(403, "M_FORBIDDEN");
        let of_server = delete.replace(KIND, "m.fully_read");
        let refused = alice.delete(of_server).send().await;
        refused.error(405, "M_BAD_JSON");
    }
}

/// MSC4155: who is blocked is refused, who is ignored isn't and goes unheard; an invite of before is shown as long as it passes.
#[tokio::test(start_paused = true)]
async fn invites_are_filtered_by_who_sends_them() {
    let server = Server::start().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let carol = server.register("carol").await;
    let path = |kind: &str| format!("{V3}/user/{}/account_data/{kind}", alice.id);
    let wish = async |filter: Value| {
        let path = path("org.matrix.msc4155.invite_permission_config");
        let _ = alice.put(path).json(filter).send().await.ok();
    };
    let shown = async || -> usize {
        let sync = alice.sync(None).await;
        let listed = sync["rooms"]["invite"].as_object().map_or(0, |it| it.len());
        let body = json!({"lists": {"all": {
            "ranges": [[0, 9]], "timeline_limit": 1, "required_state": [],
            "filters": {"is_invite": true},
        }}});
        let path = "/_matrix/client/unstable/org.matrix.simplified_msc3575/sync";
        let slid = alice.post(path).json(body).send().await.ok();
        assert_eq!(slid["rooms"].as_object().unwrap().len(), listed);
        assert_eq!(slid["lists"]["all"]["count"], listed);
        listed
    };
    let invite = async |by: &User| -> u16 {
        let room = by.create_room(json!({})).await;
        let path = format!("{V3}/rooms/{}/invite", encode(&room));
        let invite = by.post(path).json(json!({"user_id": alice.id}));
        let answer = invite.send().await;
        let status = answer.status.as_u16();
        if status == 403 {
            answer.error(403, "M_INVITE_BLOCKED");
        }
        status
    };
    assert_eq!((invite(&bob).await, shown().await), (200, 1));
    wish(json!({"blocked_users": [bob.id]})).await;
    assert_eq!((invite(&bob).await, shown().await), (403, 0));
    assert_eq!((invite(&carol).await, shown().await), (200, 1));
    wish(json!({"ignored_servers": ["local*"], "allowed_users": ["@c*"]})).await;
    assert_eq!((invite(&bob).await, shown().await), (200, 1));
    assert_eq!((invite(&carol).await, shown().await), (200, 2));
    wish(json!({})).await;
    assert_eq!(shown().await, 4);
    // Nor is anybody who wasn't told of an invite told that it was taken back.
    wish(json!({"ignored_users": [bob.id]})).await;
    let room = bob.create_room(json!({})).await;
    let before = alice.sync(None).await;
    bob.invite(&room, &alice.id).await;
    let unheard = alice.sync(before["next_batch"].as_str()).await;
    bob.kick(&room, &alice.id).await;
    let over = alice.sync(unheard["next_batch"].as_str()).await;
    assert_eq!(over["rooms"]["leave"].get(&room), None, "{over}");
    // What one does oneself is told to one's other clients, as when one declines and ignores.
    for sees in [true, false] {
        wish(json!({})).await;
        let declined = bob.create_room(json!({})).await;
        bob.invite(&declined, &alice.id).await;
        let told = alice.sync(unheard["next_batch"].as_str()).await;
        assert!(told["rooms"]["invite"][&declined].is_object(), "{told}");
        wish(json!({"ignored_users": [bob.id]})).await;
        let since = match sees {
            true => alice.sync(told["next_batch"].as_str()).await,
            false => told,
        };
        alice.leave(&declined).await;
        let gone = alice.sync(since["next_batch"].as_str()).await;
        assert!(gone["rooms"]["leave"][&declined].is_object(), "{gone}");
    }
    wish(json!({})).await;
    bob.invite(&room, &alice.id).await;
    bob.kick(&room, &alice.id).await;
    let heard = alice.sync(over["next_batch"].as_str()).await;
    assert!(heard["rooms"]["leave"][&room].is_object(), "{heard}");
    // What was there before all were refused is no longer shown either (client-server API, Invite permission).
    let none = json!({"default_action": "block"});
    let permission = path("m.invite_permission_config");
    let _ = alice.put(permission).json(none).send().await.ok();
    assert_eq!((invite(&carol).await, shown().await), (403, 0));
}
