//! Keys and device lists between servers: <https://spec.matrix.org/v1.19/server-server-api/#device-management>

use std::{
    cell::Cell,
    sync::{Arc, Mutex},
    time::Duration,
};

use comity_storage::engine::memory::Fault;
use comity_testkit::{
    Fate, Federation, HostilePeer, Pdu, PeerRoom, Server, User,
    device::{CrossSigning, Device, public},
    encode,
};
use http::Method;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::lists::{Follower, NOTHING, changed, left};

const A: &str = "a.test";
const B: &str = "b.test";

async fn room_of(user: &User) -> String {
    user.create_room(json!({"preset": "public_chat"})).await
}

async fn join(user: &User, room: &str, via: &str) {
    let join = user.post(format!("/_matrix/client/v3/join/{}", encode(room)));
    join.query("via", via).json(json!({})).send().await.ok();
}

/// What was asked of a path since it was last looked at.
fn asked(federation: &Federation, path: &str) -> usize {
    let log = federation.wire.log();
    log.iter().filter(|line| line.contains(path)).count()
}

/// Syncs until something changed; what.
async fn news(follower: &mut Follower<'_>) -> (Vec<String>, Vec<String>) {
    for _ in 0..100 {
        let news = follower.news().await;
        if news != NOTHING {
            return news;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    NOTHING
}

/// Lets what is under way come to its end.
async fn settle() {
    tokio::time::sleep(Duration::from_secs(5)).await;
}

/// Keys of users of another server are asked for there, with signatures; one-time keys are claimed there, each once.
#[tokio::test(start_paused = true)]
async fn keys_of_users_of_other_servers() {
    let federation = Federation::of([A, B]).await;
    let alice = federation[A].register("alice").await;
    let bob = federation[B].register("bob").await;
    let (mut alices, bobs) = (Device::of(&alice), Device::of(&bob));
    let keys = alices.publish().await;
    let one_time = alices.one_time_keys(1);
    alices
        .upload(json!({ "one_time_keys": one_time }))
        .await
        .ok();
    let cross_signing = CrossSigning::of(&alice.id);
    alices
        .post("device_signing/upload", cross_signing.upload())
        .await
        .ok();
    let found = bobs.query(&[&alice.id, "@nobody:a.test"]).await;
    assert_eq!(
        found["device_keys"],
        json!({ &alice.id: { &alices.id: keys } })
    );
    assert_eq!(found["master_keys"][&alice.id], cross_signing.master_key());
    assert_eq!(found["failures"], json!({}));
    assert!(found.get("user_signing_keys").is_none());
    let (id, key) = bobs.claim(&alice.id, &alices.id).await.unwrap();
    assert_eq!(one_time.get(&id), Some(&key));
    assert_eq!(bobs.claim(&alice.id, &alices.id).await, None);
    // What Bob signs of Alice's is his to see, wherever she is.
    let of_bob = CrossSigning::of(&bob.id);
    bobs.post("device_signing/upload", of_bob.upload())
        .await
        .ok();
    let mut master = cross_signing.master_key();
    of_bob.sign_with(&of_bob.user_signing, &mut master);
    let body = json!({ &alice.id: { public(&cross_signing.master): master } });
    let answer = bobs.post("signatures/upload", body).await.ok();
    assert_eq!(answer["failures"], json!({}));
    assert_eq!(
        bobs.query(&[&alice.id]).await["master_keys"][&alice.id],
        master
    );
    assert_eq!(
        alices.query(&[&alice.id]).await["master_keys"][&alice.id],
        cross_signing.master_key()
    );
}

/// A server that gives no answer is a failure within the time that the client has, and holds up nobody else's keys.
#[tokio::test(start_paused = true)]
async fn a_server_that_does_not_answer_is_a_failure() {
    let federation = Federation::of([A, B]).await;
    let bob = federation[B].register("bob").await;
    let bobs = Device::of(&bob);
    let keys = bobs.publish().await;
    federation.wire.hold(B, A);
    let began = tokio::time::Instant::now();
    let body = json!({ "device_keys": { "@alice:a.test": [], &bob.id: [] }, "timeout": 2000 });
    let found = bobs.post("query", body).await.ok();
    assert_eq!(found["device_keys"], json!({ &bob.id: { &bobs.id: keys } }));
    assert!(found["failures"].get(A).is_some(), "{found}");
    let body = json!({ "one_time_keys": { "@alice:a.test": { "X": "signed_curve25519" } }, "timeout": 2000 });
    let found = bobs.post("claim", body).await.ok();
    assert!(found["failures"].get(A).is_some(), "{found}");
    assert!(began.elapsed().as_millis() < 4500);
    federation.wire.heal();
}

/// Law 11: a request asks 1,000 servers at the most, 100 at a time and none after its time; those that it doesn't come to are failures.
#[tokio::test(start_paused = true)]
async fn one_request_asks_so_many_servers() {
    let federation = Federation::of([B]).await;
    let bob = federation[B].register("bob").await;
    let bobs = Device::of(&bob);
    let asked = Arc::new(Mutex::new(Vec::new()));
    let times = asked.clone();
    federation.wire.judge(move |passing| {
        times.lock().unwrap().push(Instant::now());
        // Whoever is silent holds up nobody behind it.
        match passing.to.as_str() {
            "x0.test" | "y0.test" => Fate::Lost,
            _ => Fate::After(Duration::from_secs(1)),
        }
    });
    let of = |prefix: &str, value: Value| {
        let of = (0..1_100).map(|n| (format!("@a:{prefix}{n}.test"), value.clone()));
        Value::Object(of.collect())
    };
    let query = json!({ "device_keys": of("x", json!([])), "timeout": 20_000 });
    let claim = of("y", json!({ "D": "signed_curve25519" }));
    let claim = json!({ "one_time_keys": claim, "timeout": 3_000 });
    for (path, body, most) in [("query", query, 1_000), ("claim", claim, 400)] {
        let found = bobs.post(path, body).await.ok();
        assert_eq!(found["failures"].as_object().unwrap().len(), 1_100);
        let times = std::mem::take(&mut *asked.lock().unwrap());
        assert!(times.len() <= most, "{path}: {}", times.len());
        assert!(times.len() >= most / 2, "{path}: {}", times.len());
        for time in &times {
            let under_way =
                |of: &&Instant| **of <= *time && time.duration_since(**of).as_millis() < 1_000;
            assert!(times.iter().filter(under_way).count() <= 100, "{path}");
        }
    }
}

/// As long as a room is shared a list is asked for once, and its changes come by themselves.
#[tokio::test(start_paused = true)]
async fn a_list_is_kept_while_a_room_is_shared() {
    let federation = Federation::of([A, B]).await;
    let alice = federation[A].register("alice").await;
    let bob = federation[B].register("bob").await;
    let room = room_of(&alice).await;
    join(&bob, &room, A).await;
    let (alices, bobs) = (Device::of(&alice), Device::of(&bob));
    settle().await;
    let mut follower = Follower::of(&bob).await;
    let first = alices.publish().await;
    assert_eq!(news(&mut follower).await, changed(&[&alice]));
    let known = async || bobs.query(&[&alice.id]).await["device_keys"][&alice.id].clone();
    assert_eq!(known().await, json!({ &alices.id: first }));
    settle().await;
    drop(federation.wire.log());
    assert_eq!(known().await, json!({ &alices.id: first }));
    assert_eq!(asked(&federation, "/user/keys/query"), 0);
    // The first change finds that nobody knows what came before it; from then on they are followed.
    let path = |user: &User| format!("/_matrix/client/v3/devices/{}", user.device);
    alice
        .put(path(&alice))
        .json(json!({"display_name": "one"}))
        .send()
        .await
        .ok();
    settle().await;
    assert_eq!(news(&mut follower).await, changed(&[&alice]));
    assert_eq!(asked(&federation, "/user/devices/"), 1);
    alice
        .put(path(&alice))
        .json(json!({"display_name": "two"}))
        .send()
        .await
        .ok();
    let second = federation[A].login("alice").await;
    let other = Device::of(&second);
    let added = other.publish().await;
    settle().await;
    assert_eq!(news(&mut follower).await, changed(&[&alice]));
    let mut named = first.clone();
    named["unsigned"] = json!({"device_display_name": "two"});
    assert_eq!(
        known().await,
        json!({ &alices.id: named, &other.id: added })
    );
    let cross_signing = CrossSigning::of(&alice.id);
    alices
        .post("device_signing/upload", cross_signing.upload())
        .await
        .ok();
    second.post("/_matrix/client/v3/logout").send().await.ok();
    settle().await;
    assert_eq!(news(&mut follower).await, changed(&[&alice]));
    let found = bobs.query(&[&alice.id]).await;
    assert_eq!(
        found["device_keys"][&alice.id],
        json!({ &alices.id: named })
    );
    assert_eq!(found["master_keys"][&alice.id], cross_signing.master_key());
    let log = federation.wire.log();
    let asked = log.iter().filter(|line| line.contains("/user/"));
    assert_eq!(asked.count(), 0, "{log:?}");
}

/// Whose lists a peer was told of by a server, one after the other.
fn told(peer: &HostilePeer) -> Vec<String> {
    let heard = peer.heard().into_iter();
    let edus = heard.flat_map(|asked| asked.body["edus"].as_array().cloned().unwrap_or_default());
    let updates = edus.filter(|edu| edu["edu_type"] == "m.device_list_update");
    let users = updates.map(|edu| edu["content"]["user_id"].as_str().unwrap().to_owned());
    users.collect()
}

/// Who comes into a room is introduced to the servers there by the latest change of their list. Where its members aren't known, and
/// servers are only said to be there, nothing is told of who has no keys, nor when such a one signs in.
#[tokio::test(start_paused = true)]
async fn who_comes_into_a_room_is_introduced() {
    for is_partial in [false, true] {
        let federation = Federation::of([A, B]).await;
        let peer = HostilePeer::on(&federation.wire, "evil.test");
        let send = "/_matrix/federation/v1/send/";
        peer.answer(Method::PUT, send, |_| json!({ "pdus": {} }));
        let alice = federation[A].register("alice").await;
        let room = room_of(&alice).await;
        let _: PeerRoom = peer.join(&federation[A], &room, "mallory").await;
        if is_partial {
            federation
                .wire
                .judge(|passing| match passing.request.uri().path() {
                    path if path.contains("/state_ids/") => Fate::After(Duration::from_secs(300)),
                    _ => Fate::Arrives,
                });
        }
        let bob = federation[B].register("bob").await;
        Device::of(&bob).publish().await;
        let carol = federation[B].register("carol").await;
        settle().await;
        drop(peer.heard());
        join(&bob, &room, A).await;
        settle().await;
        assert_eq!(told(&peer), [bob.id.as_str()], "{is_partial}");
        join(&carol, &room, A).await;
        settle().await;
        let again = federation[B].login("carol").await;
        settle().await;
        let empty = [carol.id.as_str(); 2];
        let expected: &[&str] = if is_partial { &[] } else { &empty };
        assert_eq!(told(&peer), expected, "{is_partial}");
        Device::of(&again).publish().await;
        settle().await;
        assert_eq!(told(&peer), [carol.id.as_str()], "{is_partial}");
    }
}

/// Whoever was in a partial room all the time, and was taken to be out of it, hears what it missed of lists, though it has gone meanwhile: it
/// shares another room by now, and no change that follows may come for long.
#[tokio::test(start_paused = true)]
async fn who_was_taken_to_be_out_of_a_room_hears_what_it_missed() {
    let federation = Federation::of([A, B]).await;
    let (a, b) = (&federation[A], &federation[B]);
    let v1 = "/_matrix/federation/v1";
    let [kicked, kicker] = ["kicked.test", "kicker.test"].map(|name| {
        let peer = HostilePeer::on(&federation.wire, name);
        let send = format!("{v1}/send/");
        peer.answer(Method::PUT, &send, |_| json!({ "pdus": {} }));
        peer
    });
    let (derek, elsie) = (kicker.user("derek"), kicked.user("elsie"));
    let (alice, bob) = (a.register("alice").await, b.register("bob").await);
    let levels = json!({ "users": { &alice.id: 100, derek.as_str(): 50 } });
    let room = json!({
        "preset": "public_chat", "room_version": "11", "power_level_content_override": levels,
    });
    let room = alice.create_room(room).await;
    let said = Cell::new(0);
    let send = async |peer: &HostilePeer, to: &Server, pdu: &Pdu| {
        let path = format!("{v1}/send/said{}", said.replace(said.get() + 1));
        let body = json!({ "origin": peer.name, "origin_server_ts": 1, "pdus": [pdu.json] });
        let told = peer.to(to).put(path).json(body).send().await.ok();
        assert_eq!(told["pdus"], json!({ &pdu.id: {} }));
        settle().await;
    };
    let leave = json!({ "membership": "leave" });
    let member = "m.room.member";
    let mut dereks = kicker.join(a, &room, "derek").await;
    let left = kicker.event(
        &dereks,
        "derek",
        member,
        Some(derek.as_str()),
        leave.clone(),
    );
    send(&kicker, a, &left).await;
    let joined = json!({ "origin": A, "origin_server_ts": 1, "pdus": [dereks.last.json] });
    kicker.answer(Method::GET, &format!("{v1}/event/"), move |_| {
        joined.clone()
    });
    federation
        .wire
        .judge(|passing| match passing.request.uri().path() {
            path if path.contains("/state_ids/") && passing.to.as_str() == A => {
                Fate::After(Duration::from_secs(300))
            }
            _ => Fate::Arrives,
        });
    join(&bob, &room, A).await;
    let elsies = kicked.join(a, &room, "elsie").await;
    settle().await;
    drop(kicked.heard());
    let rename = async |name: &str| {
        let device = bob.put(format!("/_matrix/client/v3/devices/{}", bob.device));
        device
            .json(json!({ "display_name": name }))
            .send()
            .await
            .ok();
        settle().await;
        told(&kicked)
    };
    assert_eq!(rename("one").await, [bob.id.as_str()]);
    // Nobody here knows that he isn't in the room.
    dereks.went_on(&elsies.last);
    let kick = kicker.event(
        &dereks,
        "derek",
        member,
        Some(elsie.as_str()),
        leave.clone(),
    );
    send(&kicker, b, &kick).await;
    assert!(rename("two").await.is_empty());
    let _: PeerRoom = kicked.join(b, &room_of(&bob).await, "elsie").await;
    let left = kicked.event(&elsies, "elsie", member, Some(elsie.as_str()), leave);
    send(&kicked, a, &left).await;
    send(&kicked, b, &left).await;
    assert!(told(&kicked).is_empty());
    tokio::time::sleep(Duration::from_secs(300)).await;
    assert_eq!(told(&kicked), [bob.id.as_str()]);
}

/// Who left and came back may have changed everything meanwhile: what is kept of them doesn't count any more.
#[tokio::test(start_paused = true)]
async fn a_list_is_not_kept_without_a_shared_room() {
    let federation = Federation::of([A, B]).await;
    let alice = federation[A].register("alice").await;
    let bob = federation[B].register("bob").await;
    let room = room_of(&bob).await;
    join(&alice, &room, B).await;
    let (alices, bobs) = (Device::of(&alice), Device::of(&bob));
    alices.publish().await;
    settle().await;
    let mut follower = Follower::of(&bob).await;
    let known = async || bobs.query(&[&alice.id]).await["device_keys"][&alice.id].clone();
    known().await;
    alice.leave(&room).await;
    assert_eq!(news(&mut follower).await, left(&alice));
    let alices = Device::of(&alice);
    let keys = alices.publish().await;
    settle().await;
    assert_eq!(follower.news().await, NOTHING);
    assert_eq!(known().await, json!({ &alices.id: keys }));
    let alices = Device::of(&alice);
    let keys = alices.publish().await;
    join(&alice, &room, B).await;
    assert_eq!(news(&mut follower).await, changed(&[&alice]));
    assert_eq!(known().await, json!({ &alices.id: keys }));
}

/// What changes while a server can't be reached it learns when it can again, over a restart of who tells it.
#[tokio::test(start_paused = true)]
async fn changes_outlast_an_outage() {
    let mut federation = Federation::of([A, B]).await;
    let alice = federation[A].register("alice").await;
    let bob = federation[B].register("bob").await;
    let room = room_of(&alice).await;
    join(&bob, &room, A).await;
    Device::of(&alice).publish().await;
    settle().await;
    let mut follower = Follower::of(&bob).await;
    let bobs = Device::of(&bob);
    bobs.query(&[&alice.id]).await;
    federation.wire.cut(A, B);
    let again = Device::of(&alice);
    let keys = again.publish().await;
    // Long enough that the other server is behind.
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(follower.news().await, NOTHING);
    federation.restart(A).await;
    federation.wire.heal();
    tokio::time::sleep(Duration::from_secs(2 * 3600)).await;
    assert_eq!(news(&mut follower).await, changed(&[&alice]));
    let found = bobs.query(&[&alice.id]).await;
    assert_eq!(found["device_keys"][&alice.id], json!({ &again.id: keys }));
}

/// A peer whose user is in a room of ours, and that tells of its users as it likes.
struct World {
    federation: Federation,
    peer: HostilePeer,
    alice: User,
    transactions: Cell<u32>,
}

impl World {
    async fn new() -> Self {
        let federation = Federation::of([A]).await;
        let peer = HostilePeer::on(&federation.wire, "evil.test");
        let alice = federation[A].register("alice").await;
        let room = room_of(&alice).await;
        let _: PeerRoom = peer.join(&federation[A], &room, "mallory").await;
        let devices = json!({ "user_id": "@mallory:evil.test", "stream_id": 5, "devices": [] });
        peer.answer(
            Method::GET,
            "/_matrix/federation/v1/user/devices/",
            move |_| devices.clone(),
        );
        peer.answer(
            Method::POST,
            "/_matrix/federation/v1/user/keys/query",
            |asked| {
                let users = asked.body["device_keys"]
                    .as_object()
                    .cloned()
                    .unwrap_or_default();
                let users: Value = users.keys().map(|user| (user.clone(), json!({}))).collect();
                json!({ "device_keys": users })
            },
        );
        settle().await;
        drop(peer.heard());
        Self {
            federation,
            peer,
            alice,
            transactions: Cell::new(0),
        }
    }

    async fn edu(&self, edu_type: &str, content: Value) {
        let number = self.transactions.replace(self.transactions.get() + 1);
        let path = format!("/_matrix/federation/v1/send/keys{number}");
        let body = json!({
            "origin": "evil.test",
            "origin_server_ts": 1,
            "pdus": [],
            "edus": [{ "edu_type": edu_type, "content": content }],
        });
        let sent = self.peer.to(&self.federation[A]).put(path).json(body);
        sent.send().await.ok();
    }

    fn update(id: u64, prev: &[u64]) -> Value {
        json!({
            "user_id": "@mallory:evil.test",
            "device_id": format!("D{id}"),
            "stream_id": id,
            "prev_id": prev,
        })
    }

    /// How often the list as a whole was asked for since.
    async fn resyncs(&self) -> usize {
        settle().await;
        let heard = self.peer.heard();
        let whole = heard
            .iter()
            .filter(|asked| asked.target.contains("/user/devices/"));
        whole.count()
    }
}

/// Threat F1: a server tells of its own users' devices, of nobody else's; of its users who share no room nobody hears.
#[tokio::test(start_paused = true)]
async fn f1_lists_of_other_servers_users_are_ignored() {
    let world = World::new().await;
    let alice = world.federation[A].login("alice").await;
    let mut follower = Follower::of(&alice).await;
    let keys = Device::of(&alice).device_keys();
    for user in [
        world.alice.id.as_str(),
        "@mallory:other.test",
        "@stranger:evil.test",
    ] {
        let mut update = World::update(1, &[]);
        update["user_id"] = user.into();
        update["keys"] = keys.clone();
        world.edu("m.device_list_update", update).await;
        let content = json!({ "user_id": user, "master_key": CrossSigning::of(user).master_key() });
        world.edu("m.signing_key_update", content).await;
    }
    assert_eq!(follower.news().await, NOTHING);
    let found = Device::of(&alice).query(&[&alice.id]).await;
    assert_eq!(found["device_keys"][&alice.id], json!({}));
    assert!(found.get("master_keys").is_none());
    world
        .edu("m.device_list_update", World::update(1, &[]))
        .await;
    let (changed, _) = follower.news().await;
    assert_eq!(changed, ["@mallory:evil.test"]);
}

/// Many users of a server are looked at side by side, and time is what its answer may take: what came is given, however slow the store.
#[tokio::test(start_paused = true)]
async fn an_answer_that_came_is_given() {
    let world = World::new().await;
    let server = &world.federation[A];
    let room = room_of(&world.alice).await;
    let mut asked = serde_json::Map::new();
    for n in 0..20 {
        let name = format!("user{n}");
        let _: PeerRoom = world.peer.join(server, &room, &name).await;
        asked.insert(world.peer.user(&name).to_string(), json!([]));
    }
    settle().await;
    let alices = Device::of(&world.alice);
    let body = json!({ "device_keys": asked, "timeout": 1_000 });
    let disk = server.disk();
    disk.set_distance(Duration::from_millis(100));
    for kept in [false, true] {
        let (_, began) = (world.peer.heard(), tokio::time::Instant::now());
        let found = alices.post("query", body.clone()).await.ok();
        assert_eq!(found["failures"], json!({}), "{kept}");
        assert_eq!(found["device_keys"].as_object().unwrap().len(), 20);
        let queries = world.peer.heard();
        let queries = queries
            .iter()
            .filter(|asked| asked.target.contains("keys/query"));
        assert_eq!(queries.count(), usize::from(!kept));
        assert!(began.elapsed() < Duration::from_secs(2));
    }
    disk.set_distance(Duration::ZERO);
}

/// What has nothing in it some servers write as `null`: what they say beside it counts.
#[tokio::test(start_paused = true)]
async fn null_is_nothing() {
    let world = World::new().await;
    let mallory = "@mallory:evil.test";
    let v1 = "/_matrix/federation/v1/user";
    let answer = |method, path: &str, answer: Value| {
        let path = format!("{v1}/{path}");
        world.peer.answer(method, &path, move |_| answer.clone());
    };
    let found =
        json!({ "device_keys": { mallory: {} }, "master_keys": null, "self_signing_keys": null });
    answer(Method::POST, "keys/query", found);
    let list = json!({ "user_id": mallory, "stream_id": 5, "devices": null, "master_key": null });
    answer(Method::GET, "devices/", list);
    let claimed = json!({ "one_time_keys": null });
    answer(Method::POST, "keys/claim", claimed);
    let alices = Device::of(&world.alice);
    for _ in 0..2 {
        let body = json!({ "device_keys": { mallory: [] } });
        let found = alices.post("query", body).await.ok();
        assert_eq!(found["failures"], json!({}));
        assert_eq!(found["device_keys"], json!({ mallory: {} }));
    }
    let heard = world.peer.heard();
    assert_eq!(heard.len(), 1, "it is kept: {heard:?}");
    let body = json!({ "one_time_keys": { mallory: { "D": "signed_curve25519" } } });
    let claimed = alices.post("claim", body).await.ok();
    assert_eq!(claimed["failures"], json!({}));
    let update = World::update(5, &[4]);
    world.edu("m.device_list_update", update).await;
    assert_eq!(world.resyncs().await, 1);
    let update = World::update(6, &[5]);
    world.edu("m.device_list_update", update).await;
    assert_eq!(world.resyncs().await, 0, "the list is complete");
}

/// Law 11: of another server's devices a name is kept as far as it is one, and a device whose id is none isn't.
#[tokio::test(start_paused = true)]
async fn names_of_other_servers_devices_are_bounded() {
    let world = World::new().await;
    let mallory = "@mallory:evil.test";
    let long = "x".repeat(256);
    let keys = |id: &str| {
        let keys = json!({
            "user_id": mallory, "device_id": id, "algorithms": [], "keys": {}, "signatures": {},
            "unsigned": { "device_display_name": "é".repeat(300) },
        });
        (id.to_owned(), keys)
    };
    let devices: Value = [keys("D"), keys(&long)].into_iter().collect();
    let path = "/_matrix/federation/v1/user/keys/query";
    world.peer.answer(
        Method::POST,
        path,
        move |_| json!({ "device_keys": { mallory: devices } }),
    );
    world.federation.wire.without_spec();
    let found = Device::of(&world.alice).query(&[mallory]).await;
    let devices = found["device_keys"][mallory].as_object().unwrap();
    assert!(devices.keys().eq(["D"]), "{devices:?}");
    let name = &devices["D"]["unsigned"]["device_display_name"];
    assert_eq!(*name, "é".repeat(127));
}

/// Of signing keys no number shows that a change is missing: one that could not be kept isn't said to have been taken.
#[tokio::test(start_paused = true)]
async fn a_change_of_keys_that_is_not_kept_comes_again() {
    let federation = Federation::of([A, B]).await;
    // A server that can't keep something says so by a status that the specification doesn't name.
    federation.wire.without_spec();
    let alice = federation[A].register("alice").await;
    let bob = federation[B].register("bob").await;
    let room = room_of(&alice).await;
    join(&bob, &room, A).await;
    let (alices, bobs) = (Device::of(&alice), Device::of(&bob));
    alices.publish().await;
    settle().await;
    bobs.query(&[&alice.id]).await;
    settle().await;
    let mut refused = false;
    let faults = move |is_apply| {
        if is_apply && !std::mem::replace(&mut refused, true) {
            Fault::NotApplied
        } else {
            Fault::None
        }
    };
    federation[B].disk().set_faults(Some(Box::new(faults)));
    let keys = CrossSigning::of(&alice.id);
    let upload = alices.post("device_signing/upload", keys.upload());
    upload.await.ok();
    tokio::time::sleep(Duration::from_secs(600)).await;
    drop(federation.wire.log());
    let found = bobs.query(&[&alice.id]).await;
    assert_eq!(found["master_keys"][&alice.id], keys.master_key());
    assert_eq!(asked(&federation, "keys/query"), 0, "it is kept");
}

/// Threat F5: what follows is applied, what doesn't has the list asked for; odd stream ids are ignored.
#[tokio::test(start_paused = true)]
async fn f5_a_gap_has_the_list_asked_for() {
    let world = World::new().await;
    let alices = Device::of(&world.alice);
    let mallory = "@mallory:evil.test";
    // Nobody has asked for the list: nothing to complete.
    world
        .edu("m.device_list_update", World::update(3, &[2]))
        .await;
    assert_eq!(world.resyncs().await, 0);
    alices.query(&[mallory]).await;
    assert_eq!(world.resyncs().await, 0);
    world
        .edu("m.device_list_update", World::update(5, &[4]))
        .await;
    assert_eq!(world.resyncs().await, 1);
    // Up to 5 it is known: 6 follows, 6 again is no news, 8 doesn't follow.
    world
        .edu("m.device_list_update", World::update(6, &[5]))
        .await;
    world
        .edu("m.device_list_update", World::update(6, &[5]))
        .await;
    assert_eq!(world.resyncs().await, 0);
    world
        .edu("m.device_list_update", World::update(8, &[7]))
        .await;
    assert_eq!(world.resyncs().await, 1);
    for odd in [
        json!(-1),
        json!(1.5),
        json!("9"),
        json!(1_u64 << 53),
        Value::Null,
    ] {
        let mut update = World::update(9, &[5]);
        update["stream_id"] = odd;
        world.edu("m.device_list_update", update).await;
    }
    assert_eq!(world.resyncs().await, 0);
}

/// Threat F5: ten thousand devices are a thousand here, of which those whose keys are no keys of theirs are none.
#[tokio::test(start_paused = true)]
async fn f5_devices_are_capped() {
    let world = World::new().await;
    let mallory = "@mallory:evil.test";
    let keys = |device: &str, user: &str| {
        json!({
            "user_id": user,
            "device_id": device,
            "algorithms": [],
            "keys": { format!("ed25519:{device}"): "x" },
            "signatures": {},
        })
    };
    let mut devices: serde_json::Map<String, Value> = (0..10_000)
        .map(|n| (format!("D{n}"), keys(&format!("D{n}"), mallory)))
        .collect();
    devices.insert("A".to_owned(), keys("A", "@alice:a.test"));
    devices.insert("B".to_owned(), keys("C", mallory));
    let answer = json!({ "device_keys": { mallory: devices, "@alice:a.test": devices } });
    let path = "/_matrix/federation/v1/user/keys/query";
    world
        .peer
        .answer(Method::POST, path, move |_| answer.clone());
    let found = Device::of(&world.alice).query(&[mallory]).await;
    let found = found["device_keys"].as_object().unwrap();
    assert_eq!(found.len(), 1);
    let devices = found[mallory].as_object().unwrap();
    assert!(devices.len() <= 1_000 && !devices.contains_key("A") && !devices.contains_key("B"));
}

/// Threat E6: another server is told of our users alone, and of no user-signing key.
#[tokio::test(start_paused = true)]
async fn e6_other_servers_are_told_of_our_users() {
    let world = World::new().await;
    let mut device = Device::of(&world.alice);
    let keys = device.publish().await;
    let one_time = device.one_time_keys(1);
    device
        .upload(json!({ "one_time_keys": one_time }))
        .await
        .ok();
    let cross_signing = CrossSigning::of(&world.alice.id);
    device
        .post("device_signing/upload", cross_signing.upload())
        .await
        .ok();
    let peer = world.peer.to(&world.federation[A]);
    let v1 = "/_matrix/federation/v1/user";
    let asked = json!({ "device_keys": { &world.alice.id: [], "@mallory:evil.test": [], "@no:a.test": [] } });
    let found = peer
        .post(format!("{v1}/keys/query"))
        .json(asked)
        .send()
        .await
        .ok();
    assert_eq!(
        found["device_keys"],
        json!({ &world.alice.id: { &device.id: keys } })
    );
    assert_eq!(
        found["master_keys"][&world.alice.id],
        cross_signing.master_key()
    );
    assert!(found.get("user_signing_keys").is_none());
    let list = peer.get(format!("{v1}/devices/{}", encode(&world.alice.id)));
    let list = list.send().await.ok();
    assert_eq!(list["devices"][0]["keys"], keys);
    assert!(list["stream_id"].as_u64().unwrap() > 0);
    for nobody in ["@mallory:evil.test", "@no:a.test"] {
        let list = peer.get(format!("{v1}/devices/{}", encode(nobody)));
        list.send().await.error(404, "M_NOT_FOUND");
    }
    let wanted = json!({ "one_time_keys": {
        &world.alice.id: { &device.id: "signed_curve25519" },
        "@mallory:evil.test": { "X": "signed_curve25519" },
    }});
    let claim = || peer.post(format!("{v1}/keys/claim")).json(&wanted).send();
    let claimed = claim().await.ok();
    assert_eq!(
        claimed["one_time_keys"],
        json!({ &world.alice.id: { &device.id: one_time } })
    );
    assert_eq!(claim().await.ok()["one_time_keys"], json!({}));
}
