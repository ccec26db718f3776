//! <https://spec.matrix.org/v1.19/client-server-api/#cross-signing>

use comity_keys::tables;
use comity_storage::Range;
use comity_testkit::{
    Server, User,
    device::{CrossSigning, Device, public},
    password,
};
use serde_json::{Value, json};

const UPLOAD: &str = "device_signing/upload";

fn proof(name: &str, session: &Value) -> Value {
    json!({
        "type": "m.login.password",
        "identifier": {"type": "m.id.user", "user": name},
        "password": password(name),
        "session": session,
    })
}

/// A user with a device and cross-signing keys.
async fn signing(user: &User) -> (Device, CrossSigning) {
    let device = Device::of(user);
    device.publish().await;
    let keys = CrossSigning::of(&user.id);
    device.post(UPLOAD, keys.upload()).await.ok();
    (device, keys)
}

/// MSC3967: the first keys are free, and so are those that are there; others need the password.
#[tokio::test(start_paused = true)]
async fn who_replaces_keys_proves_who_they_are() {
    let server = Server::start().await;
    let alice = server.register("alice").await;
    let (device, keys) = signing(&alice).await;
    device.post(UPLOAD, keys.upload()).await.ok();
    let mut other = CrossSigning::of(&alice.id).upload();
    let challenge = device.post(UPLOAD, other.clone()).await;
    assert_eq!(challenge.status, 401, "{}", challenge.body);
    other["auth"] = proof("alice", &challenge.body["session"]);
    device.post(UPLOAD, other.clone()).await.ok();
    // Said again, the session that is over doesn't matter.
    device.post(UPLOAD, other.clone()).await.ok();
    let found = device.query(&[&alice.id]).await;
    for (name, key) in [
        ("master_keys", "master_key"),
        ("self_signing_keys", "self_signing_key"),
        ("user_signing_keys", "user_signing_key"),
    ] {
        assert_eq!(found[name][&alice.id], other[key]);
    }
    // Another master key alone takes the others with it.
    let mut alone = json!({ "master_key": CrossSigning::of(&alice.id).master_key() });
    let challenge = device.post(UPLOAD, alone.clone()).await;
    alone["auth"] = proof("alice", &challenge.body["session"]);
    device.post(UPLOAD, alone).await.ok();
    let found = device.query(&[&alice.id]).await;
    assert!(found.get("self_signing_keys").is_none(), "{found}");
}

/// Another master key with the subkeys of before: they stay if it has signed them, and are refused if it hasn't.
#[tokio::test(start_paused = true)]
async fn subkeys_stay_with_a_master_key_that_signs_them() {
    let server = Server::start().await;
    let alice = server.register("alice").await;
    let (device, keys) = signing(&alice).await;
    let mut signed = device.device_keys();
    keys.sign_with(&keys.self_signing, &mut signed);
    let body = json!({ &alice.id: { &device.id: signed } });
    device.post("signatures/upload", body).await.ok();
    let other = CrossSigning::of(&alice.id);
    let mut upload = keys.upload();
    upload["master_key"] = other.master_key();
    let refused = device.post(UPLOAD, upload.clone()).await;
    refused.error(400, "M_INVALID_SIGNATURE");
    for name in ["self_signing_key", "user_signing_key"] {
        upload[name]["signatures"] = json!({});
        other.sign_with(&other.master, &mut upload[name]);
    }
    let challenge = device.post(UPLOAD, upload.clone()).await;
    assert_eq!(challenge.status, 401, "{}", challenge.body);
    upload["auth"] = proof("alice", &challenge.body["session"]);
    device.post(UPLOAD, upload.clone()).await.ok();
    let found = device.query(&[&alice.id]).await;
    for name in ["master_key", "self_signing_key", "user_signing_key"] {
        assert_eq!(found[format!("{name}s")][&alice.id], upload[name]);
    }
    let of_device = &found["device_keys"][&alice.id][&device.id];
    assert_eq!(*of_device, signed, "what they signed counts");
}

/// Keys that aren't signed by the master key, or are another's, or named as a device is, are refused.
#[tokio::test(start_paused = true)]
async fn cross_signing_keys_that_cannot_be() {
    let server = Server::start().await;
    let alice = server.register("alice").await;
    let device = Device::of(&alice);
    let (keys, other) = (CrossSigning::of(&alice.id), CrossSigning::of(&alice.id));
    let good = keys.upload();
    let missing = json!({ "self_signing_key": good["self_signing_key"] });
    device
        .post(UPLOAD, missing)
        .await
        .error(400, "M_MISSING_PARAM");
    let forged = json!({
        "master_key": good["master_key"],
        "self_signing_key": other.upload()["self_signing_key"],
    });
    device
        .post(UPLOAD, forged)
        .await
        .error(400, "M_INVALID_SIGNATURE");
    let mut unsigned = good.clone();
    unsigned["user_signing_key"]
        .as_object_mut()
        .unwrap()
        .remove("signatures");
    device
        .post(UPLOAD, unsigned)
        .await
        .error(400, "M_INVALID_SIGNATURE");
    let with = |name: &str, value: Value| {
        let mut master = keys.master_key();
        master[name] = value;
        json!({ "master_key": master })
    };
    for (body, code) in [
        (with("user_id", "@bob:localhost".into()), "M_INVALID_PARAM"),
        (with("usage", json!(["self_signing"])), "M_INVALID_PARAM"),
        (with("keys", json!({})), "M_INVALID_PARAM"),
        (with("keys", json!({"ed25519:x": "x"})), "M_INVALID_PARAM"),
        (with("keys", json!({"ed25519:x": "y"})), "M_INVALID_PARAM"),
        (with("keys", json!([])), "M_BAD_JSON"),
        (json!({ "master_key": 5 }), "M_BAD_JSON"),
    ] {
        device.post(UPLOAD, body).await.error(400, code);
    }
    // A device that signs the master key must be right about it.
    device.publish().await;
    let mut master = keys.master_key();
    device.sign(&mut master);
    let by = format!("ed25519:{}", device.id);
    let mut wrong = other.master_key();
    wrong["signatures"] = master["signatures"].clone();
    let refused = device.post(UPLOAD, json!({ "master_key": wrong })).await;
    refused.error(400, "M_INVALID_SIGNATURE");
    assert!(master["signatures"][&alice.id][&by].is_string());
    let login = server.post("/_matrix/client/v3/login").json(json!({
        "type": "m.login.password",
        "identifier": {"type": "m.id.user", "user": "alice"},
        "password": password("alice"),
        "device_id": public(&keys.master),
    }));
    login.send().await.ok();
    let refused = device.post(UPLOAD, json!({ "master_key": master })).await;
    refused.error(403, "M_FORBIDDEN");
    assert!(
        device
            .query(&[&alice.id])
            .await
            .get("master_keys")
            .is_none()
    );
}

/// Nor is a device named as a key is.
#[tokio::test(start_paused = true)]
async fn no_device_has_the_id_of_a_key() {
    let server = Server::start().await;
    let alice = server.register("alice").await;
    let (_, keys) = signing(&alice).await;
    for key in [&keys.master, &keys.self_signing, &keys.user_signing] {
        let login = server.post("/_matrix/client/v3/login").json(json!({
            "type": "m.login.password",
            "identifier": {"type": "m.id.user", "user": "alice"},
            "password": password("alice"),
            "device_id": public(key),
        }));
        login.send().await.error(400, "M_INVALID_PARAM");
    }
}

/// Who sees what was signed: one's own keys' signatures everybody, those on others' keys oneself alone.
#[tokio::test(start_paused = true)]
async fn signatures_are_seen_by_those_they_are_for() {
    let server = Server::start().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let (alices, alices_keys) = signing(&alice).await;
    let (bobs, bobs_keys) = signing(&bob).await;
    let mut device = alices.device_keys();
    alices_keys.sign_with(&alices_keys.self_signing, &mut device);
    let mut own_master = alices_keys.master_key();
    alices.sign(&mut own_master);
    let mut bobs_master = bobs_keys.master_key();
    alices_keys.sign_with(&alices_keys.user_signing, &mut bobs_master);
    let body = json!({
        &alice.id: { &alices.id: device, public(&alices_keys.master): own_master },
        &bob.id: { public(&bobs_keys.master): bobs_master },
    });
    for _ in 0..2 {
        let answer = alices.post("signatures/upload", body.clone()).await.ok();
        assert_eq!(answer, json!({ "failures": {} }));
    }
    let users = [alice.id.as_str(), bob.id.as_str()];
    let of_alice = alices.query(&users).await;
    let of_bob = bobs.query(&users).await;
    for found in [&of_alice, &of_bob] {
        assert_eq!(found["device_keys"][&alice.id][&alices.id], device);
        assert_eq!(found["master_keys"][&alice.id], own_master);
    }
    assert_eq!(of_alice["master_keys"][&bob.id], bobs_master);
    assert_eq!(of_bob["master_keys"][&bob.id], bobs_keys.master_key());
    let user_signing = of_bob["user_signing_keys"].as_object().unwrap();
    assert!(user_signing.keys().eq([&bob.id]), "{user_signing:?}");
    // Other identity keys under the same id are not what was signed.
    let new = Device::of(&alice);
    let keys = new.publish().await;
    assert_eq!(
        bobs.query(&users).await["device_keys"][&alice.id][&alices.id],
        keys
    );
}

/// data-model.md, Device lists: of what one signed of another's keys only the latest has an entry, and none once it is forgotten.
#[tokio::test(start_paused = true)]
async fn entries_go_with_what_was_signed() {
    let server = Server::start().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let (alices, alices_keys) = signing(&alice).await;
    let (bobs, _) = signing(&bob).await;
    let entries = async || {
        let reader = server.api.rooms.tenant().reader();
        let rows = reader.scan::<tables::Changes>(Range::everywhere(|_| {}));
        let rows = rows.await.unwrap().into_iter();
        rows.filter(|(_, row)| row.value.only.is_some()).count()
    };
    let replace = async |name: &str, device: &Device, upload: &Value| {
        let mut upload = upload.clone();
        let challenge = device.post(UPLOAD, upload.clone()).await;
        upload["auth"] = proof(name, &challenge.body["session"]);
        device.post(UPLOAD, upload).await.ok();
    };
    for _ in 0..2 {
        let bobs_keys = CrossSigning::of(&bob.id);
        replace("bob", &bobs, &bobs_keys.upload()).await;
        let mut master = bobs_keys.master_key();
        alices_keys.sign_with(&alices_keys.user_signing, &mut master);
        let body = json!({ &bob.id: { public(&bobs_keys.master): master } });
        let answer = alices.post("signatures/upload", body).await.ok();
        assert_eq!(answer, json!({ "failures": {} }));
        assert_eq!(entries().await, 1);
    }
    let other = CrossSigning::of(&alice.id);
    replace("alice", &alices, &other.upload()).await;
    assert_eq!(entries().await, 0);
}

/// Threat F6: what isn't rightly signed is told as failed, and nothing of it is kept.
#[tokio::test(start_paused = true)]
async fn f6_forged_signatures_are_failures() {
    let server = Server::start().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let (alices, alices_keys) = signing(&alice).await;
    let (bobs, bobs_keys) = signing(&bob).await;
    let stranger = CrossSigning::of(&alice.id);
    let before = alices.query(&[&alice.id, &bob.id]).await;
    let own = |sign: &dyn Fn(&mut Value)| {
        let mut keys = alices.device_keys();
        sign(&mut keys);
        json!({ &alice.id: { &alices.id: keys } })
    };
    let others = |sign: &dyn Fn(&mut Value)| {
        let mut master = bobs_keys.master_key();
        sign(&mut master);
        json!({ &bob.id: { public(&bobs_keys.master): master } })
    };
    let self_signing = &alices_keys.self_signing;
    let user_signing = &alices_keys.user_signing;
    let mut bobs_device = bobs.device_keys();
    alices_keys.sign_with(user_signing, &mut bobs_device);
    let cases = [
        // A key that isn't there.
        (
            own(&|keys| stranger.sign_with(&stranger.self_signing, keys)),
            "M_INVALID_SIGNATURE",
        ),
        // A key that may not sign that.
        (
            own(&|keys| alices_keys.sign_with(user_signing, keys)),
            "M_INVALID_SIGNATURE",
        ),
        (
            others(&|keys| alices_keys.sign_with(self_signing, keys)),
            "M_INVALID_SIGNATURE",
        ),
        // Another's signature of it.
        (
            own(&|keys| {
                let id = format!("ed25519:{}", public(self_signing));
                let mut other = json!({"x": 1});
                alices_keys.sign_with(self_signing, &mut other);
                keys["signatures"][&alice.id][&id] = other["signatures"][&alice.id][&id].clone();
            }),
            "M_INVALID_SIGNATURE",
        ),
        // Another object.
        (
            own(&|keys| {
                keys["algorithms"] = json!([]);
                alices_keys.sign_with(self_signing, keys);
            }),
            "M_INVALID_PARAM",
        ),
        // Nothing that is signed by who asks.
        (others(&|_| ()), "M_INVALID_SIGNATURE"),
        // Another's device can't be signed.
        (json!({ &bob.id: { &bobs.id: bobs_device } }), "M_NOT_FOUND"),
        (
            json!({ &alice.id: { "NOWHERE": alices.device_keys() } }),
            "M_NOT_FOUND",
        ),
        (json!({ &alice.id: { &alices.id: [] } }), "M_BAD_JSON"),
    ];
    for (body, code) in cases {
        let answer = alices.post("signatures/upload", body.clone()).await.ok();
        let failures = answer["failures"].as_object().unwrap();
        let of_user = failures.values().next().expect("a failure");
        let failure = of_user.as_object().unwrap().values().next().unwrap();
        assert_eq!(failure["errcode"], code, "{body}");
    }
    assert_eq!(alices.query(&[&alice.id, &bob.id]).await, before);
}
