//! Which rooms a list has, and in which order.

use comity_testkit::{Server, User, encode};
use serde_json::{Value, json};

use crate::{Connection, V3, list, lists, named, rooms, slide, state};

/// MSC4186, Lists: the window has the rooms active last; one that becomes active comes in, and what was told is not told again.
#[tokio::test(start_paused = true)]
async fn a_window_has_the_rooms_active_last() {
    let server = Server::start().await;
    let alice = server.register("alice").await;
    let mut made = Vec::new();
    for n in 0..5 {
        made.push(named(&alice, &n.to_string()).await);
    }
    let mut connection = Connection::of(&alice);
    let wanted = lists(list(1, 1, json!([])));
    let first = connection.ask(wanted.clone()).await;
    let mut newest = vec![made[3].clone(), made[4].clone()];
    newest.sort();
    assert_eq!(rooms(&first), newest);
    assert_eq!(first["lists"]["all"]["count"], 5);
    let room = &first["rooms"][&made[4]];
    assert_eq!(room["initial"], true);
    assert_eq!(room["name"], "4");
    assert_eq!(
        (&room["joined_count"], &room["invited_count"]),
        (&json!(1), &json!(0))
    );
    assert_eq!(room["num_live"], 0);
    assert_eq!(room["limited"], true);
    let nothing = connection.ask(wanted.clone()).await;
    assert!(rooms(&nothing).is_empty(), "{nothing}");
    assert_eq!(
        nothing["pos"], first["pos"],
        "what says nothing writes nothing"
    );
    alice.send(&made[0], "here").await;
    let moved = connection.ask(wanted.clone()).await;
    assert_eq!(rooms(&moved), [made[0].clone()]);
    assert_eq!(moved["rooms"][&made[0]]["num_live"], 1);
    // A wider window tells the rest alone.
    let wider = connection.ask(lists(list(9, 1, json!([])))).await;
    assert_eq!(rooms(&wider).len(), 2, "{wider}");
}

/// MSC4186, `bump_stamp`: messages move a room up, names don't; the later the greater, whatever lane a room is in.
#[tokio::test(start_paused = true)]
async fn bump_stamps_sort_rooms() {
    let server = Server::start().await;
    let alice = server.register("alice").await;
    let mut made = Vec::new();
    for n in 0..6 {
        made.push(named(&alice, &n.to_string()).await);
    }
    let mut connection = Connection::of(&alice);
    let wanted = lists(list(9, 1, json!([])));
    let all = connection.ask(wanted.clone()).await;
    let stamp = |answer: &Value, room: &String| answer["rooms"][room]["bump_stamp"].as_u64();
    let stamps: Vec<u64> = made.iter().map(|room| stamp(&all, room).unwrap()).collect();
    assert!(
        stamps.windows(2).all(|pair| pair[0] < pair[1]),
        "{stamps:?}"
    );
    alice
        .set_state(&made[1], "m.room.name", "", json!({ "name": "new" }))
        .await;
    let renamed = connection.ask(wanted.clone()).await;
    assert_eq!(renamed["rooms"][&made[1]]["name"], "new");
    assert_eq!(stamp(&renamed, &made[1]), None);
    alice.send(&made[1], "up").await;
    let moved = connection.ask(wanted).await;
    assert!(stamp(&moved, &made[1]) > stamps.last().copied());
}

/// MSC4186, `bump_stamp`: a message moves its room up, also if the clock went back while the server was down.
#[tokio::test(start_paused = true)]
async fn bump_stamps_outlive_the_clock() {
    let server = Server::start().await;
    let alice = server.register("alice").await;
    let room = named(&alice, "Pub").await;
    let wanted = lists(list(9, 1, json!([])));
    let stamp = async |alice: &User| {
        let all = slide(alice, None, wanted.clone(), 0).await;
        all["rooms"][&room]["bump_stamp"].as_u64().unwrap()
    };
    tokio::time::advance(std::time::Duration::from_secs(3_600)).await;
    let alice = server.login("alice").await;
    alice.send(&room, "then").await;
    let then = stamp(&alice).await;
    // The clock of a process begins where that of the one before began.
    let server = server.restarted().await;
    let alice = server.login("alice").await;
    alice.send(&room, "now").await;
    assert!(stamp(&alice).await > then);
}

/// MSC4186, `SlidingRoomFilter`: each filter by itself.
#[tokio::test(start_paused = true)]
async fn lists_are_filtered() {
    let server = Server::start().await;
    let alice = server.register("alice").await;
    let bob = server.register("bob").await;
    let plain = named(&alice, "Plain").await;
    let space = alice
        .create_room(json!({ "name": "Space", "creation_content": { "type": "m.space" } }))
        .await;
    let encrypted = alice
        .create_room(json!({ "name": "Encrypted", "initial_state": [
            { "type": "m.room.encryption", "content": { "algorithm": "m.megolm.v1.aes-sha2" } },
        ] }))
        .await;
    let invited = bob.create_room(json!({ "name": "Invited" })).await;
    bob.invite(&invited, &alice.id).await;
    let child = json!({ "via": ["localhost"] });
    alice
        .set_state(&space, "m.space.child", &plain, child)
        .await;
    let me = encode(&alice.id);
    let direct = json!({ &bob.id: [encrypted] });
    let data = alice.put(format!("{V3}/user/{me}/account_data/m.direct"));
    data.json(direct).send().await.ok();
    let tag = format!("{V3}/user/{me}/rooms/{}/tags/m.favourite", encode(&plain));
    alice.put(tag).json(json!({})).send().await.ok();
    for (filters, mut expected) in [
        (json!({}), vec![&plain, &space, &encrypted, &invited]),
        (json!({ "is_dm": true }), vec![&encrypted]),
        (json!({ "is_dm": false }), vec![&plain, &space, &invited]),
        (json!({ "is_encrypted": true }), vec![&encrypted]),
        (json!({ "is_invite": true }), vec![&invited]),
        (
            json!({ "is_invite": false }),
            vec![&plain, &space, &encrypted],
        ),
        (json!({ "room_types": ["m.space"] }), vec![&space]),
        (
            json!({ "room_types": [null, "m.space"], "not_room_types": ["m.space"] }),
            vec![&plain, &encrypted, &invited],
        ),
        (json!({ "spaces": [space] }), vec![&plain]),
        (json!({ "tags": ["m.favourite"] }), vec![&plain]),
        (
            json!({ "not_tags": ["m.favourite"] }),
            vec![&space, &encrypted, &invited],
        ),
    ] {
        let mut wanted = list(9, 1, json!([]));
        wanted["filters"] = filters.clone();
        let answer = slide(&alice, None, lists(wanted), 0).await;
        expected.sort();
        assert_eq!(
            rooms(&answer).iter().collect::<Vec<_>>(),
            expected,
            "{filters}"
        );
        assert_eq!(answer["lists"]["all"]["count"], expected.len(), "{filters}");
        for room in expected {
            let is_dm = answer["rooms"][room]["is_dm"] == json!(true);
            assert_eq!(is_dm, *room == encrypted, "{filters}");
        }
    }
}

/// MSC4186, Lists: a room that one was invited to, or banned from, and never in holds no place once one knows that it is over; one
/// that one was removed from does.
#[tokio::test(start_paused = true)]
async fn a_room_that_one_was_never_in_holds_no_place() {
    let server = Server::start().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let mine = named(&alice, "Mine").await;
    let banned = named(&bob, "Banned").await;
    bob.ban(&banned, &alice.id).await;
    let withdrawn = bob.create_room(json!({ "invite": [alice.id] })).await;
    let sorted = |mut rooms: Vec<String>| {
        rooms.sort();
        rooms
    };
    let mut connection = Connection::of(&alice);
    let wanted = lists(list(9, 1, json!([])));
    let first = connection.ask(wanted.clone()).await;
    assert_eq!(rooms(&first), sorted(vec![mine.clone(), withdrawn.clone()]));
    assert_eq!(first["lists"]["all"]["count"], 2);
    bob.kick(&withdrawn, &alice.id).await;
    let told = connection.ask(wanted.clone()).await;
    assert_eq!(rooms(&told), [withdrawn]);
    assert!(
        told["rooms"][&rooms(&told)[0]]
            .get("invite_state")
            .is_none()
    );
    let kicked = named(&bob, "Kicked").await;
    alice.join(&kicked).await;
    bob.kick(&kicked, &alice.id).await;
    bob.ban(&kicked, &alice.id).await;
    let told = connection.ask(wanted.clone()).await;
    assert_eq!(told["lists"]["all"]["count"], 2);
    let fresh = slide(&alice, None, wanted, 0).await;
    assert_eq!(rooms(&fresh), sorted(vec![mine, kicked]));
    assert_eq!(fresh["lists"]["all"]["count"], 2);
}

/// The rooms of a space are those that it has now, whoever comes to it and goes; a space that one isn't in has none.
#[tokio::test(start_paused = true)]
async fn a_space_is_what_it_is_now() {
    let server = Server::start().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let (one, two) = (named(&alice, "One").await, named(&alice, "Two").await);
    let space = json!({ "preset": "public_chat", "creation_content": { "type": "m.space" } });
    let space = alice.create_room(space).await;
    let set = async |room: &str, content: Value| {
        alice
            .set_state(&space, "m.space.child", room, content)
            .await;
    };
    let listed = async |user: &User| -> Vec<String> {
        let mut wanted = list(9, 1, json!([]));
        wanted["filters"] = json!({ "spaces": [space] });
        let answer = slide(user, None, lists(wanted), 0).await;
        rooms(&answer)
    };
    let via = json!({ "via": ["localhost"] });
    set(&one, via.clone()).await;
    assert_eq!(listed(&alice).await, std::slice::from_ref(&one));
    bob.join(&one).await;
    assert_eq!(listed(&bob).await, [""; 0]);
    bob.join(&space).await;
    assert_eq!(listed(&bob).await, std::slice::from_ref(&one));
    set(&two, via).await;
    set(&one, json!({})).await;
    assert_eq!(listed(&alice).await, [two]);
    assert_eq!(listed(&bob).await, [""; 0]);
}

/// MSC4186, Room subscriptions: rooms that are subscribed to alike are wanted by the same, however many they are, and so they come to
/// no more than one of them.
#[tokio::test(start_paused = true)]
async fn subscriptions_that_are_alike_count_once() {
    let server = Server::start().await;
    let alice = server.register("alice").await;
    let of_state = |count: usize| {
        let names = (0..count).map(|n| json!([format!("{n:0>60}"), ""]));
        Value::Array(names.chain([json!(["m.room.create", ""])]).collect())
    };
    let config = json!({ "timeline_limit": 1, "required_state": of_state(30) });
    let mut subscriptions = serde_json::Map::new();
    for n in 0..8 {
        let room = named(&alice, &n.to_string()).await;
        subscriptions.insert(room, config.clone());
    }
    let mut wanted = lists(list(9, 1, of_state(400)));
    wanted["room_subscriptions"] = subscriptions.into();
    let answer = slide(&alice, None, wanted, 0).await;
    assert_eq!(rooms(&answer).len(), 8);
    for room in rooms(&answer) {
        let state = state(&answer["rooms"][&room]);
        assert_eq!(state, [("m.room.create".to_owned(), String::new())]);
    }
}
