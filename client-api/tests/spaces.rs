//! What rooms look like from outside, spaces, upgrades; and what passes: typing, receipts, markers.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use comity_testkit::{Server, User, encode};
use serde_json::{Value, json};

const V1: &str = "/_matrix/client/v1";
const V3: &str = "/_matrix/client/v3";

fn room_path(room: &str, rest: &str) -> String {
    format!("{V3}/rooms/{}/{rest}", encode(room))
}

fn ids(body: &Value) -> Vec<&str> {
    let rooms = body["rooms"].as_array().unwrap().iter();
    rooms
        .map(|room| room["room_id"].as_str().unwrap())
        .collect()
}

async fn space(user: &User, children: &[(&str, bool)]) -> String {
    let children: Vec<Value> = children
        .iter()
        .map(|(room, suggested)| {
            json!({"type": "m.space.child", "state_key": room,
                   "content": {"via": ["localhost"], "suggested": suggested, "order": room}})
        })
        .collect();
    let body = json!({"preset": "public_chat", "creation_content": {"type": "m.space"}, "initial_state": children});
    user.create_room(body).await
}

/// <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1roomsroomidhierarchy>: as deep and as far as asked, by
/// pages, without what the user may not see.
#[tokio::test(start_paused = true)]
async fn a_tree_of_rooms() {
    let server = Server::start().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let open = alice
        .create_room(json!({"preset": "public_chat", "name": "Open"}))
        .await;
    let secret = alice.create_room(json!({"preset": "private_chat"})).await;
    let inner = space(&alice, &[(&open, false), (&secret, false)]).await;
    let root = space(
        &alice,
        &[(&inner, true), ("!elsewhere:elsewhere.example", true)],
    )
    .await;
    let path = format!("{V1}/rooms/{}/hierarchy", encode(&root));
    let whole = alice.get(&path).send().await.ok();
    assert_eq!(ids(&whole).len(), 4);
    assert_eq!(
        whole["rooms"][0]["children_state"]
            .as_array()
            .unwrap()
            .len(),
        2
    );
    let seen = bob.get(&path).send().await.ok();
    assert_eq!(ids(&seen), [&*root, &*inner, &*open]);
    let level = bob.get(&path).query("max_depth", "1").send().await.ok();
    assert_eq!(ids(&level), [&*root, &*inner]);
    let suggested = bob
        .get(&path)
        .query("suggested_only", "true")
        .send()
        .await
        .ok();
    assert_eq!(ids(&suggested), [&*root, &*inner]);
    let page = bob.get(&path).query("limit", "2").send().await.ok();
    assert_eq!(ids(&page), [&*root, &*inner]);
    let token = page["next_batch"].as_str().unwrap();
    let rest = bob.get(&path).query("from", token).send().await.ok();
    assert_eq!(ids(&rest), [&*open]);
    let other = bob.get(&path).query("from", token).query("max_depth", "1");
    other.send().await.error(400, "M_INVALID_PARAM");
    let none = bob.get(&path).query("limit", "0");
    none.send().await.error(400, "M_INVALID_PARAM");
    let closed = format!("{V1}/rooms/{}/hierarchy", encode(&secret));
    bob.get(closed).send().await.error(403, "M_FORBIDDEN");
}

/// <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1room_summaryroomidoralias>; E5: a room that isn't shown
/// is as one that isn't there.
#[tokio::test(start_paused = true)]
async fn a_room_before_joining() {
    let server = Server::start().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let parent = space(&alice, &[]).await;
    let rule = json!({"join_rule": "restricted", "allow": [{"type": "m.room_membership", "room_id": parent}]});
    let rules = json!([{"type": "m.room.join_rules", "content": rule}]);
    let body = json!({"initial_state": rules, "name": "Inner", "room_alias_name": "inner"});
    let room = alice.create_room(body).await;
    let summary = |user: &User, name: &str| user.get(format!("{V1}/room_summary/{}", encode(name)));
    let own = summary(&alice, &room).send().await.ok();
    assert_eq!(
        (&own["membership"], &own["name"]),
        (&json!("join"), &json!("Inner"))
    );
    assert_eq!(own["allowed_room_ids"], json!([parent]));
    let hidden = summary(&bob, &room).send().await.error(404, "M_NOT_FOUND");
    let nowhere = summary(&bob, "!nowhere:localhost").send().await;
    assert_eq!(hidden, nowhere.error(404, "M_NOT_FOUND"));
    bob.join(&parent).await;
    let seen = summary(&bob, "#inner:localhost").send().await.ok();
    assert_eq!(seen["membership"], "leave");
}

/// <https://spec.matrix.org/v1.19/client-server-api/#room-upgrades>, <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1mutual_rooms>
#[tokio::test(start_paused = true)]
async fn a_replacement_and_who_shares_it() {
    let server = Server::start().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = alice
        .create_room(json!({"preset": "public_chat", "room_version": "10", "name": "Old"}))
        .await;
    bob.join(&room).await;
    let upgrade = |user: &User, version: &str| {
        user.post(room_path(&room, "upgrade"))
            .json(json!({"new_version": version}))
    };
    upgrade(&bob, "12").send().await.error(403, "M_FORBIDDEN");
    let unheard = upgrade(&alice, "unheard").send().await;
    unheard.error(400, "M_UNSUPPORTED_ROOM_VERSION");
    let new = upgrade(&alice, "12").send().await.ok();
    let new = new["replacement_room"].as_str().unwrap();
    let seen = bob
        .get(format!("{V1}/room_summary/{}", encode(new)))
        .send()
        .await
        .ok();
    assert_eq!(
        (&seen["name"], &seen["room_version"]),
        (&json!("Old"), &json!("12"))
    );
    let mutual = |other: &str| {
        bob.get(format!("{V1}/mutual_rooms"))
            .query("user_id", other)
    };
    let shared = mutual(&alice.id).send().await.ok();
    assert_eq!(shared, json!({"joined": [room], "count": 1}));
    mutual(&bob.id).send().await.error(400, "M_INVALID_PARAM");
    let nobody = mutual("@nobody:localhost").send().await.ok();
    assert_eq!(nobody["count"], 0);
}

/// <https://spec.matrix.org/v1.19/client-server-api/#receipts>, …/#typing-notifications, …/#read-and-unread-markers
#[tokio::test(start_paused = true)]
async fn reading_and_typing() {
    let server = Server::start().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = alice.create_room(json!({"preset": "public_chat"})).await;
    let typing = |user: &User, who: &User| {
        let path = room_path(&room, &format!("typing/{}", encode(&who.id)));
        user.put(path).json(json!({"typing": true, "timeout": 0}))
    };
    typing(&alice, &alice).send().await.ok();
    typing(&alice, &bob).send().await.error(403, "M_FORBIDDEN");
    typing(&bob, &bob).send().await.error(403, "M_FORBIDDEN");
    let unknown = encode("$unknown");
    let receipt = |user: &User, kind: &str, body: Value| {
        user.post(room_path(&room, &format!("receipt/{kind}/{unknown}")))
            .json(body)
    };
    for kind in ["m.read", "m.read.private", "m.fully_read"] {
        receipt(&alice, kind, json!({}))
            .send()
            .await
            .error(404, "M_NOT_FOUND");
        receipt(&bob, kind, json!({}))
            .send()
            .await
            .error(403, "M_FORBIDDEN");
    }
    for (kind, body) in [
        ("m.unheard", json!({})),
        ("m.read", json!({"thread_id": 3})),
        ("m.read", json!({"thread_id": ""})),
        ("m.fully_read", json!({"thread_id": "main"})),
    ] {
        receipt(&alice, kind, body)
            .send()
            .await
            .error(400, "M_INVALID_PARAM");
    }
    let latest = server
        .api
        .rooms
        .view(room.as_str().try_into().unwrap())
        .await
        .unwrap();
    let create = latest.state("m.room.create", "").await.unwrap().unwrap();
    let create = create.event.event_id().as_str();
    let markers = json!({"m.fully_read": create, "m.read": create, "m.read.private": create});
    let markers = alice.post(room_path(&room, "read_markers")).json(markers);
    markers.send().await.ok();
    let kept = server
        .api
        .accounts
        .room_account_data(&alice.id, &room, "m.fully_read")
        .await;
    assert_eq!(kept.unwrap().unwrap(), json!({"event_id": create}));
    let user = alice.id.as_str().try_into().unwrap();
    let rooms = &server.api.rooms;
    let now = rooms.tenant().reader();
    let room = room.as_str().try_into().unwrap();
    let receipts = rooms.receipts_of(&now, user, room).await.unwrap();
    assert_eq!(receipts.len(), 2);
}

/// Room upgrades: tags, push rules and the mark of a direct chat go with a user who joins the new room, and
/// with who upgrades; a room that only claims to replace another gets nothing.
#[tokio::test(start_paused = true)]
async fn what_was_made_of_a_room_goes_to_its_replacement() {
    let server = Server::start().await;
    let alice = server.register("alice").await;
    let bob = server.register("bob").await;
    let old = alice.create_room(json!({ "preset": "public_chat" })).await;
    bob.join(&old).await;
    let false_heir = json!({ "preset": "public_chat", "creation_content": { "predecessor": { "room_id": old } } });
    let false_heir = alice.create_room(false_heir).await;
    for user in [&alice, &bob] {
        let own = format!("{V3}/user/{}", encode(&user.id));
        let tag = format!("{own}/rooms/{}/tags/m.favourite", encode(&old));
        user.put(tag)
            .json(json!({ "order": 0.5 }))
            .send()
            .await
            .ok();
        let direct = json!({ "@x:localhost": [old] });
        user.put(format!("{own}/account_data/m.direct"))
            .json(direct)
            .send()
            .await
            .ok();
        let rule = format!("{V3}/pushrules/global/room/{}", encode(&old));
        user.put(rule)
            .json(json!({ "actions": [] }))
            .send()
            .await
            .ok();
        let rule = format!("{V3}/pushrules/global/override/{}", encode(&old));
        let mute = json!({ "actions": [], "conditions": [{ "kind": "event_match", "key": "room_id", "pattern": old }] });
        user.put(rule).json(mute).send().await.ok();
    }
    let upgrade = format!("{V3}/rooms/{}/upgrade", encode(&old));
    let upgraded = alice
        .post(upgrade)
        .json(json!({ "new_version": "11" }))
        .send()
        .await
        .ok();
    let new = upgraded["replacement_room"].as_str().unwrap();
    bob.join(new).await;
    bob.join(&false_heir).await;
    for user in [&alice, &bob] {
        let own = format!("{V3}/user/{}", encode(&user.id));
        let tags = async |room: &str| {
            let tags = user.get(format!("{own}/rooms/{}/tags", encode(room)));
            tags.send().await.ok()["tags"].clone()
        };
        assert_eq!(tags(new).await, json!({ "m.favourite": { "order": 0.5 } }));
        assert_eq!(tags(&false_heir).await, json!({}));
        let direct = user
            .get(format!("{own}/account_data/m.direct"))
            .send()
            .await
            .ok();
        assert_eq!(direct, json!({ "@x:localhost": [old, new] }));
        let rule = user.get(format!("{V3}/pushrules/global/room/{}", encode(new)));
        assert_eq!(rule.send().await.ok()["actions"], json!([]));
        let rule = user.get(format!("{V3}/pushrules/global/override/{}", encode(new)));
        assert_eq!(rule.send().await.ok()["conditions"][0]["pattern"], new);
    }
}

/// Room upgrades made by hand: once the old room says that the new one replaces it, what users made of it goes with those
/// who are in the new one already; who enters it by a member event takes it along too.
#[tokio::test(start_paused = true)]
async fn what_was_made_of_a_room_goes_to_a_replacement_made_by_hand() {
    let server = Server::start().await;
    let alice = server.register("alice").await;
    let bob = server.register("bob").await;
    let old = alice.create_room(json!({ "preset": "public_chat" })).await;
    bob.join(&old).await;
    for user in [&alice, &bob] {
        let rule = format!("{V3}/pushrules/global/room/{}", encode(&old));
        let rule = user.put(rule).json(json!({ "actions": [] }));
        rule.send().await.ok();
    }
    let heir = json!({ "preset": "public_chat", "creation_content": { "predecessor": { "room_id": old } } });
    let new = alice.create_room(heir).await;
    let rule = async |user: &User| {
        let rule = format!("{V3}/pushrules/global/room/{}", encode(&new));
        user.get(rule).send().await.status
    };
    assert_eq!(rule(&alice).await, 404);
    let since = alice.sync(None).await["next_batch"].clone();
    let tombstone = json!({ "body": "moved", "replacement_room": new });
    alice
        .set_state(&old, "m.room.tombstone", "", tombstone)
        .await;
    // The rules change beside the request; a sync tells of it.
    let mut since = since.as_str().unwrap().to_owned();
    for _ in 0..10 {
        if rule(&alice).await == 200 {
            break;
        }
        let request = alice.sync_request(Some(&since)).query("timeout", "30000");
        let answer = request.send().await.ok();
        since = answer["next_batch"].as_str().unwrap().to_owned();
    }
    assert_eq!(rule(&alice).await, 200);
    assert_eq!(rule(&bob).await, 404);
    let join = json!({ "membership": "join" });
    bob.set_state(&new, "m.room.member", &bob.id, join).await;
    assert_eq!(rule(&bob).await, 200);
}

/// Laws 2: what is owed to those in a replacement isn't lost with the power, however soon after the tombstone that goes.
#[tokio::test(start_paused = true)]
async fn what_was_made_of_a_room_goes_over_after_a_crash() {
    let server = Server::start().await;
    let alice = server.register("alice").await;
    let old = alice.create_room(json!({})).await;
    let rule = format!("{V3}/pushrules/global/room/{}", encode(&old));
    let rule = alice.put(rule).json(json!({ "actions": [] }));
    rule.send().await.ok();
    let heir = json!({ "creation_content": { "predecessor": { "room_id": old } } });
    let new = alice.create_room(heir).await;
    let tombstone = json!({ "body": "moved", "replacement_room": new });
    alice
        .set_state(&old, "m.room.tombstone", "", tombstone)
        .await;
    let server = server.restarted().await;
    let alice = server.login("alice").await;
    let rule = format!("{V3}/pushrules/global/room/{}", encode(&new));
    let mut since = alice.sync(None).await["next_batch"].clone();
    for _ in 0..10 {
        if alice.get(&rule).send().await.status == 200 {
            break;
        }
        let request = alice.sync_request(since.as_str()).query("timeout", "30000");
        since = request.send().await.ok()["next_batch"].take();
    }
    assert_eq!(alice.get(&rule).send().await.status, 200);
}
