//! Devices that nobody signs in by (R20.3): <https://github.com/matrix-org/matrix-spec-proposals/pull/3814>, a draft.

use comity_testkit::{
    Answer, Server, User,
    device::{CrossSigning, Device, public},
    encode,
};
use futures_util::future::join_all;
use serde_json::{Value, json};

const AT: &str = "/_matrix/client/unstable/org.matrix.msc3814.v1/dehydrated_device";

/// What a client uploads of a device, with some one-time keys and a fallback key.
fn sealed(device: &mut Device, one_time: usize) -> Value {
    json!({
        "device_id": device.id,
        "initial_device_display_name": "in a drawer",
        "device_data": { "algorithm": "org.example.sealed", "device_pickle": device.id },
        "device_keys": device.device_keys(),
        "one_time_keys": device.one_time_keys(one_time),
        "fallback_keys": device.fallback_key(),
    })
}

async fn put(user: &User, body: Value) -> Answer {
    user.put(AT).json(body).send().await
}

/// Dehydrates a device of this id; the device.
async fn dehydrate(user: &User, id: &str) -> Device {
    let mut device = Device::named(user, id);
    let body = sealed(&mut device, 1);
    assert_eq!(put(user, body).await.ok(), json!({ "device_id": id }));
    device
}

async fn tell(from: &User, to: &str, device: &str, n: u64) {
    let path = format!(
        "/_matrix/client/v3/sendToDevice/org.example.message/{}",
        from.transaction()
    );
    let messages = json!({ "messages": { to: { device: { "n": n } } } });
    let _: Value = from.put(path).json(messages).send().await.ok();
}

fn numbers(answer: &Value) -> Vec<u64> {
    let events = answer["events"].as_array().unwrap().iter();
    events
        .map(|event| event["content"]["n"].as_u64().unwrap())
        .collect()
}

/// The numbers of the messages that a dehydrated device was sent, with how many requests.
async fn all_of(user: &User, device: &str) -> (Vec<u64>, usize) {
    let path = format!("{AT}/{}/events", encode(device));
    let (mut all, mut from, mut asked) = (Vec::new(), None::<String>, 0);
    loop {
        let request = user.get(&path);
        let request = match &from {
            Some(from) => request.query("from", from),
            None => request,
        };
        let answer = request.send().await.ok();
        asked += 1;
        all.extend(numbers(&answer));
        match answer["next_batch"].as_str() {
            Some(next) => from = Some(next.to_owned()),
            None => return (all, asked),
        }
    }
}

/// Others know the device by its keys and send it messages, which stay until it goes; its user isn't signed in on it.
#[tokio::test(start_paused = true)]
async fn a_device_waits_in_a_drawer() {
    let server = Server::start().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let bobs = Device::of(&bob);
    alice.get(AT).send().await.error(404, "M_NOT_FOUND");
    alice.delete(AT).send().await.error(404, "M_NOT_FOUND");
    let id = "a/Curve+25519";
    let mut device = Device::named(&alice, id);
    let body = sealed(&mut device, 2);
    let (keys, data) = (body["device_keys"].clone(), body["device_data"].clone());
    let one_time = body["one_time_keys"].clone();
    put(&alice, body).await.ok();

    assert_eq!(
        alice.get(AT).send().await.ok(),
        json!({ "device_id": id, "device_data": data })
    );
    let seen = &bobs.query(&[&alice.id]).await["device_keys"][&alice.id][id];
    assert_eq!(seen["keys"], keys["keys"]);
    assert_eq!(seen["unsigned"]["device_display_name"], "in a drawer");
    for _ in 0..2 {
        let (key, value) = bobs.claim(&alice.id, id).await.unwrap();
        assert_eq!(one_time[&key], value);
    }
    let (_, fallback) = bobs.claim(&alice.id, id).await.unwrap();
    assert_eq!(fallback["fallback"], true);

    let devices = alice.get("/_matrix/client/v3/devices").send().await.ok();
    assert_eq!(devices["devices"].as_array().unwrap().len(), 1);
    let path = format!("/_matrix/client/v3/devices/{}", encode(id));
    alice.get(path).send().await.error(404, "M_NOT_FOUND");

    tell(&bob, &alice.id, id, 1).await;
    tell(&bob, &alice.id, "*", 2).await;
    for _ in 0..2 {
        assert_eq!(all_of(&alice, id).await, (vec![1, 2], 1));
    }
    let events = format!("{AT}/{}/events", encode(&alice.device));
    alice.get(&events).send().await.error(403, "M_FORBIDDEN");
    let events = format!("{AT}/{}/events", encode(id));
    bob.get(&events).send().await.error(403, "M_FORBIDDEN");
    let request = alice.get(&events).query("from", "s1");
    request.send().await.error(400, "M_INVALID_PARAM");

    let server = server.restarted().await;
    let alice = server.login("alice").await;
    assert_eq!(all_of(&alice, id).await.0, [1, 2]);
    assert_eq!(
        alice.delete(AT).send().await.ok(),
        json!({ "device_id": id })
    );
    alice.get(AT).send().await.error(404, "M_NOT_FOUND");
    alice.get(&events).send().await.error(403, "M_FORBIDDEN");
    let bob = server.login("bob").await;
    let bobs = Device::of(&bob);
    assert_eq!(
        bobs.query(&[&alice.id]).await["device_keys"][&alice.id][id],
        Value::Null
    );
    assert_eq!(bobs.claim(&alice.id, id).await, None);
}

/// A user has one: another takes its place in a step, and what the first was sent goes with it. Whoever shares a room is told.
#[tokio::test(start_paused = true)]
async fn another_takes_its_place() {
    let server = Server::start().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    bob.join(&room).await;
    let bobs = Device::of(&bob);
    dehydrate(&alice, "FIRST").await;
    tell(&bob, &alice.id, "FIRST", 1).await;
    let since = bob.sync(None).await["next_batch"].clone();
    let second = dehydrate(&alice, "SECOND").await;
    let news = bob.sync(since.as_str()).await;
    assert_eq!(news["device_lists"]["changed"], json!([alice.id]));
    let of_alice = bobs.query(&[&alice.id]).await["device_keys"][&alice.id].clone();
    assert_eq!(of_alice["FIRST"], Value::Null);
    assert_eq!(of_alice["SECOND"]["keys"], second.device_keys()["keys"]);
    assert_eq!(all_of(&alice, "SECOND").await, (vec![], 1));

    // The same id again: everything of it is new.
    tell(&bob, &alice.id, "SECOND", 2).await;
    let again = dehydrate(&alice, "SECOND").await;
    let of_alice = bobs.query(&[&alice.id]).await["device_keys"][&alice.id].clone();
    assert_eq!(of_alice["SECOND"]["keys"], again.device_keys()["keys"]);
    assert_eq!(all_of(&alice, "SECOND").await, (vec![], 1));
    assert!(bobs.claim(&alice.id, "SECOND").await.is_some());
    let (_, left) = bobs.claim(&alice.id, "SECOND").await.unwrap();
    assert_eq!(left["fallback"], true, "the first's keys went with it");
}

/// However many at a time, one is left, and all of it.
#[tokio::test(start_paused = true)]
async fn one_is_left_of_many_at_a_time() {
    let server = Server::start().await;
    let alice = server.register("alice").await;
    let put_one = |n: usize| {
        let alice = &alice;
        async move {
            let mut device = Device::named(alice, &format!("D{n}"));
            let body = sealed(&mut device, 1);
            put(alice, body).await
        }
    };
    for answer in join_all((0..8).map(put_one)).await {
        let _: Value = answer.ok();
    }
    let left = alice.get(AT).send().await.ok()["device_id"].clone();
    let alices = Device::of(&alice);
    let seen = alices.query(&[&alice.id]).await["device_keys"][&alice.id].clone();
    let seen: Vec<&String> = seen.as_object().unwrap().keys().collect();
    assert_eq!(seen, [left.as_str().unwrap()]);
}

/// What was sent comes in parts; by the older way the last part is the one without events.
#[tokio::test(start_paused = true)]
async fn messages_come_in_parts() {
    let server = Server::start().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    dehydrate(&alice, "SLEEPER").await;
    for n in 0..250 {
        tell(&bob, &alice.id, "SLEEPER", n).await;
    }
    let (all, asked) = all_of(&alice, "SLEEPER").await;
    assert_eq!(all, (0..250).collect::<Vec<u64>>());
    assert_eq!(asked, 3);
    let path = format!("{AT}/SLEEPER/events");
    let (mut all, mut body) = (Vec::new(), json!({}));
    loop {
        let answer = alice.post(&path).json(body).send().await.ok();
        if numbers(&answer).is_empty() {
            break;
        }
        all.extend(numbers(&answer));
        body = json!({ "next_batch": answer["next_batch"] });
    }
    assert_eq!(all, (0..250).collect::<Vec<u64>>());
}

/// Keys that aren't the device's own, or none, are refused (F1), and what was there stays.
#[tokio::test(start_paused = true)]
async fn forged_keys_are_refused() {
    let server = Server::start().await;
    let alice = server.register("alice").await;
    dehydrate(&alice, "GENUINE").await;
    let (mut device, another) = (
        Device::named(&alice, "FORGED"),
        Device::named(&alice, "FORGED"),
    );
    let body = sealed(&mut device, 1);
    let with = |member: &str, value: Value| {
        let mut body = body.clone();
        body[member] = value;
        body
    };
    let mut forged = body["device_keys"].clone();
    another.sign(&mut forged);
    let mut key = json!({ "key": "abc", "fallback": true });
    another.sign(&mut key);
    for (body, code) in [
        (with("device_keys", Value::Null), "M_MISSING_PARAM"),
        (with("device_keys", forged), "M_INVALID_PARAM"),
        (with("device_id", json!("OTHER")), "M_INVALID_PARAM"),
        (
            with("one_time_keys", json!({ "signed_curve25519:A": &key })),
            "M_INVALID_PARAM",
        ),
        (
            with("fallback_keys", json!({ "signed_curve25519:A": &key })),
            "M_INVALID_PARAM",
        ),
        (with("device_data", json!({})), "M_BAD_JSON"),
        (with("device_data", json!("sealed")), "M_BAD_JSON"),
    ] {
        put(&alice, body).await.error(400, code);
    }
    let there = alice.get(AT).send().await.ok();
    assert_eq!(there["device_id"], "GENUINE");
}

/// Nobody signs in by it, and no device that somebody is signed in on becomes one; it ends with all of a user's sessions.
#[tokio::test(start_paused = true)]
async fn it_is_no_device_to_sign_in_by() {
    let server = Server::start().await;
    let alice = server.register("alice").await;
    let mut own = Device::of(&alice);
    let body = sealed(&mut own, 1);
    put(&alice, body).await.error(400, "M_INVALID_PARAM");
    dehydrate(&alice, "SLEEPER").await;
    let login = json!({
        "type": "m.login.password",
        "identifier": { "type": "m.id.user", "user": "alice" },
        "password": "secret of alice",
        "device_id": "SLEEPER",
    });
    let request = server.post("/_matrix/client/v3/login").json(login);
    request.send().await.error(400, "M_INVALID_PARAM");
    let request = alice.post("/_matrix/client/v3/logout/all").json(json!({}));
    let _: Value = request.send().await.ok();
    let alice = server.login("alice").await;
    alice.get(AT).send().await.error(404, "M_NOT_FOUND");
    let alices = Device::of(&alice);
    let seen = alices.query(&[&alice.id]).await["device_keys"][&alice.id].clone();
    assert!(seen.as_object().is_none_or(serde_json::Map::is_empty));
}

/// <https://spec.matrix.org/v1.19/client-server-api/#cross-signing>: signatures name devices and cross-signing keys alike.
#[tokio::test(start_paused = true)]
async fn no_dehydrated_device_has_the_id_of_a_key() {
    let server = Server::start().await;
    let alice = server.register("alice").await;
    let keys = CrossSigning::of(&alice.id);
    let device = Device::of(&alice);
    let upload = device.post("device_signing/upload", keys.upload());
    upload.await.ok();
    for key in [&keys.master, &keys.self_signing, &keys.user_signing] {
        let mut device = Device::named(&alice, &public(key));
        let body = sealed(&mut device, 1);
        put(&alice, body).await.error(400, "M_INVALID_PARAM");
    }
}
