//! <https://spec.matrix.org/v1.19/client-server-api/#one-time-and-fallback-keys>

use std::{collections::BTreeSet, sync::Arc};

use comity_runtime::Runtime;
use comity_storage::{Engine, Lanes, Options, Store, TenantId, engine::Memory};
use comity_testkit::{Place, Server, Settings, User, Wire, device::Device};
use futures_util::future::join_all;
use serde_json::{Map, Value, json};

/// What `/sync` says that a device has left: one-time keys, unused fallback keys.
async fn left(user: &User) -> (u64, Value) {
    let answer = user.sync(None).await;
    let count = answer["device_one_time_keys_count"]["signed_curve25519"].as_u64();
    let unused = answer["device_unused_fallback_key_types"].clone();
    (count.expect("a count is always told"), unused)
}

/// Keys are given away in the order of their uploads, each once; then the fallback key, again and again; its owner is told.
#[tokio::test(start_paused = true)]
async fn one_time_keys_then_the_fallback_key() {
    let server = Server::start().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let (mut alices, bobs) = (Device::of(&alice), Device::of(&bob));
    alices.publish().await;
    assert_eq!(left(&alice).await, (0, json!([])));
    let uploads: Vec<Map<String, Value>> = (0..3).map(|_| alices.one_time_keys(1)).collect();
    for keys in &uploads {
        alices.upload(json!({ "one_time_keys": keys })).await.ok();
    }
    let fallback = alices.fallback_key();
    alices
        .upload(json!({ "fallback_keys": fallback }))
        .await
        .ok();
    assert_eq!(left(&alice).await, (3, json!(["signed_curve25519"])));
    for keys in &uploads {
        let (id, key) = bobs.claim(&alice.id, &alice.device).await.unwrap();
        assert_eq!(keys.get(&id), Some(&key));
    }
    assert_eq!(left(&alice).await, (0, json!(["signed_curve25519"])));
    for _ in 0..2 {
        let (id, key) = bobs.claim(&alice.id, &alice.device).await.unwrap();
        assert_eq!(fallback.get(&id), Some(&key));
        assert_eq!(left(&alice).await, (0, json!([])));
    }
    // Saying the same again doesn't make it new.
    alices
        .upload(json!({ "fallback_keys": fallback }))
        .await
        .ok();
    assert_eq!(left(&alice).await, (0, json!([])));
    let next = alices.fallback_key();
    alices.upload(json!({ "fallback_keys": next })).await.ok();
    assert_eq!(left(&alice).await, (0, json!(["signed_curve25519"])));
}

/// The same key again is fine, another one under its id isn't; one that was given away is not taken in again.
#[tokio::test(start_paused = true)]
async fn uploads_may_be_repeated() {
    let server = Server::start().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let (mut alices, bobs) = (Device::of(&alice), Device::of(&bob));
    alices.publish().await;
    let keys = alices.one_time_keys(2);
    let body = json!({ "one_time_keys": keys });
    for _ in 0..2 {
        let counts = alices.upload(body.clone()).await.ok();
        assert_eq!(
            counts["one_time_key_counts"],
            json!({"signed_curve25519": 2})
        );
    }
    let (id, _) = keys.iter().next().unwrap();
    let (_, another) = alices.one_time_keys(1).into_iter().next().unwrap();
    let mut both = alices.one_time_keys(1);
    both.insert(id.clone(), another);
    let refused = alices.upload(json!({ "one_time_keys": both })).await;
    refused.error(400, "M_INVALID_PARAM");
    let (given, _) = bobs.claim(&alice.id, &alice.device).await.unwrap();
    let counts = alices.upload(body).await.ok();
    assert_eq!(
        counts["one_time_key_counts"],
        json!({"signed_curve25519": 1})
    );
    let (last, _) = bobs.claim(&alice.id, &alice.device).await.unwrap();
    assert_ne!(given, last);
    assert_eq!(bobs.claim(&alice.id, &alice.device).await, None);
}

/// A claim wakes the device whose key it was, so that it makes more.
#[tokio::test(start_paused = true)]
async fn a_claim_is_news_to_the_device() {
    let server = Server::start().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let (mut alices, bobs) = (Device::of(&alice), Device::of(&bob));
    let one_time_keys = alices.one_time_keys(1);
    let device_keys = alices.device_keys();
    let body = json!({ "device_keys": device_keys, "one_time_keys": one_time_keys });
    alices.upload(body).await.ok();
    let since = alice.sync(None).await["next_batch"]
        .as_str()
        .unwrap()
        .to_owned();
    let poll = alice
        .sync_request(Some(&since))
        .query("timeout", "30000")
        .send();
    let (answer, claimed) = tokio::join!(poll, bobs.claim(&alice.id, &alice.device));
    assert!(claimed.is_some());
    assert_eq!(
        answer.ok()["device_one_time_keys_count"]["signed_curve25519"],
        0
    );
}

/// Threat F7: a thousand claims at a time get no one-time key twice, over a restart neither.
#[tokio::test(start_paused = true)]
async fn f7_no_one_time_key_twice() {
    let server = Server::start().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let (mut alices, bobs) = (Device::of(&alice), Device::of(&bob));
    alices.publish().await;
    for _ in 0..8 {
        let keys = alices.one_time_keys(50);
        alices.upload(json!({ "one_time_keys": keys })).await.ok();
    }
    let claim = || bobs.claim(&alice.id, &alice.device);
    let mut given = BTreeSet::new();
    for claimed in join_all((0..300).map(|_| claim())).await {
        let (id, _) = claimed.expect("there are enough");
        assert!(given.insert(id), "a key was given twice");
    }
    let server = server.restarted().await;
    let bob = server.login("bob").await;
    let bobs = Device::of(&bob);
    let claim = || bobs.claim(&alice.id, &alice.device);
    let claimed = join_all((0..700).map(|_| claim())).await;
    for (id, _) in claimed.into_iter().flatten() {
        assert!(given.insert(id), "a key was given twice");
    }
    assert_eq!(given.len(), 400);
}

/// Threat F7, data-model.md (Tokens): keys uploaded before a backup are not given away once it was put back, for they may have been since;
/// nor those that a start finds which may have lost something.
#[tokio::test(start_paused = true)]
async fn f7_no_one_time_key_twice_after_a_restore() {
    let disk = Memory::new();
    let open = async |disk: Memory, run: u64| {
        let place = Place {
            disk,
            files: comity_testkit::files(),
            lanes: u8::try_from(comity_testkit::lanes()).unwrap(),
            sync: false,
            runtime: Runtime::simulated(run),
            wire: Wire::new(),
            // The first run may find that the second has taken the disk.
            on_fatal: Arc::new(|_| ()),
        };
        Server::open(place, Settings::default()).await.unwrap()
    };
    let server = open(disk.clone(), 1).await;
    let (alice, _) = (server.register("alice").await, server.register("bob").await);
    let mut alices = Device::of(&alice);
    alices.publish().await;
    let (keys, fallback) = (alices.one_time_keys(5), alices.fallback_key());
    let body = json!({ "one_time_keys": keys, "fallback_keys": fallback });
    alices.upload(body).await.ok();
    server.api.rooms.tenant().close().await.unwrap();
    drop(server);
    let backup = disk.backup();
    let claimed = async |disk: Memory, run: u64| {
        let server = open(disk, run).await;
        let bobs = Device::of(&server.login("bob").await);
        let (id, key) = bobs.claim(&alice.id, &alice.device).await.unwrap();
        // Ids of both kinds may be the same.
        (fallback.get(&id) == Some(&key), server)
    };
    // What the backup knows nothing of.
    let (is_fallback, server) = claimed(disk.clone(), 2).await;
    assert!(!is_fallback);
    drop(server);
    put_back(&backup).await;
    // Without a clean end, and without having waited for the disk, something may be lost as well.
    for (disk, run) in [(backup, 3), (disk, 4)] {
        assert!(claimed(disk, run).await.0, "run {run}");
    }
}

/// What `comity restored` does.
async fn put_back(disk: &Memory) {
    let options = Options {
        lanes: Lanes::new(u8::try_from(comity_testkit::lanes()).unwrap()).unwrap(),
        sync: true,
        on_fatal: Arc::new(|_| ()),
        appliers: Vec::new(),
    };
    let store = Store::new(Engine::Memory(disk.clone()), options, Runtime::simulated(9));
    let tenant = store.restored(TenantId(1)).await.unwrap();
    tenant.close().await.unwrap();
}
