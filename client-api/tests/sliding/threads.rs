//! MSC4360, a draft: threads that were written in.

use comity_testkit::{Server, User, encode};
use serde_json::{Value, json};

use crate::{Connection, V3, bodies, extension, named, text};

const THREADS: &str = "io.element.msc4360.threads";
const UPDATES: &str = "/_matrix/client/unstable/io.element.msc4360/thread_updates";

async fn reply(user: &User, room: &str, root: &str, body: &str) -> String {
    let relates_to = json!({ "rel_type": "m.thread", "event_id": root });
    let content = json!({ "msgtype": "m.text", "body": body, "m.relates_to": relates_to });
    user.send_event(room, "m.room.message", content).await
}

fn wanted(roots: bool) -> Value {
    extension(THREADS, json!({ "include_roots": roots }))
}

/// What is told of threads.
fn threads(answer: &Value) -> &Value {
    &answer["extensions"][THREADS]
}

/// The roots of the threads that are told, in their rooms.
fn roots(by_room: &Value) -> Vec<String> {
    let rooms = by_room.as_object().into_iter().flatten();
    let roots = rooms.flat_map(|(_, threads)| threads.as_object().unwrap().keys());
    let mut roots: Vec<String> = roots.cloned().collect();
    roots.sort();
    roots
}

/// A thread is told once: without its root only if the timeline doesn't have all of what is new, and with where to read the rest.
#[tokio::test(start_paused = true)]
async fn what_the_timeline_left_out_is_told() {
    let server = Server::start().await;
    let alice = server.register("alice").await;
    let bob = server.register("bob").await;
    let room = named(&alice, "Pub").await;
    bob.join(&room).await;
    let root = alice.send(&room, "root").await;
    let mut connection = Connection::of(&alice);
    let nothing = connection.ask(wanted(false)).await;
    assert_eq!(threads(&nothing), &Value::Null);
    // The timeline has one event, and this is it.
    reply(&bob, &room, &root, "0").await;
    let told = connection.wait(wanted(false), 30_000).await;
    assert_eq!(bodies(&told["rooms"][&room]), ["0"]);
    assert_eq!(threads(&told), &Value::Null);
    for n in 1..4 {
        reply(&bob, &room, &root, &n.to_string()).await;
    }
    bob.send(&room, "else").await;
    let told = connection.ask(wanted(false)).await;
    let update = &threads(&told)["updates"][&room][&root];
    assert!(update.get("thread_root").is_none(), "{told}");
    assert_eq!(threads(&told)["prev_batch"], Value::Null);
    let path = format!(
        "/_matrix/client/v1/rooms/{}/relations/{}/m.thread",
        encode(&room),
        encode(&root)
    );
    let rest = alice.get(path).query("dir", "b");
    let rest = rest.query("from", &text(&update["prev_batch"]));
    let rest = rest.send().await.ok();
    let bodies: Vec<&Value> = rest["chunk"].as_array().unwrap().iter().collect();
    let bodies: Vec<&Value> = bodies.iter().map(|it| &it["content"]["body"]).collect();
    assert_eq!(bodies, ["2", "1", "0"]);
    let nothing = connection.ask(wanted(false)).await;
    assert_eq!(threads(&nothing), &Value::Null);
    // With its root it is told whatever the timeline has.
    reply(&bob, &room, &root, "4").await;
    let told = connection.ask(wanted(true)).await;
    let update = &threads(&told)["updates"][&room][&root];
    let thread = &update["thread_root"]["unsigned"]["m.relations"]["m.thread"];
    assert_eq!(thread["latest_event"]["content"]["body"], "4");
    assert_eq!(thread["count"], 5);
    assert!(update.get("prev_batch").is_none(), "{told}");
}

/// Threads of all joined rooms count, in windows or not, and end a poll; what one can't see, from whom one ignores, or was redacted,
/// doesn't (threats E3, E4).
#[tokio::test(start_paused = true)]
async fn whose_threads_are_told() {
    let server = Server::start().await;
    let alice = server.register("alice").await;
    let bob = server.register("bob").await;
    let mut made = Vec::new();
    for name in ["in", "left", "ignored", "redacted"] {
        let room = named(&bob, name).await;
        alice.join(&room).await;
        let root = bob.send(&room, "root").await;
        made.push((room, root));
    }
    let [(here, seen), (left, unseen), (noisy, noise), (empty, gone)] =
        <[(String, String); 4]>::try_from(made).unwrap();
    let carol = server.register("carol").await;
    carol.join(&noisy).await;
    let path = format!("{V3}/user/{}/account_data/m.ignored_user_list", alice.id);
    let list = json!({ "ignored_users": { &carol.id: {} } });
    let _ = alice.put(path).json(list).send().await.ok();
    let mut connection = Connection::of(&alice);
    let body = json!({ "extensions": { THREADS: { "enabled": true } } });
    connection.ask(body.clone()).await;
    alice.leave(&left).await;
    reply(&bob, &left, &unseen, "after").await;
    reply(&carol, &noisy, &noise, "noise").await;
    let reply_gone = reply(&bob, &empty, &gone, "gone").await;
    bob.redact(&empty, &reply_gone).await;
    let nothing = connection.ask(body.clone()).await;
    assert_eq!(threads(&nothing), &Value::Null);
    let (told, _) = tokio::join!(
        connection.wait(body.clone(), 30_000),
        reply(&bob, &here, &seen, "news")
    );
    assert_eq!(threads(&told)["updates"], json!({ &here: { &seen: {} } }));
    let nothing = connection.ask(body).await;
    assert_eq!(threads(&nothing), &Value::Null);
}

/// What is too much for one answer is read page after page, each thread once, whatever happens meanwhile; and nothing else.
#[tokio::test(start_paused = true)]
async fn the_rest_is_read_page_by_page() {
    let server = Server::start().await;
    let alice = server.register("alice").await;
    let mut made = Vec::new();
    for n in 0..3 {
        let room = named(&alice, &n.to_string()).await;
        for _ in 0..3 {
            let root = alice.send(&room, "root").await;
            made.push((room.clone(), root));
        }
    }
    for (room, root) in &made {
        reply(&alice, room, root, "one").await;
    }
    let mut limited = wanted(true);
    limited["extensions"][THREADS]["limit"] = json!(2);
    let mut connection = Connection::of(&alice);
    let first = connection.ask(limited.clone()).await;
    let (old, new) = made.split_at(4);
    for (room, root) in new {
        reply(&alice, room, root, "two").await;
    }
    let began = connection.pos.clone().unwrap();
    let second = connection.ask(limited).await;
    let page = async |from: &Value, to: Option<&str>| -> Value {
        let page = alice.get(UPDATES).query("dir", "b").query("limit", "2");
        let page = page.query("from", from.as_str().unwrap());
        match to {
            Some(to) => page.query("to", to).send().await.ok(),
            None => page.send().await.ok(),
        }
    };
    for (answer, to, expected) in [(&first, None, old), (&second, Some(began.as_str()), new)] {
        let mut told = roots(&threads(answer)["updates"]);
        assert_eq!(told.len(), 2);
        let mut from = threads(answer)["prev_batch"].clone();
        while from.is_string() {
            let page = page(&from, to).await;
            let roots = roots(&page["chunk"]);
            assert!(roots.len() <= 2, "{page}");
            told.extend(roots);
            from = page["next_batch"].clone();
        }
        told.sort();
        let count = told.len();
        told.dedup();
        assert_eq!(told.len(), count, "each is told once");
        let expected = expected.iter().map(|(_, root)| root);
        let missing: Vec<&String> = expected.filter(|root| !told.contains(*root)).collect();
        assert!(missing.is_empty(), "{missing:?}");
        if to.is_some() {
            assert_eq!(count, new.len());
        }
    }
    for bad in ["dir=f", "dir=b&limit=0", "dir=b&from=x", "dir=b&to=x"] {
        let asked = alice.get(format!("{UPDATES}?{bad}")).send().await;
        asked.error(400, "M_INVALID_PARAM");
    }
    let mut none = wanted(true);
    none["extensions"][THREADS]["limit"] = json!(0);
    let asked = alice.post(crate::SLIDING).json(none).send().await;
    asked.error(400, "M_INVALID_PARAM");
}
