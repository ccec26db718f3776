//! Messages to devices from another server: <https://spec.matrix.org/v1.19/server-server-api/#send-to-device-messaging>

use std::collections::BTreeSet;

use comity_testkit::{HostilePeer, User};
use serde_json::{Value, json};

use crate::world::World;

fn edu(sender: &str, id: &str, messages: &Value) -> Value {
    let content = json!({
        "sender": sender, "type": "org.example.message", "message_id": id, "messages": messages,
    });
    json!({ "edu_type": "m.direct_to_device", "content": content })
}

/// A message to all of a user's devices.
fn numbered(sender: &str, to: &str, n: u64) -> Value {
    edu(
        sender,
        &format!("id{n}"),
        &json!({ to: { "*": { "n": n } } }),
    )
}

async fn came(user: &User) -> Vec<u64> {
    numbers(&user.sync(None).await)
}

/// The numbers of the messages in an answer.
fn numbers(answer: &Value) -> Vec<u64> {
    let events = answer["to_device"]["events"].as_array();
    let events = events.into_iter().flatten();
    events
        .map(|event| event["content"]["n"].as_u64().unwrap())
        .collect()
}

/// They are there when the transaction is answered, in order, each once: the same id again does nothing, in the same transaction, in
/// another, after a restart.
#[tokio::test(start_paused = true)]
async fn messages_count_once_by_their_id() {
    let mut world = World::new("11").await;
    let mallory = world.peer.user("mallory").to_string();
    let alice = world.alice.id.clone();
    let edus: Vec<Value> = [1, 2, 1, 3].map(|n| numbered(&mallory, &alice, n)).into();
    world.edus(&edus).await;
    assert_eq!(came(&world.alice).await, [1, 2, 3]);
    let later = [numbered(&mallory, &alice, 2), numbered(&mallory, &alice, 4)];
    world.edus(&later).await;
    world.edus(&later).await;
    assert_eq!(came(&world.alice).await, [1, 2, 3, 4]);
    world.federation.restart(crate::world::HERE).await;
    world.edus(&later).await;
    let alice = world.here().login("alice").await;
    assert_eq!(came(&alice).await, [0; 0], "they were not to this device");
    let more = [
        numbered(&mallory, &alice.id, 4),
        numbered(&mallory, &alice.id, 5),
    ];
    world.edus(&more).await;
    assert_eq!(came(&alice).await, [5]);
}

/// A message that comes with an event is in its queue before the event is seen.
#[tokio::test(start_paused = true)]
async fn keys_come_no_later_than_the_event_they_open() {
    let mut world = World::new("11").await;
    let mallory = world.peer.user("mallory").to_string();
    let alice = world.alice.id.clone();
    let since = world.alice.sync(None).await["next_batch"].clone();
    let event = world.say("opened by that key");
    let waiting = world.alice.sync_request(since.as_str());
    let waiting = waiting.query("timeout", "60000");
    let edus = [numbered(&mallory, &alice, 1)];
    let pdus = [&event.json];
    let sent = world.transaction_as("both", &pdus, &edus);
    let (answer, _) = tokio::join!(waiting.send(), sent);
    assert_eq!(answer.ok()["to_device"]["events"][0]["content"]["n"], 1);
    world.sees(&event.id).await;
}

/// Threats F1, F2: whoever isn't of the server that sends says nothing; nothing is kept for users of others, for those who aren't here
/// or no more, nor for devices that aren't; what can't be read is ignored.
#[tokio::test(start_paused = true)]
async fn f1_f2_only_for_ours_and_only_from_theirs() {
    let mut world = World::new("11").await;
    let mallory = world.peer.user("mallory").to_string();
    let alice = world.alice.id.clone();
    let gone = world.here().register("gone").await;
    world.here().api.deactivate(&gone.id, false).await.unwrap();
    let all = json!({ "*": { "n": 1 } });
    let mut edus: Vec<Value> = ["@third:other.test", &alice, "nobody"]
        .iter()
        .map(|sender| edu(sender, "id", &json!({ &alice: all })))
        .collect();
    for to in ["@nobody:here.test", "@bob:other.test", "alice", &gone.id] {
        edus.push(edu(&mallory, to, &json!({ to: all })));
    }
    edus.push(edu(
        &mallory,
        "device",
        &json!({ &alice: { "NODEVICE": {} } }),
    ));
    edus.push(edu(&mallory, "text", &json!({ &alice: { "*": "text" } })));
    edus.push(edu(&mallory, "list", &json!([])));
    edus.push(edu(&mallory, &"i".repeat(300), &json!({ &alice: all })));
    edus.push(json!({ "edu_type": "m.direct_to_device", "content": {} }));
    world.edus(&edus).await;
    assert_eq!(came(&world.alice).await, [0; 0]);
    let reader = world.here().api.rooms.tenant().reader();
    let everywhere = comity_storage::Range::everywhere(|_| {});
    let rows = reader.scan::<comity_to_device::tables::Queues>(everywhere);
    assert_eq!(rows.await.unwrap().len(), 0);
}

/// Threats F2, F3: users who aren't here are owed nothing, whichever lane they would be in, and one transaction brings 10,000 messages at
/// the most; the next is none the worse for it.
#[tokio::test(start_paused = true)]
async fn f2_f3_nobody_is_owed_to_who_is_not_here() {
    let mut world = World::new("11").await;
    let mallory = world.peer.user("mallory").to_string();
    let alice = world.alice.id.clone();
    let tenant = world.here().api.rooms.tenant().clone();
    let mut follower = tenant.follow(tenant.heads());
    let nobody = |n: u64| (format!("@nobody{n}:here.test"), json!({ "*": {} }));
    let to: serde_json::Map<String, Value> = (0..9_999).map(nobody).collect();
    let edus = [
        edu(&mallory, "nobody", &json!(to)),
        numbered(&mallory, &alice, 1),
        numbered(&mallory, &alice, 2),
    ];
    world.edus(&edus).await;
    world.edus(&[numbered(&mallory, &alice, 3)]).await;
    assert_eq!(came(&world.alice).await, [1, 3]);
    let mut owed = BTreeSet::new();
    loop {
        let commits = follower.ready().await.unwrap();
        if commits.is_empty() {
            break;
        }
        let debts = commits.into_iter().flat_map(|logged| logged.owed.clone());
        owed.extend(debts.map(|owed| format!("{:?}", owed.target)));
    }
    assert!(owed.len() <= 1, "none but alice: {owed:?}");
}

/// Threat F3: what one transaction brings a device may be more than an answer usually has (each EDU may reach it twice, by its name and
/// as one of all); then an answer has all of it, and what others sent comes after.
#[tokio::test(start_paused = true)]
async fn f3_a_large_transaction_hides_nothing() {
    let mut world = World::new("11").await;
    let mallory = world.peer.user("mallory").to_string();
    let alice = world.alice.id.clone();
    let device = world.alice.device.clone();
    let twice = |n: u64| {
        let devices = json!({ "*": { "n": n }, &device: { "n": n } });
        edu(&mallory, &format!("twice{n}"), &json!({ &alice: devices }))
    };
    world.edus(&[numbered(&mallory, &alice, 1_000)]).await;
    let edus: Vec<Value> = (0..60).map(twice).collect();
    world.edus(&edus).await;
    world.edus(&[numbered(&mallory, &alice, 2_000)]).await;
    let mut since = None;
    let mut sizes = Vec::new();
    let mut all = Vec::new();
    for _ in 0..4 {
        let answer = world.alice.sync(since.as_deref()).await;
        since = answer["next_batch"].as_str().map(str::to_owned);
        let numbers = numbers(&answer);
        sizes.push(numbers.len());
        all.extend(numbers);
    }
    assert_eq!(sizes, [1, 120, 1, 0]);
    let expected = (0..60).flat_map(|n| [n, n]);
    let expected = [1_000].into_iter().chain(expected).chain([2_000]);
    assert!(all.into_iter().eq(expected));
}

/// Threat F3: an oversize message is left out, what is with it isn't; a flood to one device is capped, comes 100 a sync, and leaves room
/// for what others send, of this server and of another one.
#[tokio::test(start_paused = true)]
async fn f3_a_flood_is_capped() {
    let mut world = World::new("11").await;
    world.federation.wire.without_spec();
    let mallory = world.peer.user("mallory").to_string();
    let alice = world.alice.id.clone();
    let large = json!({ &alice: { "*": { "n": 0, "text": "x".repeat(64 << 10) } } });
    world
        .edus(&[
            edu(&mallory, "large", &large),
            numbered(&mallory, &alice, 1),
        ])
        .await;
    assert_eq!(came(&world.alice).await, [1]);
    for chunk in 0..102 {
        let edus: Vec<Value> = (0..100)
            .map(|n| numbered(&mallory, &alice, 2 + chunk * 100 + n))
            .collect();
        world.edus(&edus).await;
    }
    // Half of 10,000, and a tenth.
    let rows = async || {
        let reader = world.here().api.rooms.tenant().reader();
        let everywhere = comity_storage::Range::everywhere(|_| {});
        let rows = reader.scan::<comity_to_device::tables::Queues>(everywhere);
        rows.await.unwrap().len()
    };
    assert_eq!(rows().await, 6_000);
    let other = HostilePeer::on(&world.federation.wire, "other.test");
    let carol = numbered("@carol:other.test", &alice, 1);
    let body =
        json!({ "origin": "other.test", "origin_server_ts": 1, "pdus": [], "edus": [carol] });
    let send = other.to(world.here()).put("/_matrix/federation/v1/send/t");
    send.json(body).send().await.ok();
    assert_eq!(rows().await, 6_001);
    let bob = world.here().register("bob").await;
    let body = json!({ "messages": { &alice: { "*": { "n": 1 } } } });
    let send = bob.put("/_matrix/client/v3/sendToDevice/org.example.message/t");
    send.json(body).send().await.ok();
    assert_eq!(rows().await, 6_002);
    let first = came(&world.alice).await;
    assert!(!first.is_empty() && first.len() <= 100 && first[0] == 1);
    world.settle().await;
}
