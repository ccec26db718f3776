//! Presence and the user directory: who sees whom.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::time::Duration;

use comity_testkit::{Federation, Server, User, encode};
use futures_util::future::join_all;
use serde_json::{Value, json};

const V3: &str = "/_matrix/client/v3";

async fn search(user: &User, term: &str, limit: u32) -> (Vec<Value>, bool) {
    let request = user.post(format!("{V3}/user_directory/search"));
    let asked = json!({"search_term": term, "limit": limit});
    let answer = request.json(asked).send().await.ok();
    let found = answer["results"].as_array().unwrap().iter();
    let ids = found.map(|user| user["user_id"].clone()).collect();
    (ids, answer["limited"] == true)
}

/// User directory: by id and by the profile's name, never by a room's; whoever shares a room or is in an open one.
#[tokio::test(start_paused = true)]
async fn users_are_found_by_those_who_may_know_them() {
    let server = Server::start().await;
    let [alice, bob, eve] = [
        server.register("user-alice").await,
        server.register("user-bob").await,
        server.register("eve").await,
    ];
    let name = alice.put(format!("{V3}/profile/{}/displayname", alice.id));
    let _ = name
        .json(json!({"displayname": "Alice Cooper"}))
        .send()
        .await
        .ok();
    let nobody = (Vec::<Value>::new(), false);
    assert_eq!(search(&eve, "alice", 10).await, nobody);
    alice.create_room(json!({"preset": "public_chat"})).await;
    let just_alice = (vec![json!(alice.id)], false);
    for term in ["Alice Cooper", "@user", "cooper", &alice.id] {
        assert_eq!(search(&eve, term, 10).await, just_alice, "{term}");
    }
    assert_eq!(search(&eve, "", 10).await, nobody);
    assert_eq!(search(&alice, "alice", 10).await, just_alice, "themself");

    let room = bob.create_room(json!({"preset": "private_chat"})).await;
    bob.invite(&room, &eve.id).await;
    eve.join(&room).await;
    let (both, limited) = search(&eve, "USER", 10).await;
    assert_eq!((both.len(), limited), (2, false));
    assert_eq!(search(&eve, "user", 1).await, (vec![json!(alice.id)], true));
    assert_eq!(search(&bob, "user", 10).await, just_alice);
}

/// User directory: users of other servers by whoever shares a room with them, and by what it shows them as.
#[tokio::test(start_paused = true)]
async fn users_of_other_servers_are_found_by_those_who_share_a_room() {
    let federation = Federation::of(["a.test", "b.test"]).await;
    let alice = federation["a.test"].register("alice").await;
    let eve = federation["a.test"].register("eve").await;
    let bob = federation["b.test"].register("bob").await;
    let name = bob.put(format!("{V3}/profile/{}/displayname", bob.id));
    let name = name.json(json!({"displayname": "Bob Dylan"}));
    name.send().await.ok();
    let mut rooms = Vec::new();
    for _ in 0..2 {
        let room = json!({"preset": "private_chat", "invite": [bob.id]});
        let room = alice.create_room(room).await;
        let join = bob.post(format!("{V3}/join/{}", encode(&room)));
        join.query("via", "a.test")
            .json(json!({}))
            .send()
            .await
            .ok();
        rooms.push(room);
    }
    let nobody = (Vec::<Value>::new(), false);
    let just_bob = (vec![json!(bob.id)], false);
    for term in ["bob", "DYLAN", "@bob:b", &bob.id] {
        assert_eq!(search(&alice, term, 10).await, just_bob, "{term}");
        assert_eq!(search(&eve, term, 10).await, nobody, "{term}");
    }
    let request = alice.post(format!("{V3}/user_directory/search"));
    let answer = request
        .json(json!({"search_term": "dylan"}))
        .send()
        .await
        .ok();
    let expected = json!([{"user_id": bob.id, "display_name": "Bob Dylan"}]);
    assert_eq!(answer["results"], expected);
    let (both, limited) = search(&bob, "@", 1).await;
    assert_eq!((both, limited), (vec![json!(alice.id)], false));
    for term in ["", "b.test", "dylan cooper"] {
        assert_eq!(search(&alice, term, 10).await, nobody, "{term}");
    }
    for room in &rooms {
        bob.leave(room).await;
    }
    tokio::time::sleep(std::time::Duration::from_secs(5)).await;
    assert_eq!(search(&alice, "bob", 10).await, nobody);
}

/// Law 11: two users at a time look for those of other servers, and nobody twice; whoever else asks meanwhile waits a little, and has
/// what is known without.
#[tokio::test(start_paused = true)]
async fn few_look_for_users_of_other_servers_at_a_time() {
    let federation = Federation::of(["a.test", "b.test"]).await;
    let [server, other] = ["a.test", "b.test"].map(|name| &federation[name]);
    let bob = other.register("bob").await;
    let mut users = Vec::new();
    for name in ["alice", "carol", "dave"] {
        let user = server.register(name).await;
        let room = json!({"preset": "private_chat", "invite": [bob.id]});
        let room = user.create_room(room).await;
        let join = bob.post(format!("{V3}/join/{}", encode(&room)));
        let join = join.query("via", "a.test").json(json!({}));
        join.send().await.ok();
        users.push(user);
    }
    let (found, missed) = ((vec![json!(bob.id)], false), (vec![], true));
    // Whether the store is so far away that a search takes longer than one waits for it, who asks, and whether they find all.
    for (far, searches) in [
        (false, [(0, true), (0, true), (1, true), (2, true)]),
        (true, [(0, true), (0, false), (1, true), (2, false)]),
        (true, [(2, true), (2, false), (2, false), (0, true)]),
    ] {
        let distance = Duration::from_secs(if far { 10 } else { 0 });
        server.disk().set_distance(distance);
        let ask = |(user, _): &(usize, bool)| search(&users[*user], "bob", 10);
        let answers = join_all(searches.iter().map(ask)).await;
        server.disk().set_distance(Duration::ZERO);
        for ((user, all), answer) in searches.iter().zip(answers) {
            assert_eq!(
                answer,
                if *all { found.clone() } else { missed.clone() },
                "{far} {user}"
            );
        }
    }
}

/// R4.5: presence is told to those who share a room, and to nobody else.
#[tokio::test(start_paused = true)]
async fn presence_is_for_those_who_share_a_room() {
    let server = Server::start().await;
    let alice = server.register("alice").await;
    let bob = server.register("bob").await;
    let status = format!("{V3}/presence/{}/status", alice.id);
    assert_eq!(alice.get(&status).send().await.ok()["presence"], "offline");
    let busy = json!({"presence": "unavailable", "status_msg": "baking"});
    let _ = alice.put(&status).json(&busy).send().await.ok();
    bob.put(&status)
        .json(&busy)
        .send()
        .await
        .error(403, "M_FORBIDDEN");
    bob.get(&status).send().await.error(403, "M_FORBIDDEN");
    let wrong = alice.put(&status).json(json!({"presence": "asleep"}));
    wrong.send().await.error(400, "M_INVALID_PARAM");

    let room = alice.create_room(json!({"preset": "public_chat"})).await;
    bob.join(&room).await;
    let seen = bob.get(&status).send().await.ok();
    assert_eq!(seen["presence"], "unavailable");
    assert_eq!(seen["status_msg"], "baking");
}

/// R4.5: after a restart nobody's rooms are known yet; whoever shares one is told of a presence all the same.
#[tokio::test(start_paused = true)]
async fn presence_reaches_others_before_its_user_has_synced() {
    let server = Server::start().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = alice.create_room(json!({"preset": "public_chat"})).await;
    bob.join(&room).await;
    let server = server.restarted().await;
    let (alice, bob) = (server.login("alice").await, server.login("bob").await);
    let since = bob.sync(None).await["next_batch"]
        .as_str()
        .unwrap()
        .to_owned();
    let status = format!("{V3}/presence/{}/status", alice.id);
    let busy = json!({"presence": "unavailable", "status_msg": "baking"});
    let _ = alice.put(status).json(busy).send().await.ok();
    let seen = bob.sync(Some(&since)).await;
    let of_alice = |event: &&Value| event["sender"] == alice.id.as_str();
    let told = seen["presence"]["events"].as_array().unwrap();
    let told = told.iter().find(of_alice).unwrap();
    assert_eq!(told["content"]["status_msg"], "baking");
}
