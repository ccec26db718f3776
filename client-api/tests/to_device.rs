//! Messages to devices (R20.4): <https://spec.matrix.org/v1.19/client-server-api/#send-to-device-messaging>.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use std::ops::Range;

use comity_testkit::{Server, User};
use serde_json::{Value, json};

const SEND: &str = "/_matrix/client/v3/sendToDevice";
const KIND: &str = "org.example.message";

/// Sends a numbered message to a device of a user.
async fn tell(from: &User, to: &str, device: &str, n: u64) {
    let messages = json!({ "messages": { to: { device: { "n": n } } } });
    let path = format!("{SEND}/{KIND}/{}", from.transaction());
    let _: Value = from.put(path).json(messages).send().await.ok();
}

/// The numbers of the messages in an answer.
fn numbers(answer: &Value) -> Vec<u64> {
    let events = answer["to_device"]["events"].as_array();
    let events = events.into_iter().flatten();
    events
        .map(|event| event["content"]["n"].as_u64().unwrap())
        .collect()
}

/// The messages since a token, and the next.
async fn after(user: &User, since: &str) -> (Vec<u64>, String) {
    let answer = user.sync(Some(since)).await;
    (numbers(&answer), token(&answer))
}

fn token(answer: &Value) -> String {
    answer["next_batch"].as_str().unwrap().to_owned()
}

async fn now(user: &User) -> String {
    token(&user.sync(None).await)
}

/// A message comes to its device, whole, in order, once; the same token gives the same again, until its successor is used.
#[tokio::test(start_paused = true)]
async fn messages_come_once_and_in_order() {
    let server = Server::start().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let other = server.login("bob").await;
    let (start, others) = (now(&bob).await, now(&other).await);
    for n in 0..3 {
        tell(&alice, &bob.id, &bob.device, n).await;
    }
    let answer = bob.sync(Some(&start)).await;
    assert_eq!(numbers(&answer), [0, 1, 2]);
    let first = &answer["to_device"]["events"][0];
    let whole = json!({ "sender": alice.id, "type": KIND, "content": { "n": 0 } });
    assert_eq!(*first, whole);
    let next = token(&answer);
    tell(&alice, &bob.id, &bob.device, 3).await;
    assert_eq!(
        after(&bob, &start).await.0,
        [0, 1, 2, 3],
        "lost answers are given again"
    );
    let (came, last) = after(&bob, &next).await;
    assert_eq!(came, [3]);
    assert_eq!(after(&bob, &last).await.0, [0; 0]);
    assert_eq!(
        numbers(&bob.sync(None).await),
        [0; 0],
        "what a device has is gone"
    );
    assert_eq!(
        after(&other, &others).await.0,
        [0; 0],
        "they were to another device"
    );
}

/// A sync that waits is woken; `*` is all devices of a user, one's own included.
#[tokio::test(start_paused = true)]
async fn messages_wake_and_go_to_all_devices() {
    let server = Server::start().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let other = server.login("bob").await;
    for from in [&alice, &bob] {
        let (since, others) = (now(&bob).await, now(&other).await);
        let waiting = bob.sync_request(Some(&since)).query("timeout", "60000");
        let (answer, ()) = tokio::join!(waiting.send(), tell(from, &bob.id, "*", 7));
        assert_eq!(numbers(&answer.ok()), [7]);
        assert_eq!(after(&other, &others).await.0, [7]);
    }
}

/// The same transaction again does nothing, over a restart too; another device's of the same id is another.
#[tokio::test(start_paused = true)]
async fn a_transaction_counts_once() {
    let server = Server::start().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let twin = server.login("alice").await;
    let since = now(&bob).await;
    let send = async |client: &comity_testkit::Client, token: &str, n: u64| {
        let body = json!({ "messages": { &bob.id: { &bob.device: { "n": n } } } });
        let request = client.put(format!("{SEND}/{KIND}/same")).token(token);
        let _: Value = request.json(body).send().await.ok();
    };
    send(&server, &alice.token, 1).await;
    send(&server, &alice.token, 2).await;
    send(&server, &twin.token, 3).await;
    assert_eq!(after(&bob, &since).await.0, [1, 3]);
    let server = server.restarted().await;
    send(&server, &alice.token, 4).await;
    let again = server.with_token(&bob.token).get("/_matrix/client/v3/sync");
    let answer = again.query("since", &since).send().await.ok();
    assert_eq!(
        numbers(&answer),
        [1, 3],
        "what was given and not acknowledged is there after a crash"
    );
}

/// At most 100 an answer; each goes on where the last ended, while rooms are told whole.
#[tokio::test(start_paused = true)]
async fn a_hundred_a_sync() {
    let server = Server::start().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = bob.create_room(json!({})).await;
    let mut since = now(&bob).await;
    for n in 0..250 {
        tell(&alice, &bob.id, &bob.device, n).await;
    }
    let event = bob.send(&room, "at the end").await;
    let mut came = Vec::new();
    for expected in [100, 100, 50, 0] {
        let answer = bob.sync(Some(&since)).await;
        let timeline = &answer["rooms"]["join"][&room]["timeline"]["events"];
        assert_eq!(timeline[0]["event_id"] == event.as_str(), came.is_empty());
        since = token(&answer);
        let numbers = numbers(&answer);
        assert_eq!(numbers.len(), expected);
        came.extend(numbers);
    }
    assert!(came.into_iter().eq(0..250));
    assert_eq!(numbers(&bob.sync(None).await), [0; 0]);
}

/// Architecture, Sync: a key is in its queue when its sender learns so, whichever lanes the two users and the room are in; so it comes
/// no later than the message it opens.
#[tokio::test(start_paused = true)]
async fn keys_come_no_later_than_the_message_they_open() {
    let server = Server::start().await;
    let bob = server.register("bob").await;
    let mut since = now(&bob).await;
    for n in 0..12 {
        let sender = server.register(&format!("sender{n}")).await;
        let room = sender.create_room(json!({ "preset": "public_chat" })).await;
        bob.join(&room).await;
        since = after(&bob, &since).await.1;
        let listen = async {
            let (mut since, mut had_key) = (since.clone(), false);
            loop {
                let waiting = bob.sync_request(Some(&since)).query("timeout", "60000");
                let answer = waiting.send().await.ok();
                since = token(&answer);
                had_key |= numbers(&answer) == [n];
                let timeline = &answer["rooms"]["join"][&room]["timeline"]["events"];
                if timeline[0]["type"] == "m.room.message" {
                    return (since, had_key);
                }
            }
        };
        let speak = async {
            tell(&sender, &bob.id, &bob.device, n).await;
            sender.send(&room, "opened by that key").await
        };
        let ((next, had_key), _) = tokio::join!(listen, speak);
        assert!(had_key, "lanes of sender {n}");
        since = next;
    }
}

/// The older ways to listen give no messages, and take none away.
#[tokio::test(start_paused = true)]
async fn only_sync_gives_messages() {
    let server = Server::start().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    tell(&alice, &bob.id, &bob.device, 1).await;
    let initial = bob.get("/_matrix/client/v3/initialSync").send().await.ok();
    assert!(initial.get("to_device").is_none());
    let events = bob.get("/_matrix/client/v3/events");
    let events = events.query("timeout", "0").send().await.ok();
    let end = events["end"].as_str().unwrap();
    assert_eq!(after(&bob, end).await.0, [1]);
}

/// Threat F2: for users who aren't there, or no more, and devices that aren't, nothing is kept; the others get theirs.
#[tokio::test(start_paused = true)]
async fn f2_nothing_is_kept_for_nobody() {
    let server = Server::start().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let gone = server.register("gone").await;
    server.api.deactivate(&gone.id, false).await.unwrap();
    let since = now(&bob).await;
    let body = json!({ "messages": {
        "@nobody:localhost": { "*": { "n": 1 }, "D": { "n": 1 } },
        &gone.id: { "*": { "n": 2 }, &gone.device: { "n": 2 } },
        &bob.id: { "NODEVICE": { "n": 3 }, &bob.device: { "n": 4 } },
    } });
    let path = format!("{SEND}/{KIND}/{}", alice.transaction());
    let _: Value = alice.put(path).json(body).send().await.ok();
    assert_eq!(after(&bob, &since).await.0, [4]);
    let rows = rows(&server).await;
    assert_eq!(rows, 1, "there is a row for the one device");
}

async fn rows(server: &Server) -> usize {
    use comity_storage::Range;
    let reader = server.api.rooms.tenant().reader();
    let rows = reader.scan::<comity_to_device::tables::Queues>(Range::everywhere(|_| {}));
    rows.await.unwrap().len()
}

/// Threat F3: what is too large is refused whole, with its code, and so is what isn't a message; a queue holds so much and no more,
/// keeps what it had, and half of it isn't one sender's.
#[tokio::test(start_paused = true)]
async fn f3_payloads_and_queues_are_bounded() {
    let server = Server::start().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let since = now(&bob).await;
    let large = "x".repeat(64 << 10);
    let servers: serde_json::Map<_, _> = (0..=1_000)
        .map(|n| (format!("@a:x{n}.test"), json!({ "D": {} })))
        .collect();
    let path = format!("{SEND}/{KIND}/{}", alice.transaction());
    let scattered = alice.put(path).json(json!({ "messages": servers }));
    scattered.send().await.error(413, "M_TOO_LARGE");
    let many: serde_json::Map<_, _> = (0..10_001).map(|n| (format!("D{n}"), json!({}))).collect();
    for (kind, devices, status, code) in [
        (
            KIND,
            json!({ &bob.device: { "text": large } }),
            413,
            "M_TOO_LARGE",
        ),
        (KIND, json!(many), 413, "M_TOO_LARGE"),
        (KIND, json!({ &bob.device: "text" }), 400, "M_INVALID_PARAM"),
        (KIND, json!({ &large[..256]: {} }), 400, "M_INVALID_PARAM"),
        (
            &large[..256],
            json!({ &bob.device: {} }),
            400,
            "M_INVALID_PARAM",
        ),
    ] {
        let body = json!({ "messages": { &bob.id: devices, &alice.id: { "*": {} } } });
        let path = format!("{SEND}/{kind}/{}", alice.transaction());
        alice.put(path).json(body).send().await.error(status, code);
    }
    let bad = json!({ "messages": { "bob": { "*": {} } } });
    let path = format!("{SEND}/{KIND}/{}", alice.transaction());
    alice
        .put(path)
        .json(bad)
        .send()
        .await
        .error(400, "M_BAD_JSON");
    assert_eq!(rows(&server).await, 0);

    let text = "x".repeat(60_000);
    let flood = async |from: &User, numbers: Range<u64>| {
        for n in numbers {
            let body =
                json!({ "messages": { &bob.id: { &bob.device: { "n": n, "text": text } } } });
            let path = format!("{SEND}/{KIND}/{}", from.transaction());
            let _: Value = from.put(path).json(body).send().await.ok();
        }
    };
    let most = |bytes: usize| bytes / 60_100;
    flood(&alice, 0..400).await;
    let hers = rows(&server).await;
    assert_eq!(
        hers,
        most(16 << 20) + most((32 << 20) / 10),
        "half, and a tenth"
    );
    for n in 0..6_u64 {
        let other = server.register(&format!("other{n}")).await;
        flood(&other, 400..460).await;
    }
    let kept = rows(&server).await;
    assert_eq!(kept, most(32 << 20), "32 MB of messages");
    let (first, next) = after(&bob, &since).await;
    assert!(first.into_iter().eq(0..100));
    // What is taken makes room, though not for who has had their share as long as that is there.
    let (_, _) = after(&bob, &next).await;
    flood(&alice, 1_000..1_001).await;
    assert_eq!(rows(&server).await, kept - 100);
    let late = server.register("late").await;
    flood(&late, 1_000..1_001).await;
    assert_eq!(rows(&server).await, kept - 100 + 1);
}

/// Ids are forgotten when nobody repeats them any more.
#[tokio::test(start_paused = true)]
async fn transactions_are_forgotten_after_a_day() {
    use comity_storage::Range;
    let server = Server::start().await;
    let alice = server.register("alice").await;
    let tenant = server.api.rooms.tenant().clone();
    let count = async || {
        let reader = tenant.reader();
        let rows = reader.scan::<comity_to_device::tables::Txns>(Range::everywhere(|_| {}));
        rows.await.unwrap().len()
    };
    tell(&alice, &alice.id, &alice.device, 1).await;
    server.api.to_device.tend().await.unwrap();
    assert_eq!(count().await, 1);
    tokio::time::sleep(std::time::Duration::from_secs(3 * 24 * 60 * 60)).await;
    server.api.to_device.tend().await.unwrap();
    assert_eq!(count().await, 0);
}

/// A device's queue goes with it; one that comes under its id later has its own.
#[tokio::test(start_paused = true)]
async fn a_queue_goes_with_its_device() {
    let server = Server::start().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let gone = server.login("bob").await;
    for n in 0..3 {
        tell(&alice, &bob.id, "*", n).await;
    }
    assert_eq!(rows(&server).await, 6);
    let _: Value = gone
        .post("/_matrix/client/v3/logout")
        .json(json!({}))
        .send()
        .await
        .ok();
    assert_eq!(rows(&server).await, 3);
    let again = json!({
        "type": "m.login.password",
        "identifier": { "type": "m.id.user", "user": "bob" },
        "password": comity_testkit::password("bob"),
        "device_id": gone.device,
    });
    let login = server.post("/_matrix/client/v3/login").json(again);
    let token = login.send().await.ok()["access_token"].clone();
    let again = server.with_token(token.as_str().unwrap());
    let sync = again.get("/_matrix/client/v3/sync").send().await.ok();
    assert_eq!(numbers(&sync), [0; 0]);
    assert_eq!(numbers(&bob.sync(None).await), [0, 1, 2]);
    server.api.deactivate(&bob.id, false).await.unwrap();
    assert_eq!(rows(&server).await, 0);
}
