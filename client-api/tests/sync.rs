//! `/sync` and the ways of before: what is asked for in the query, and what ends a poll.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use comity_protocol::id::{OwnedUserId, UserId};
use comity_rooms::{CreateRoom, Preset, Profile};
use comity_testkit::{Server, User, encode};
use serde_json::{Value, json};

async fn room(server: &Server, creator: &User) -> String {
    let request = CreateRoom {
        preset: Some(Preset::Public),
        ..CreateRoom::default()
    };
    let creator: OwnedUserId = UserId::parse(creator.id.as_str()).unwrap();
    let rooms = &server.api.rooms;
    let made = rooms
        .create_room(&creator, &Profile::default(), request)
        .await;
    made.unwrap().to_string()
}

/// Filters are stored, named and given inline; malformed ones are refused.
#[tokio::test(start_paused = true)]
async fn a_filter_is_named_or_inline() {
    let server = Server::start().await;
    let alice = server.register("alice").await;
    let room = room(&server, &alice).await;
    alice.send(&room, "hello").await;
    let filters = format!("/_matrix/client/v3/user/{}/filter", encode(&alice.id));
    let filter = json!({ "room": { "timeline": { "types": ["m.room.message"] } } });
    let stored = alice.post(filters.clone()).json(&filter).send().await.ok();
    let id = stored["filter_id"].as_str().unwrap();
    let again = alice.get(format!("{filters}/{id}")).send().await.ok();
    assert_eq!(again, filter);
    for filter in [id, &filter.to_string()] {
        let answer = alice.sync_request(None).query("filter", filter);
        let answer = answer.send().await.ok();
        let timeline = &answer["rooms"]["join"][&room]["timeline"]["events"];
        assert_eq!(timeline.as_array().unwrap().len(), 1);
    }
    let bad = json!({ "room": { "timeline": "text" } });
    let refused = alice.post(filters).json(bad).send().await;
    refused.error(400, "M_BAD_JSON");
    let refused = alice.sync_request(Some("nonsense")).send().await;
    refused.error(400, "M_INVALID_PARAM");
}

/// <https://spec.matrix.org/v1.19/client-server-api/#typing-notifications>: whoever was shown that somebody types when the server
/// ended is told that they don't, once, and nobody else is.
#[tokio::test(start_paused = true)]
async fn a_restart_ends_typing() {
    let server = Server::start().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let made = room(&server, &alice).await;
    bob.join(&made).await;
    let before = alice.sync(None).await;
    let types = async |typing: bool| {
        let (room, bob_id) = (encode(&made), encode(&bob.id));
        let path = format!("/_matrix/client/v3/rooms/{room}/typing/{bob_id}");
        let body = json!({ "typing": typing, "timeout": 60_000 });
        let _ = bob.put(path).json(body).send().await.ok();
    };
    types(true).await;
    let shown = alice.sync(before["next_batch"].as_str()).await;
    types(false).await;
    let over = alice.sync(shown["next_batch"].as_str()).await;
    let again = server.restarted().await;
    let alice = again.with_token(&alice.token);
    let told = async |since: &Value| -> (Value, Value) {
        let sync = alice.get("/_matrix/client/v3/sync");
        let sync = sync.query("since", since.as_str().unwrap());
        let answer = sync.query("timeout", "0").send().await.ok();
        let ephemeral = &answer["rooms"]["join"][&made]["ephemeral"]["events"];
        let mut events = ephemeral.as_array().into_iter().flatten();
        let typing = events.find(|event| event["type"] == "m.typing");
        let users = typing.map(|typing| typing["content"]["user_ids"].clone());
        (users.unwrap_or_default(), answer["next_batch"].clone())
    };
    let (users, next) = told(&shown["next_batch"]).await;
    assert_eq!(users, json!([]));
    assert_eq!(told(&next).await.0, Value::Null);
    for nobody in [&before, &over] {
        assert_eq!(told(&nobody["next_batch"]).await.0, Value::Null);
    }
}

/// Threat B3: a poll ends with its session.
#[tokio::test(start_paused = true)]
async fn a_poll_ends_with_its_session() {
    let server = Server::start().await;
    let alice = server.register("alice").await;
    let phone = server.login("alice").await;
    let since = phone.sync(None).await["next_batch"]
        .as_str()
        .unwrap()
        .to_owned();
    let poll = phone.sync_request(Some(&since)).query("timeout", "60000");
    let logout = alice.post("/_matrix/client/v3/logout/all").json(json!({}));
    let (polled, _) = tokio::join!(poll.send(), logout.send());
    polled.error(401, "M_UNKNOWN_TOKEN");
}

/// The ways of before `/sync` tell the same.
#[tokio::test(start_paused = true)]
async fn the_old_ways_still_lead_there() {
    let server = Server::start().await;
    let alice = server.register("alice").await;
    let room = room(&server, &alice).await;
    let all = alice
        .get("/_matrix/client/v3/initialSync")
        .send()
        .await
        .ok();
    assert_eq!(all["rooms"][0]["membership"], "join");
    let from = all["end"].as_str().unwrap();
    let sent = alice.send(&room, "news").await;
    let events = alice.get("/_matrix/client/v3/events").query("from", from);
    let events = events.send().await.ok();
    assert_eq!(events["chunk"][0]["event_id"], sent);
    let one = format!("/_matrix/client/v3/events/{}", encode(&sent));
    let one = alice.get(one).send().await.ok();
    assert_eq!(one["room_id"], room);
}

/// Filtering, `event_fields`: of the events of rooms only what is wanted of their content, and no `unsigned`.
#[tokio::test(start_paused = true)]
async fn events_have_the_fields_wanted() {
    let server = Server::start().await;
    let alice = server.register("alice").await;
    let room = room(&server, &alice).await;
    let content = json!({ "msgtype": "m.text", "body": "hello" });
    let id = alice.send_event(&room, "org.example.note", content).await;
    let filter = json!({
        "event_fields": ["content.body", "content.membership"],
        "room": { "timeline": { "limit": 1 }, "state": { "types": ["m.room.member"] } },
    });
    let sync = alice
        .sync_request(None)
        .query("filter", &filter.to_string());
    let sync = sync.send().await.ok();
    let joined = &sync["rooms"]["join"][&room];
    let message = &joined["timeline"]["events"][0];
    assert_eq!(message["content"], json!({ "body": "hello" }));
    assert!(message.get("unsigned").is_none());
    assert_eq!(message["event_id"], id.as_str());
    let state = joined["state"]["events"].as_array().unwrap();
    let own = state.iter().find(|event| event["type"] == "m.room.member");
    assert_eq!(own.unwrap()["content"], json!({ "membership": "join" }));
}

fn ids_of(state: &Value) -> Vec<&str> {
    let events = state["events"].as_array().unwrap().iter();
    events
        .map(|event| event["event_id"].as_str().unwrap())
        .collect()
}

/// Threat E3: who has left and is banned later sees in the leave section the state at their leave, from a
/// sync that knew the room and from a fresh one.
#[tokio::test(start_paused = true)]
async fn a_later_ban_shows_nothing_of_what_came_between() {
    let server = Server::start().await;
    let alice = server.register("alice").await;
    let bob = server.register("bob").await;
    let room = room(&server, &alice).await;
    bob.join(&room).await;
    let name = alice
        .set_state(&room, "m.room.name", "", json!({ "name": "then" }))
        .await;
    let since = bob.sync(None).await["next_batch"]
        .as_str()
        .unwrap()
        .to_owned();
    bob.leave(&room).await;
    let left = bob.sync(Some(&since)).await["next_batch"]
        .as_str()
        .unwrap()
        .to_owned();
    let later = alice
        .set_state(&room, "m.room.name", "", json!({ "name": "now" }))
        .await;
    let topic = alice
        .set_state(&room, "m.room.topic", "", json!({ "topic": "now" }))
        .await;
    alice.ban(&room, &bob.id).await;
    let filter = json!({ "room": { "include_leave": true } }).to_string();
    for since in [None, Some(since.as_str()), Some(left.as_str())] {
        let sync = bob
            .sync_request(since)
            .query("filter", &filter)
            .query("full_state", "true");
        let sync = sync.send().await.ok();
        let section = &sync["rooms"]["leave"][&room];
        let told = section.to_string();
        assert!(
            !told.contains(&later) && !told.contains(&topic),
            "{since:?} {told}"
        );
        if since.is_none() {
            let seen = ids_of(&section["state"]).contains(&name.as_str())
                || ids_of(&section["timeline"]).contains(&name.as_str());
            assert!(seen, "{told}");
        }
    }
}

/// Whoever takes a knock back learns of that, and not of the knock again.
#[tokio::test(start_paused = true)]
async fn a_knock_taken_back_is_not_told_again() {
    let server = Server::start().await;
    let alice = server.register("alice").await;
    let bob = server.register("bob").await;
    let open = json!({ "initial_state": [
        { "type": "m.room.join_rules", "content": { "join_rule": "knock" } },
    ] });
    let room = alice.create_room(open).await;
    let knock = bob.post(format!("/_matrix/client/v3/knock/{}", encode(&room)));
    knock.json(json!({})).send().await.ok();
    let sync = bob.sync(None).await;
    assert!(sync["rooms"]["knock"][&room].is_object(), "{sync}");
    bob.leave(&room).await;
    let sync = bob.sync(sync["next_batch"].as_str()).await;
    let events = sync["rooms"]["leave"][&room]["timeline"]["events"].as_array();
    let told: Vec<&str> = events
        .unwrap()
        .iter()
        .filter_map(|event| event["content"]["membership"].as_str())
        .collect();
    assert_eq!(told, ["leave"], "{sync}");
}

/// Lazy-loading: a member told in an answer that was lost is told again.
#[tokio::test(start_paused = true)]
async fn members_of_a_lost_answer_are_told_again() {
    let server = Server::start().await;
    let alice = server.register("alice").await;
    let bob = server.register("bob").await;
    let room = room(&server, &alice).await;
    bob.join(&room).await;
    // A room with a name needs nobody to name it.
    alice
        .set_state(&room, "m.room.name", "", json!({ "name": "Pub" }))
        .await;
    for n in 0..5 {
        alice.send(&room, &n.to_string()).await;
    }
    let filter =
        json!({ "room": { "state": { "lazy_load_members": true }, "timeline": { "limit": 2 } } })
            .to_string();
    let sync = async |since: Option<&str>| {
        let sync = alice
            .sync_request(since)
            .query("filter", &filter)
            .query("timeout", "0");
        sync.send().await.ok()
    };
    let tells_bob = |answer: &Value| {
        let state = &answer["rooms"]["join"][&room]["state"]["events"];
        state
            .as_array()
            .into_iter()
            .flatten()
            .any(|event| event["state_key"] == bob.id.as_str())
    };
    let token = |answer: &Value| answer["next_batch"].as_str().unwrap().to_owned();
    let first = sync(None).await;
    assert!(!tells_bob(&first));
    bob.send(&room, "here").await;
    let lost = sync(Some(&token(&first))).await;
    assert!(tells_bob(&lost));
    let again = sync(Some(&token(&first))).await;
    assert!(tells_bob(&again));
    // The client has come back from there: told once is enough.
    bob.send(&room, "again").await;
    assert!(!tells_bob(&sync(Some(&token(&again))).await));
}

/// What happens while a user's rooms are read for the first time is missed by no sync.
#[tokio::test(start_paused = true)]
async fn a_first_sync_beside_a_join_misses_nothing() {
    let server = Server::start().await;
    let alice = server.register("alice").await;
    let room = room(&server, &alice).await;
    for n in 0..8 {
        let user = server.register(&format!("user{n}")).await;
        let (first, second, _) = tokio::join!(
            user.sync(None),
            async {
                for _ in 0..n {
                    tokio::task::yield_now().await;
                }
                user.sync(None).await
            },
            async {
                for _ in 0..2 * n {
                    tokio::task::yield_now().await;
                }
                user.join(&room).await
            },
        );
        for answer in [first, second] {
            let seen = answer["rooms"]["join"].get(&room).is_some();
            let next = user.sync(answer["next_batch"].as_str()).await;
            let news = next["rooms"]["join"].get(&room).is_some();
            assert!(seen || news, "{n}");
        }
        let fresh = user.sync(None).await;
        assert!(fresh["rooms"]["join"].get(&room).is_some());
        let since = fresh["next_batch"].as_str().unwrap().to_owned();
        alice.send(&room, "news").await;
        let news = user.sync(Some(&since)).await;
        assert!(news["rooms"]["join"].get(&room).is_some());
    }
}

/// <https://spec.matrix.org/v1.19/client-server-api/#syncing>: a room joined since the last answer begins with a gap, however little
/// came before, for that is history; one that was there goes on without.
#[tokio::test(start_paused = true)]
async fn a_room_joined_since_begins_with_a_gap() {
    let server = Server::start().await;
    let alice = server.register("alice").await;
    let bob = server.register("bob").await;
    let room = room(&server, &alice).await;
    let before = bob.sync(None).await;
    bob.join(&room).await;
    let limited =
        |answer: &Value| answer["rooms"]["join"][&room]["timeline"]["limited"] == json!(true);
    let joined = bob.sync(before["next_batch"].as_str()).await;
    assert!(limited(&joined), "{joined}");
    alice.send(&room, "on").await;
    let later = bob.sync(joined["next_batch"].as_str()).await;
    assert!(!limited(&later), "{later}");
}

/// Threads count by themselves for who asks for it, and with the room's for who doesn't; a receipt in one reads it alone.
///
/// <https://spec.matrix.org/v1.19/client-server-api/#calculating-the-unread-notification-counts>
#[tokio::test(start_paused = true)]
async fn threads_count_by_themselves() {
    let server = Server::start().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = room(&server, &alice).await;
    bob.join(&room).await;
    let root = alice.send(&room, "What shall we eat?").await;
    let reply = async |body: &str| {
        let content = json!({
            "msgtype": "m.text", "body": body, "m.mentions": { "user_ids": [alice.id] },
            "m.relates_to": { "rel_type": "m.thread", "event_id": root },
        });
        bob.send_event(&room, "m.room.message", content).await
    };
    reply("Soup").await;
    let latest = reply("Or salad").await;
    bob.send(&room, "Elsewhere").await;
    let counts = async |by_thread: bool| {
        let filter =
            json!({ "room": { "timeline": { "unread_thread_notifications": by_thread } } });
        let sync = alice
            .sync_request(None)
            .query("filter", &filter.to_string());
        let sync = sync.send().await.ok();
        let joined = &sync["rooms"]["join"][&room];
        let threads = joined.get("unread_thread_notifications").cloned();
        (joined["unread_notifications"].clone(), threads)
    };
    let count =
        |all: u32, mentions: u32| json!({ "notification_count": all, "highlight_count": mentions });
    assert_eq!(counts(false).await, (count(3, 2), None));
    let threads = Some(json!({ &root: count(2, 2) }));
    assert_eq!(counts(true).await, (count(1, 0), threads));
    let receipt = format!(
        "/_matrix/client/v3/rooms/{}/receipt/m.read/{}",
        encode(&room),
        encode(&latest)
    );
    let receipt = alice.post(receipt).json(json!({ "thread_id": root }));
    receipt.send().await.ok();
    assert_eq!(counts(true).await, (count(1, 0), None));
    assert_eq!(counts(false).await, (count(1, 0), None));
}

/// `state_after` is the state at the timeline's end, with what changed in the timeline, in place of `state`.
///
/// <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3sync>
#[tokio::test(start_paused = true)]
async fn the_state_after_a_timeline() {
    let server = Server::start().await;
    let alice = server.register("alice").await;
    let room = room(&server, &alice).await;
    let since = alice.sync(None).await["next_batch"].clone();
    let topic = json!({ "topic": "Soup" });
    let topic = alice.set_state(&room, "m.room.topic", "", topic).await;
    alice.send(&room, "Good morning").await;
    for limit in [1, 10] {
        let filter = json!({ "room": { "timeline": { "limit": limit } } }).to_string();
        let sync = alice.sync_request(since.as_str()).query("filter", &filter);
        let sync = sync.query("use_state_after", "true").send().await.ok();
        let joined = &sync["rooms"]["join"][&room];
        assert_eq!(ids_of(&joined["state_after"]), [topic.as_str()], "{limit}");
        assert!(joined.get("state").is_none());
    }
}

/// One receipt of a user fits beside an event: the one for all of the room (MSC4102, a draft).
#[tokio::test(start_paused = true)]
async fn a_receipt_for_the_whole_room_is_shown_first() {
    let server = Server::start().await;
    let alice = server.register("alice").await;
    let room = room(&server, &alice).await;
    let event = alice.send(&room, "Good morning").await;
    let path = format!(
        "/_matrix/client/v3/rooms/{}/receipt/m.read/{}",
        encode(&room),
        encode(&event)
    );
    for thread in [json!({}), json!({ "thread_id": "main" })] {
        alice.post(path.clone()).json(thread).send().await.ok();
    }
    let sync = alice.sync(None).await;
    let events = &sync["rooms"]["join"][&room]["ephemeral"]["events"];
    let events = events.as_array().unwrap().iter();
    let receipts = events.filter(|event| event["type"] == "m.receipt");
    let told: Vec<&Value> = receipts
        .map(|receipts| &receipts["content"][&event]["m.read"][&alice.id])
        .collect();
    assert_eq!(told.len(), 1);
    assert!(told[0]["ts"].is_u64() && told[0].get("thread_id").is_none());
}
