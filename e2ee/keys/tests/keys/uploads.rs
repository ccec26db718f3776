//! <https://spec.matrix.org/v1.19/client-server-api/#uploading-keys>

use comity_testkit::{Server, device::Device};
use serde_json::{Value, json};

/// Threat F8: what was signed comes back as it was uploaded, with fields that nobody here knows; the name stands beside it.
#[tokio::test(start_paused = true)]
async fn f8_signed_keys_come_back_as_they_were_uploaded() {
    let server = Server::start().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let (alices, bobs) = (Device::of(&alice), Device::of(&bob));
    let mut keys = alices.device_keys();
    keys["org.example.dehydrated"] = json!({"z": [1, {"b": null, "a": "ü\u{0}"}], "a": true});
    alices.sign(&mut keys);
    keys["unsigned"] = json!({"device_display_name": "not for the client to say"});
    alices.upload(json!({ "device_keys": keys })).await.ok();
    let path = format!("/_matrix/client/v3/devices/{}", alice.device);
    let named = alice.put(path).json(json!({"display_name": "phone"}));
    named.send().await.ok();
    keys["unsigned"] = json!({"device_display_name": "phone"});
    let found = bobs.query(&[&alice.id, &bob.id, "@nobody:localhost"]).await;
    let device_keys = &found["device_keys"];
    assert_eq!(device_keys[&alice.id], json!({ &alice.device: keys }));
    assert_eq!(device_keys[&bob.id], json!({}), "a user without keys");
    assert!(device_keys.get("@nobody:localhost").is_none());
    // One device of several.
    let asked = json!({ "device_keys": { &alice.id: ["OTHER"] } });
    let found = bobs.post("query", asked).await.ok();
    assert_eq!(found["device_keys"][&alice.id], json!({}));
}

/// Threat F4: keys of the wrong ids, types and numbers are refused, and nothing of the upload is kept.
#[tokio::test(start_paused = true)]
async fn f4_keys_that_cannot_be_are_refused() {
    let server = Server::start().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let mut device = Device::of(&alice);
    let other = Device::of(&bob);
    let (key_id, key) = device.one_time_keys(1).into_iter().next().unwrap();
    let with = |change: &dyn Fn(&mut Value)| {
        let mut keys = device.device_keys();
        change(&mut keys);
        device.sign(&mut keys);
        keys
    };
    let bad = |keys: Value, code: &'static str| (json!({ "device_keys": keys }), code);
    let id = device.id.clone();
    let mut cases = vec![
        bad(other.device_keys(), "M_INVALID_PARAM"),
        bad(
            with(&|keys| keys["device_id"] = "OTHER".into()),
            "M_INVALID_PARAM",
        ),
        bad(with(&|keys| keys["user_id"] = 5.into()), "M_BAD_JSON"),
        bad(with(&|keys| keys["algorithms"] = json!([1])), "M_BAD_JSON"),
        bad(json!({"user_id": alice.id, "device_id": id}), "M_BAD_JSON"),
        bad(json!("text"), "M_BAD_JSON"),
        bad(
            with(&|keys| keys["keys"]["curve25519:OTHER"] = "x".into()),
            "M_INVALID_PARAM",
        ),
        bad(
            with(&|keys| {
                keys["keys"]
                    .as_object_mut()
                    .unwrap()
                    .remove(&format!("ed25519:{id}"));
            }),
            "M_INVALID_PARAM",
        ),
    ];
    let mut float = device.device_keys();
    float["n"] = json!(1.5);
    cases.push(bad(float, "M_BAD_JSON"));
    device.publish().await;
    let name = key_id.split_once(':').unwrap().1.to_owned();
    for (id, key, code) in [
        (name.clone(), key.clone(), "M_INVALID_PARAM"),
        (":x".to_owned(), key.clone(), "M_INVALID_PARAM"),
        (key_id.clone(), json!(5), "M_BAD_JSON"),
        (key_id.clone(), json!({"key": 5}), "M_BAD_JSON"),
        (key_id.clone(), json!("text"), "M_BAD_JSON"),
        (key_id.clone(), json!({"key": "x"}), "M_INVALID_PARAM"),
    ] {
        cases.push((json!({ "one_time_keys": { id: key } }), code));
    }
    let two = json!({ "fallback_keys": { &key_id: key, format!("{key_id}x"): key } });
    cases.push((two, "M_INVALID_PARAM"));
    for (body, code) in cases {
        device.upload(body).await.error(400, code);
    }
    let counts = device.upload(json!({})).await.ok();
    assert_eq!(
        counts["one_time_key_counts"],
        json!({"signed_curve25519": 0})
    );
    let long = json!({ "device_keys": with(&|keys| keys["x"] = "x".repeat(40_000).into()) });
    device.upload(long).await.error(413, "M_TOO_LARGE");
}

/// A signature by another key, or of other content, is refused: of identity, one-time and fallback keys.
#[tokio::test(start_paused = true)]
async fn forged_keys_are_refused() {
    let server = Server::start().await;
    let alice = server.register("alice").await;
    let (mut device, mut thief) = (Device::of(&alice), Device::of(&alice));
    let mut forged = device.device_keys();
    forged["signatures"] = thief.device_keys()["signatures"].clone();
    let refused = device.upload(json!({ "device_keys": forged })).await;
    refused.error(400, "M_INVALID_PARAM");
    // Without identity keys nobody could check the others.
    let early = json!({ "one_time_keys": device.one_time_keys(1) });
    device.upload(early).await.error(400, "M_INVALID_PARAM");
    device.publish().await;
    for body in [
        json!({ "one_time_keys": thief.one_time_keys(1) }),
        json!({ "fallback_keys": thief.fallback_key() }),
    ] {
        device.upload(body).await.error(400, "M_INVALID_PARAM");
    }
    let mut changed = device.fallback_key();
    changed
        .values_mut()
        .for_each(|key| key["fallback"] = false.into());
    let refused = device.upload(json!({ "fallback_keys": changed })).await;
    refused.error(400, "M_INVALID_PARAM");
}

/// What a device had goes with it: with its deletion, its logout, and the account's end.
#[tokio::test(start_paused = true)]
async fn keys_go_with_their_device() {
    let server = Server::start().await;
    let bob = server.register("bob").await;
    let bobs = Device::of(&bob);
    let first = server.register("alice").await;
    let (second, third) = (server.login("alice").await, server.login("alice").await);
    let mut devices = [Device::of(&first), Device::of(&second), Device::of(&third)];
    for device in &mut devices {
        let keys = device.device_keys();
        let one_time = device.one_time_keys(2);
        let body = json!({ "device_keys": keys, "one_time_keys": one_time });
        device.upload(body).await.ok();
    }
    let known = async || {
        let found = bobs.query(&[&first.id]).await;
        let devices = found["device_keys"][&first.id].as_object();
        devices.map(|devices| devices.keys().cloned().collect::<Vec<_>>())
    };
    assert_eq!(known().await.unwrap().len(), 3);
    second.post("/_matrix/client/v3/logout").send().await.ok();
    assert_eq!(known().await.unwrap().len(), 2);
    assert_eq!(bobs.claim(&first.id, &second.device).await, None);
    let proof = json!({
        "type": "m.login.password",
        "identifier": {"type": "m.id.user", "user": "alice"},
        "password": comity_testkit::password("alice"),
    });
    let delete = first.delete(format!("/_matrix/client/v3/devices/{}", third.device));
    delete.json(json!({ "auth": proof })).send().await.ok();
    assert_eq!(known().await.unwrap(), [first.device.as_str()]);
    // Somebody else on a device of the same name has nothing of it.
    let end = first.post("/_matrix/client/v3/account/deactivate");
    end.json(json!({ "auth": proof })).send().await.ok();
    assert_eq!(known().await, None);
    assert_eq!(bobs.claim(&first.id, &first.device).await, None);
}
