//! What is told of a room.

use comity_testkit::{Server, User, encode};
use serde_json::json;

use crate::{Connection, V3, bodies, list, lists, named, rooms, slide, state};

/// MSC4186, `required_state` of the older dialect: names, `$ME`, `$LAZY`, stars; told when it changes and when it is first wanted.
#[tokio::test(start_paused = true)]
async fn state_is_told_as_it_is_wanted() {
    let server = Server::start().await;
    let alice = server.register("alice").await;
    let bob = server.register("bob").await;
    let room = named(&alice, "Pub").await;
    bob.join(&room).await;
    for n in 0..3 {
        alice.send(&room, &n.to_string()).await;
    }
    let mut connection = Connection::of(&alice);
    let member = |user: &User| ("m.room.member".to_owned(), user.id.clone());
    let name = ("m.room.name".to_owned(), String::new());
    let wanted = json!([["m.room.name", ""], ["m.room.member", "$ME"]]);
    let first = connection.ask(lists(list(0, 1, wanted.clone()))).await;
    assert_eq!(
        state(&first["rooms"][&room]),
        [member(&alice), name.clone()]
    );
    alice
        .set_state(&room, "m.room.topic", "", json!({ "topic": "not wanted" }))
        .await;
    alice
        .set_state(&room, "m.room.name", "", json!({ "name": "Bar" }))
        .await;
    let changed = connection.ask(lists(list(0, 1, wanted))).await;
    assert_eq!(state(&changed["rooms"][&room]), [name]);
    // Wanted for the first time, it is told at once.
    let lazy = json!([
        ["m.room.name", ""],
        ["m.room.topic", ""],
        ["m.room.member", "$LAZY"]
    ]);
    let wider = connection.ask(lists(list(0, 1, lazy.clone()))).await;
    assert_eq!(
        state(&wider["rooms"][&room]),
        [("m.room.topic".to_owned(), String::new())]
    );
    // Who speaks is told, once.
    bob.send(&room, "hello").await;
    let spoken = connection.ask(lists(list(0, 1, lazy.clone()))).await;
    assert_eq!(state(&spoken["rooms"][&room]), [member(&bob)]);
    bob.send(&room, "again").await;
    let again = connection.ask(lists(list(0, 1, lazy.clone()))).await;
    assert_eq!(state(&again["rooms"][&room]), []);
    assert_eq!(bodies(&again["rooms"][&room]), ["again"]);
    let everything = slide(&alice, None, lists(list(0, 1, json!([["*", "*"]]))), 0).await;
    let everything = state(&everything["rooms"][&room]);
    assert!(everything.contains(&member(&alice)) && everything.contains(&member(&bob)));
}

/// MSC4186, Changes to `timeline_limit`: a subscription that wants more of a room gets it at once, and is told so.
#[tokio::test(start_paused = true)]
async fn a_greater_limit_reaches_back() {
    let server = Server::start().await;
    let alice = server.register("alice").await;
    let room = named(&alice, "Pub").await;
    for n in 0..4 {
        alice.send(&room, &n.to_string()).await;
    }
    let mut connection = Connection::of(&alice);
    let wanted = lists(list(0, 1, json!([])));
    let first = connection.ask(wanted.clone()).await;
    assert_eq!(bodies(&first["rooms"][&room]), ["3"]);
    let mut subscribed = wanted.clone();
    subscribed["room_subscriptions"][&room] = json!({ "timeline_limit": 3, "required_state": [] });
    let more = connection.ask(subscribed.clone()).await;
    assert_eq!(bodies(&more["rooms"][&room]), ["1", "2", "3"]);
    assert_eq!(more["rooms"][&room]["unstable_expanded_timeline"], true);
    assert_eq!(more["rooms"][&room]["num_live"], 0);
    alice.send(&room, "4").await;
    let next = connection.ask(wanted).await;
    assert_eq!(bodies(&next["rooms"][&room]), ["4"]);
    let nothing = connection.ask(subscribed).await;
    assert!(rooms(&nothing).is_empty(), "it has had those: {nothing}");
}

/// MSC4186, `heroes`: a room without a name has them, though it have an alias, for which the client may not have asked.
#[tokio::test(start_paused = true)]
async fn a_room_without_a_name_has_heroes() {
    let server = Server::start().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = json!({ "preset": "public_chat", "room_alias_name": "here" });
    let room = alice.create_room(room).await;
    bob.join(&room).await;
    let wanted = lists(list(0, 1, json!([])));
    let unnamed = slide(&alice, None, wanted.clone(), 0).await;
    assert_eq!(unnamed["rooms"][&room]["heroes"][0]["user_id"], bob.id);
    let name = json!({ "name": "Here" });
    alice.set_state(&room, "m.room.name", "", name).await;
    let named = slide(&alice, None, wanted, 0).await;
    assert!(named["rooms"][&room].get("heroes").is_none(), "{named}");
}

/// An invite has stripped state alone; accepted it is a room, told from the beginning; declined it is gone.
#[tokio::test(start_paused = true)]
async fn invites_are_stripped() {
    let server = Server::start().await;
    let alice = server.register("alice").await;
    let bob = server.register("bob").await;
    let room = alice.create_room(json!({ "name": "Secret" })).await;
    alice.send(&room, "before").await;
    alice.invite(&room, &bob.id).await;
    let mut connection = Connection::of(&bob);
    let wanted = lists(list(9, 5, json!([["*", "*"]])));
    let answer = connection.ask(wanted.clone()).await;
    let invite = &answer["rooms"][&room];
    assert_eq!(invite["initial"], true);
    assert!(!invite["invite_state"].as_array().unwrap().is_empty());
    for hidden in [
        "timeline",
        "required_state",
        "name",
        "joined_count",
        "prev_batch",
    ] {
        assert!(invite.get(hidden).is_none(), "{hidden}: {invite}");
    }
    bob.join(&room).await;
    let answer = connection.ask(wanted.clone()).await;
    assert_eq!(answer["rooms"][&room]["initial"], true);
    assert_eq!(answer["rooms"][&room]["name"], "Secret");
    assert!(answer["rooms"][&room].get("invite_state").is_none());
    let other = alice.create_room(json!({ "invite": [bob.id] })).await;
    let answer = connection.ask(wanted.clone()).await;
    assert_eq!(rooms(&answer), std::slice::from_ref(&other));
    bob.leave(&other).await;
    let answer = connection.ask(wanted.clone()).await;
    assert_eq!(rooms(&answer), [other]);
    let answer = connection.ask(wanted).await;
    assert!(rooms(&answer).is_empty());
    assert_eq!(answer["lists"]["all"]["count"], 1);
}

/// Unread counts come with what makes them, and go when they are read, though nothing else happens.
#[tokio::test(start_paused = true)]
async fn unread_counts_are_told_when_they_change() {
    let server = Server::start().await;
    let alice = server.register("alice").await;
    let bob = server.register("bob").await;
    let room = named(&alice, "Pub").await;
    bob.join(&room).await;
    let mut connection = Connection::of(&alice);
    let wanted = lists(list(9, 5, json!([])));
    connection.ask(wanted.clone()).await;
    let event = bob.send(&room, "unread").await;
    let unread = connection.ask(wanted.clone()).await;
    assert_eq!(unread["rooms"][&room]["notification_count"], 1);
    let receipt = format!(
        "{V3}/rooms/{}/receipt/m.read/{}",
        encode(&room),
        encode(&event)
    );
    alice.post(receipt).json(json!({})).send().await.ok();
    let read = connection.ask(wanted).await;
    assert_eq!(read["rooms"][&room]["notification_count"], 0);
}
