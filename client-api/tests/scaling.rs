//! How cost grows: each law at n, 4n and 16n, in calls and rows, which no machine's load changes.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::time::Duration;

use comity_protocol::{
    id::{OwnedUserId, RoomId, UserId},
    push::{NewRule, Position, RuleKind},
};
use comity_rooms::Intent;
use comity_testkit::{Cost, Federation, HostilePeer, Server, User, encode};
use serde_json::{Value, json};

const V3: &str = "/_matrix/client/v3";

async fn public_room(user: &User) -> String {
    user.create_room(json!({"preset": "public_chat"})).await
}

/// Joins so many members to a room, half of whom have muted it.
async fn fill(server: &Server, room: &str, members: usize) {
    for member in (0..members).step_by(2) {
        let user = server.register(&format!("member{member}")).await;
        let muted: NewRule = serde_json::from_value(json!({"actions": []})).unwrap();
        let edit = |rules: &mut comity_protocol::push::UserRules| {
            rules.put(RuleKind::Room, room, muted.clone(), &Position::default())
        };
        let edited = server.api.accounts.edit_push_rules(&user.id, edit);
        edited.await.unwrap().unwrap();
    }
    admit(server, room, members).await;
}

/// Joins so many members to a room, with an account or without.
async fn admit(server: &Server, room: &str, members: usize) {
    let room_id = RoomId::parse(room).unwrap();
    let mut change = server.api.rooms.change(&room_id).await.unwrap();
    for member in 0..members {
        let user: OwnedUserId = UserId::parse(format!("@member{member}:localhost")).unwrap();
        let joined = json!({"membership": "join"});
        let intent = Intent::state(&user, "m.room.member", user.as_str(), &joined);
        change.add(intent, None).await.unwrap();
    }
    change.commit().await.unwrap();
}

/// Says so many things in a room.
async fn talk(server: &Server, user: &User, room: &str, messages: usize) {
    let room_id = RoomId::parse(room).unwrap();
    let sender: OwnedUserId = UserId::parse(user.id.as_str()).unwrap();
    let mut change = server.api.rooms.change(&room_id).await.unwrap();
    for n in 0..messages {
        let said = json!({"msgtype": "m.text", "body": n.to_string()});
        let intent = Intent::message(&sender, "m.room.message", &said);
        change.add(intent, None).await.unwrap();
    }
    change.commit().await.unwrap();
}

/// Sets the entries of a room's state from one number up to another.
async fn furnish(server: &Server, user: &User, room: &str, entries: std::ops::Range<usize>) {
    let room_id = RoomId::parse(room).unwrap();
    let sender: OwnedUserId = UserId::parse(user.id.as_str()).unwrap();
    let mut change = server.api.rooms.change(&room_id).await.unwrap();
    for key in entries {
        let intent = Intent::state(&sender, "test.entry", &key.to_string(), &json!({"n": 0}));
        change.add(intent, None).await.unwrap();
    }
    change.commit().await.unwrap();
}

async fn send(server: &Server, user: &User, room: &str, content: Value) -> Cost {
    let path = format!(
        "{V3}/rooms/{}/send/m.room.message/{}",
        encode(room),
        user.transaction()
    );
    let (cost, answer) = server.cost(user.put(path).json(content).send()).await;
    let _ = answer.ok();
    cost
}

/// Send: constant in the members, also when half of them have muted the room, and for a mention of all.
#[tokio::test(start_paused = true)]
async fn a_send_costs_the_same_in_a_room_of_any_size() {
    let mut costs = Vec::new();
    for members in [10, 100, 1_000] {
        let server = Server::start().await;
        let alice = server.register("alice").await;
        let room = public_room(&alice).await;
        fill(&server, &room, members).await;
        alice.send(&room, "the first").await;
        let said = json!({"msgtype": "m.text", "body": "hello"});
        let plain = send(&server, &alice, &room, said).await;
        let all = json!({"msgtype": "m.text", "body": "@room", "m.mentions": {"room": true}});
        let all = send(&server, &alice, &room, all).await;
        costs.push((plain, all));
    }
    for (plain, all) in &costs {
        assert_eq!((plain, all), (&costs[0].0, &costs[0].1));
        assert!(plain.round_trips <= 3, "{plain:?}");
    }
}

/// Send: constant in what was said before, and in the state.
#[tokio::test(start_paused = true)]
async fn a_send_costs_the_same_whatever_came_before() {
    let mut costs = Vec::new();
    for size in [64, 256, 1_024] {
        let server = Server::start().await;
        let alice = server.register("alice").await;
        let (old, full) = (public_room(&alice).await, public_room(&alice).await);
        talk(&server, &alice, &old, size).await;
        furnish(&server, &alice, &full, 0..size).await;
        let mut of_both = Vec::new();
        for room in [&old, &full] {
            alice.send(room, "the room is at hand").await;
            let said = json!({"msgtype": "m.text", "body": "hello"});
            of_both.push(send(&server, &alice, room, said).await);
        }
        costs.push(of_both);
    }
    assert!(costs.iter().all(|of| of == &costs[0]), "{costs:?}");
}

/// Messages to devices: constant in the users, and in lanes, that they go to.
#[tokio::test(start_paused = true)]
async fn messages_to_devices_cost_the_same_to_any_number_of_users() {
    let mut trips = Vec::new();
    for users in [8, 32, 128] {
        let server = Server::start().await;
        let alice = server.register("alice").await;
        let mut messages = serde_json::Map::new();
        for n in 0..users {
            let user = server.register(&format!("user{n}")).await;
            messages.insert(user.id.clone(), json!({ "*": { "n": n } }));
        }
        let path = format!("{V3}/sendToDevice/m.test/{}", alice.transaction());
        let request = alice.put(path).json(json!({ "messages": messages }));
        let (cost, answer) = server.cost(request.send()).await;
        let _ = answer.ok();
        trips.push(cost.round_trips);
    }
    assert!(trips.iter().all(|of| *of == trips[0]), "{trips:?}");
}

/// State event: the logarithm of the state.
#[tokio::test(start_paused = true)]
async fn a_state_event_costs_the_logarithm_of_the_state() {
    let server = Server::start().await;
    let alice = server.register("alice").await;
    let room = public_room(&alice).await;
    let mut costs: Vec<Cost> = Vec::new();
    let mut made = 0;
    for size in [16, 64, 256, 1_024] {
        furnish(&server, &alice, &room, made..size).await;
        made = size;
        alice.send(&room, "the room is at hand").await;
        let path = format!("{V3}/rooms/{}/state/test.entry/7", encode(&room));
        let content = json!({"n": size});
        let (cost, answer) = server.cost(alice.put(path).json(content).send()).await;
        let _ = answer.ok();
        costs.push(cost);
    }
    // Four times the state is a level of the trie at most.
    for pair in costs.windows(2) {
        assert!(
            pair[1].rows_written <= pair[0].rows_written + 1,
            "{costs:?}"
        );
        assert!(pair[1].rows_read <= pair[0].rows_read + 1, "{costs:?}");
        let further = pair[1].round_trips - pair[0].round_trips.min(pair[1].round_trips);
        assert!(further <= 1, "{costs:?}");
    }
}

/// State at an event, of which nothing is in memory: a key costs the logarithm of the state, among the members and among the rest,
/// and so does each of all.
#[tokio::test(start_paused = true)]
async fn state_at_an_event_costs_the_logarithm_of_the_state_a_key() {
    let server = Server::start().await;
    let alice = server.register("alice").await;
    let bob = server.register("bob").await;
    let mut rooms = Vec::new();
    for size in [16, 64, 256] {
        let room = public_room(&alice).await;
        admit(&server, &room, size).await;
        furnish(&server, &alice, &room, 0..size).await;
        bob.join(&room).await;
        bob.leave(&room).await;
        alice
            .set_state(&room, "test.entry", "7", json!({"n": 1}))
            .await;
        rooms.push((room, size));
    }
    for path in ["/test.entry/7", "/m.room.member/@member7:localhost", ""] {
        let server = server.restarted().await;
        let bob = server.login("bob").await;
        let mut costs: Vec<(u64, Cost)> = Vec::new();
        for (room, size) in &rooms {
            let path = format!("{V3}/rooms/{}/state{path}", encode(room));
            let (cost, answer) = server.cost(bob.get(path).send()).await;
            let answer = answer.ok();
            let keys = answer.as_array().map_or(1, Vec::len);
            assert!(answer["n"] != 1 && (keys == 1 || keys > 2 * size));
            costs.push((keys as u64, cost));
        }
        // Four times the state is a level of the trie at most.
        for pair in costs.windows(2) {
            let ((fewer, less), (keys, more)) = (&pair[0], &pair[1]);
            let a_key = less.rows_read / fewer + 1;
            assert!(more.rows_read / keys <= a_key, "{path} {costs:?}");
            assert!(more.round_trips <= less.round_trips + 1, "{costs:?}");
        }
    }
}

/// State at an event: nothing of what came since.
#[tokio::test(start_paused = true)]
async fn state_at_an_event_costs_the_same_however_long_ago() {
    let server = Server::start().await;
    let alice = server.register("alice").await;
    let bob = server.register("bob").await;
    let room = public_room(&alice).await;
    let room_id = RoomId::parse(room.as_str()).unwrap();
    let user: OwnedUserId = UserId::parse(alice.id.as_str()).unwrap();
    bob.join(&room).await;
    alice
        .set_state(&room, "m.room.topic", "", json!({"topic": "then"}))
        .await;
    bob.leave(&room).await;
    let mut costs: Vec<Cost> = Vec::new();
    for changes in [16, 48, 192, 768] {
        let mut change = server.api.rooms.change(&room_id).await.unwrap();
        for n in 0..changes {
            let content = json!({"topic": format!("{changes} {n}")});
            let intent = Intent::state(&user, "m.room.topic", "", &content);
            change.add(intent, None).await.unwrap();
            let intent = Intent::state(&user, "test.entry", &format!("{changes} {n}"), &json!({}));
            change.add(intent, None).await.unwrap();
        }
        change.commit().await.unwrap();
        let path = format!("{V3}/rooms/{}/state/m.room.topic/", encode(&room));
        let (cost, answer) = server.cost(bob.get(path).send()).await;
        assert_eq!(answer.ok()["topic"], "then");
        costs.push(cost);
    }
    assert!(costs.iter().all(|cost| cost == &costs[0]), "{costs:?}");
}

/// Incremental sync: what changed is read, of a quiet room nothing; and few calls wait for one another.
#[tokio::test(start_paused = true)]
async fn an_incremental_sync_reads_nothing_of_quiet_rooms() {
    let server = Server::start().await;
    let alice = server.register("alice").await;
    let bob = server.register("bob").await;
    let mut rooms = Vec::new();
    let mut costs: Vec<(Cost, Cost)> = Vec::new();
    for count in [4, 16, 64] {
        while rooms.len() < count {
            let room = public_room(&bob).await;
            alice.join(&room).await;
            rooms.push(room);
        }
        let since = alice.sync(None).await;
        bob.send(&rooms[0], "what is told once is told").await;
        let since = alice.sync(since["next_batch"].as_str()).await;
        let since = since["next_batch"].as_str().unwrap();
        // What other servers are owed of bob's presence is looked up in turns of its own; not while this is measured.
        tokio::time::sleep(Duration::from_secs(10)).await;
        let since = alice.sync(Some(since)).await;
        let since = since["next_batch"].as_str().unwrap();
        let idle = alice.sync_request(Some(since)).query("timeout", "0");
        let (idle, answer) = server.cost(idle.send()).await;
        let _ = answer.ok();
        bob.send(&rooms[0], "news").await;
        let busy = alice.sync_request(Some(since)).query("timeout", "0");
        let (busy, answer) = server.cost(busy.send()).await;
        assert_eq!(answer.ok()["rooms"]["join"].as_object().unwrap().len(), 1);
        costs.push((idle, busy));
    }
    for (idle, busy) in &costs {
        assert_eq!(idle.rows_read, 0, "{idle:?}");
        assert_eq!(busy, &costs[0].1);
        assert!(busy.round_trips <= 5, "{busy:?}");
    }
}

/// Initial sync: in proportion to the rooms, and few calls of a chunk of rooms wait for one another.
#[tokio::test(start_paused = true)]
async fn an_initial_sync_costs_in_proportion_to_rooms() {
    let server = Server::start().await;
    let alice = server.register("alice").await;
    let bob = server.register("bob").await;
    let mut rooms = 0;
    let mut costs: Vec<Cost> = Vec::new();
    for count in [4, 16, 64] {
        while rooms < count {
            let room = public_room(&bob).await;
            alice.join(&room).await;
            bob.send(&room, "hello").await;
            rooms += 1;
        }
        let filter = r#"{"room":{"state":{"lazy_load_members":true}}}"#;
        let all = alice.sync_request(None).query("filter", filter);
        let (cost, answer) = server.cost(all.send()).await;
        assert_eq!(
            answer.ok()["rooms"]["join"].as_object().unwrap().len(),
            count
        );
        assert!(
            cost.round_trips <= 8 * count.div_ceil(32) as u64,
            "{cost:?}"
        );
        costs.push(cost);
    }
    // Four times the rooms cost four times as much at most.
    for pair in costs.windows(2) {
        assert!(pair[1].rows_read <= 4 * pair[0].rows_read, "{pair:?}");
    }
}

/// Sliding sync: in proportion to the window and to what moved in it, however many rooms there are.
#[tokio::test(start_paused = true)]
async fn sliding_sync_costs_in_proportion_to_the_window() {
    let server = Server::start().await;
    let alice = server.register("alice").await;
    let bob = server.register("bob").await;
    let mut rooms = Vec::new();
    let mut costs: Vec<[Cost; 3]> = Vec::new();
    for count in [8, 32, 128] {
        while rooms.len() < count {
            let room = public_room(&bob).await;
            alice.join(&room).await;
            bob.send(&room, "hello").await;
            rooms.push(room);
        }
        let slide = async |pos: Option<&str>| {
            let required = json!([["m.room.name", ""], ["m.room.member", "$LAZY"]]);
            let list = json!({"ranges": [[0, 4]], "timeline_limit": 1, "required_state": required});
            let path = "/_matrix/client/unstable/org.matrix.simplified_msc3575/sync";
            let request = alice.post(path).json(json!({"lists": {"all": list}}));
            let request = match pos {
                Some(pos) => request.query("pos", pos),
                None => request,
            };
            let (cost, answer) = server.cost(request.send()).await;
            (cost, answer.ok())
        };
        let pos = |answer: &Value| answer["pos"].as_str().unwrap().to_owned();
        // What kind of rooms they are is read once.
        slide(None).await;
        // What other servers are owed of presence is looked up in turns of its own; not while this is measured.
        tokio::time::sleep(Duration::from_secs(10)).await;
        let (first, answer) = slide(None).await;
        assert_eq!(answer["rooms"].as_object().unwrap().len(), 5);
        let (idle, answer) = slide(Some(&pos(&answer))).await;
        bob.send(&rooms[count - 1], "news").await;
        let (busy, answer) = slide(Some(&pos(&answer))).await;
        assert_eq!(answer["rooms"].as_object().unwrap().len(), 1);
        costs.push([first, idle, busy]);
    }
    for [first, idle, busy] in &costs {
        let [smallest, _, _] = &costs[0];
        assert!(first.rows_read <= smallest.rows_read + 5, "{costs:?}");
        assert!(first.round_trips <= 12, "{first:?}");
        assert!(idle.rows_read <= 2, "{idle:?}");
        assert_eq!(busy, &costs[0][2]);
        assert!(busy.round_trips <= 9, "{busy:?}");
    }
}

/// State that is shown: its events' own rows, and nothing that state doesn't have, as edits and threads are.
#[tokio::test(start_paused = true)]
async fn state_that_is_shown_costs_its_rows() {
    let server = Server::start().await;
    let alice = server.register("alice").await;
    let room = public_room(&alice).await;
    let room_id = RoomId::parse(room.as_str()).unwrap();
    let user: OwnedUserId = UserId::parse(alice.id.as_str()).unwrap();
    let list =
        json!({"ranges": [[0, 0]], "timeline_limit": 1, "required_state": [["test.entry", "*"]]});
    let body = json!({"lists": {"all": list}});
    let path = "/_matrix/client/unstable/org.matrix.simplified_msc3575/sync";
    let mut costs: Vec<Cost> = Vec::new();
    let sizes = [4, 16, 48];
    let mut made = 0;
    for size in sizes {
        let mut change = server.api.rooms.change(&room_id).await.unwrap();
        for key in made..size {
            let intent = Intent::state(&user, "test.entry", &key.to_string(), &json!({"n": 0}));
            change.add(intent, None).await.unwrap();
        }
        change.commit().await.unwrap();
        made = size;
        // The nodes of the states before them are read once.
        let _ = alice.post(path).json(body.clone()).send().await.ok();
        let (cost, answer) = server
            .cost(alice.post(path).json(body.clone()).send())
            .await;
        let state = &answer.ok()["rooms"][&room]["required_state"];
        assert_eq!(state.as_array().unwrap().len(), size);
        costs.push(cost);
    }
    for (costs, sizes) in costs.windows(2).zip(sizes.windows(2)) {
        let more = costs[1].rows_read - costs[0].rows_read;
        assert_eq!(more, 3 * (sizes[1] - sizes[0]) as u64, "{costs:?}");
    }
}

/// Searching users: beyond as many as are kept it costs the same, however many of other servers fit.
#[tokio::test(start_paused = true)]
async fn a_search_of_users_ends_with_what_it_keeps() {
    let federation = Federation::of(["here.test"]).await;
    let server = &federation["here.test"];
    let alice = server.register("alice").await;
    let room = public_room(&alice).await;
    let peer = HostilePeer::on(&federation.wire, "there.test");
    let mut room = peer.join(server, &room, "member0").await;
    let (mut members, mut costs) = (1, Vec::new());
    for count in [1_100, 1_700] {
        while members < count {
            let mut pdus = Vec::new();
            for _ in 0..50 {
                let (name, joined) = (format!("member{members}"), json!({"membership": "join"}));
                let id = peer.user(&name);
                let join = peer.event(&room, &name, "m.room.member", Some(id.as_str()), joined);
                room.went_on(&join);
                pdus.push(join.json);
                members += 1;
            }
            let body = json!({"origin": peer.name, "origin_server_ts": 1, "pdus": pdus});
            let path = format!("/_matrix/federation/v1/send/{members}");
            peer.to(server).put(path).json(body).send().await.ok();
        }
        let path = format!("{V3}/rooms/{}/joined_members", encode(&room.id));
        tokio::time::sleep(Duration::from_secs(60)).await;
        let joined = alice.get(path).send().await.ok();
        assert!(joined["joined"].as_object().unwrap().len() > count);
        let search = alice.post(format!("{V3}/user_directory/search"));
        let search = search.json(json!({"search_term": "member", "limit": 10}));
        let (cost, answer) = server.cost(search.send()).await;
        let answer = answer.ok();
        assert_eq!(answer["results"].as_array().unwrap().len(), 10);
        assert_eq!(answer["limited"], true);
        costs.push(cost.rows_read);
    }
    assert!(costs[1] <= costs[0] + 5, "{costs:?}");
}
