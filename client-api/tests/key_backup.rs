//! Server-side key backups (R20.3): <https://spec.matrix.org/v1.19/client-server-api/#server-side-key-backups>.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use comity_testkit::{Server, User, encode};
use serde_json::{Value, json};

const VERSIONS: &str = "/_matrix/client/v3/room_keys/version";
const KEYS: &str = "/_matrix/client/v3/room_keys/keys";
const ALGORITHM: &str = "m.megolm_backup.v1.curve25519-aes-sha2";
const ROOM: &str = "!room:localhost";
const OTHER: &str = "!other:localhost";

async fn create(user: &User, public_key: &str) -> String {
    let body = json!({"algorithm": ALGORITHM, "auth_data": {"public_key": public_key}});
    let made = user.post(VERSIONS).json(body).send().await.ok();
    made["version"].as_str().unwrap().to_owned()
}

fn key(index: u64, forwarded: u64, verified: bool) -> Value {
    json!({
        "first_message_index": index,
        "forwarded_count": forwarded,
        "is_verified": verified,
        "session_data": {"ciphertext": format!("{index} {forwarded} {verified}"), "1": 1.5},
    })
}

fn of(room: &str, session: &str) -> String {
    format!("{KEYS}/{}/{}", encode(room), encode(session))
}

async fn put(user: &User, path: &str, version: &str, body: Value) -> Value {
    let request = user.put(path).query("version", version).json(body);
    request.send().await.ok()
}

async fn get(user: &User, path: &str, version: &str) -> Value {
    user.get(path).query("version", version).send().await.ok()
}

async fn info(user: &User, version: &str) -> Value {
    let answer = user.get(format!("{VERSIONS}/{version}")).send().await;
    answer.ok()
}

/// Versions are made, described, changed and deleted; the newest is the one without a name; nobody else sees them.
#[tokio::test(start_paused = true)]
async fn versions_follow_each_other() {
    let server = Server::start().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    alice.get(VERSIONS).send().await.error(404, "M_NOT_FOUND");
    let first = create(&alice, "one").await;
    let second = create(&alice, "two").await;
    assert_ne!(first, second);
    let newest = alice.get(VERSIONS).send().await.ok();
    assert_eq!(newest["version"], second.as_str());
    assert_eq!(newest["auth_data"], json!({"public_key": "two"}));
    assert_eq!(
        (&newest["algorithm"], &newest["count"]),
        (&json!(ALGORITHM), &json!(0))
    );
    assert_eq!(info(&alice, &first).await["auth_data"]["public_key"], "one");
    bob.get(format!("{VERSIONS}/{first}"))
        .send()
        .await
        .error(404, "M_NOT_FOUND");
    for unknown in ["0", "3", "01", "-1", "nothing"] {
        let path = format!("{VERSIONS}/{unknown}");
        alice.get(&path).send().await.error(404, "M_NOT_FOUND");
        alice.delete(&path).send().await.error(404, "M_NOT_FOUND");
    }

    let path = format!("{VERSIONS}/{first}");
    let changed =
        json!({"algorithm": ALGORITHM, "auth_data": {"public_key": "new"}, "version": first});
    let _: Value = alice.put(&path).json(&changed).send().await.ok();
    assert_eq!(info(&alice, &first).await["auth_data"]["public_key"], "new");
    for (field, other) in [("algorithm", "m.other"), ("version", second.as_str())] {
        let mut wrong = changed.clone();
        wrong[field] = json!(other);
        let refused = alice.put(&path).json(wrong).send().await;
        refused.error(400, "M_INVALID_PARAM");
    }

    let newest = format!("{VERSIONS}/{second}");
    for _ in 0..2 {
        let _: Value = alice.delete(&newest).send().await.ok();
    }
    alice.get(&newest).send().await.error(404, "M_NOT_FOUND");
    let left = alice.get(VERSIONS).send().await.ok();
    assert_eq!(left["version"], first.as_str());
    let third = create(&alice, "three").await;
    assert!(
        third != first && third != second,
        "a version is never given again"
    );
    let newest = server.restarted().await;
    let newest = newest.with_token(&alice.token).get(VERSIONS).send().await;
    assert_eq!(newest.ok()["version"], third.as_str());
}

/// Keys come and are read in each of the three ways, as they were uploaded; the etag changes with them, the count is theirs.
#[tokio::test(start_paused = true)]
async fn keys_come_and_are_read_in_three_ways() {
    let server = Server::start().await;
    let alice = server.register("alice").await;
    let version = create(&alice, "key").await;
    assert_eq!(get(&alice, KEYS, &version).await, json!({"rooms": {}}));
    let room = format!("{KEYS}/{}", encode(ROOM));
    assert_eq!(get(&alice, &room, &version).await, json!({"sessions": {}}));
    let missing = alice.get(of(ROOM, "one")).query("version", &version);
    missing.send().await.error(404, "M_NOT_FOUND");

    let (one, two) = (key(1, 0, false), key(2, 0, true));
    let stored = put(&alice, &of(ROOM, "one"), &version, one.clone()).await;
    assert_eq!(stored["count"], 1);
    let again = put(&alice, &of(ROOM, "one"), &version, one.clone()).await;
    assert_eq!(again, stored, "nothing has changed");
    let sessions = json!({"sessions": {"two": two, "a/b c": one}});
    let more = put(&alice, &room, &version, sessions).await;
    assert_eq!(more["count"], 3);
    assert_ne!(more["etag"], stored["etag"]);
    let rooms =
        json!({"rooms": {ROOM: {"sessions": {"one": one}}, OTHER: {"sessions": {"one": two}}}});
    let most = put(&alice, KEYS, &version, rooms).await;
    assert_eq!(most["count"], 4);
    let described = info(&alice, &version).await;
    assert_eq!(
        (&described["count"], &described["etag"]),
        (&most["count"], &most["etag"])
    );

    assert_eq!(get(&alice, &of(ROOM, "a/b c"), &version).await, one);
    let in_room = json!({"one": one, "two": two, "a/b c": one});
    assert_eq!(
        get(&alice, &room, &version).await,
        json!({"sessions": in_room})
    );
    assert_eq!(
        get(&alice, KEYS, &version).await,
        json!({"rooms": {ROOM: {"sessions": in_room}, OTHER: {"sessions": {"one": two}}}})
    );
    let raw = r#"{"first_message_index":1,"forwarded_count":0,"is_verified":true,"session_data":{"b":1.50,"a": 1}}"#;
    let upload = alice.put(of(ROOM, "raw")).query("version", &version);
    let _: Value = upload.body(raw, "application/json").send().await.ok();
    let read = alice.get(of(ROOM, "raw")).query("version", &version);
    assert_eq!(read.send().await.bytes, raw, "byte for byte as it came");
    let unknown = alice.get(KEYS).query("version", "7").send().await;
    unknown.error(404, "M_NOT_FOUND");
    alice.get(KEYS).send().await.error(400, "M_INVALID_PARAM");
}

/// Deleting, a key, a room's, all of them: the rest stays, the count follows; deleting none changes nothing.
#[tokio::test(start_paused = true)]
async fn keys_go() {
    let server = Server::start().await;
    let alice = server.register("alice").await;
    let version = create(&alice, "key").await;
    let sessions =
        json!({"sessions": {"a": key(0, 0, true), "b": key(0, 0, true), "c": key(0, 0, true)}});
    let rooms = json!({"rooms": {ROOM: sessions, OTHER: sessions}});
    let mut before = put(&alice, KEYS, &version, rooms).await;
    for (path, count) in [
        (of(ROOM, "a"), 5),
        (format!("{KEYS}/{}", encode(ROOM)), 3),
        (KEYS.to_owned(), 0),
    ] {
        let remove = || alice.delete(&path).query("version", &version).send();
        let removed = remove().await.ok();
        assert_eq!(removed["count"], count, "{path}");
        assert_ne!(removed["etag"], before["etag"]);
        assert_eq!(remove().await.ok(), removed, "there was nothing left");
        before = removed;
        if count == 3 {
            assert_eq!(
                get(&alice, KEYS, &version).await,
                json!({"rooms": {OTHER: sessions}})
            );
        }
    }
    let unknown = alice.delete(KEYS).query("version", "9").send().await;
    unknown.error(404, "M_NOT_FOUND");
    // What is deleted doesn't come back with the next version.
    put(&alice, &of(ROOM, "a"), &version, key(0, 0, true)).await;
    let path = format!("{VERSIONS}/{version}");
    let _: Value = alice.delete(path).send().await.ok();
    let next = create(&alice, "key").await;
    assert_eq!(get(&alice, KEYS, &next).await, json!({"rooms": {}}));
}

/// Of two keys of a session the better one stays, whichever came first.
#[tokio::test(start_paused = true)]
async fn the_better_key_stays() {
    let server = Server::start().await;
    let alice = server.register("alice").await;
    let version = create(&alice, "key").await;
    let path = of(ROOM, "session");
    for (stored, stays) in [
        (key(10, 5, false), true),
        (key(11, 5, false), false),
        (key(10, 6, false), false),
        (key(10, 5, false), false),
        (key(10, 4, false), true),
        (key(9, 9, false), true),
        (key(20, 9, true), true),
        (key(0, 0, false), false),
        (key(19, 9, true), true),
    ] {
        let before = info(&alice, &version).await["etag"].clone();
        let answer = put(&alice, &path, &version, stored.clone()).await;
        assert_eq!(answer["count"], 1);
        assert_eq!(answer["etag"] != before, stays, "{stored}");
        assert_eq!(
            get(&alice, &path, &version).await == stored,
            stays || stored == key(10, 5, false)
        );
    }
}

/// Only the newest backup takes keys; the older ones are still read and deleted from.
#[tokio::test(start_paused = true)]
async fn older_backups_take_no_keys() {
    let server = Server::start().await;
    let alice = server.register("alice").await;
    let nowhere = alice
        .put(of(ROOM, "a"))
        .query("version", "1")
        .json(key(0, 0, true));
    nowhere.send().await.error(404, "M_NOT_FOUND");
    let old = create(&alice, "old").await;
    put(&alice, &of(ROOM, "a"), &old, key(0, 0, true)).await;
    let new = create(&alice, "new").await;
    let sessions = json!({"sessions": {"b": key(0, 0, true)}});
    for (path, body) in [
        (KEYS.to_owned(), json!({"rooms": {ROOM: sessions}})),
        (format!("{KEYS}/{}", encode(ROOM)), sessions),
        (of(ROOM, "b"), key(0, 0, true)),
    ] {
        let refused = alice
            .put(&path)
            .query("version", &old)
            .json(&body)
            .send()
            .await;
        let refusal = refused.error(403, "M_WRONG_ROOM_KEYS_VERSION");
        assert_eq!(refusal["current_version"], new.as_str());
        let unknown = alice
            .put(&path)
            .query("version", "9")
            .json(&body)
            .send()
            .await;
        unknown.error(404, "M_NOT_FOUND");
    }
    assert_eq!(get(&alice, &of(ROOM, "a"), &old).await, key(0, 0, true));
    let removed = alice.delete(KEYS).query("version", &old).send().await.ok();
    assert_eq!(removed["count"], 0);
}

/// Two devices that back up at the same time: each key is there, and counted once.
#[tokio::test(start_paused = true)]
async fn backups_at_the_same_time_lose_nothing() {
    let server = Server::start().await;
    let alice = server.register("alice").await;
    let version = create(&alice, "key").await;
    let puts = (0..8).map(|n| {
        let sessions = json!({"sessions": {"shared": key(8 - n, 0, true), format!("own {n}"): key(0, 0, true)}});
        let path = format!("{KEYS}/{}", encode(ROOM));
        let request = alice.put(path).query("version", &version).json(sessions);
        async { request.send().await.ok() }
    });
    futures_util::future::join_all(puts).await;
    assert_eq!(info(&alice, &version).await["count"], 9);
    assert_eq!(
        get(&alice, &of(ROOM, "shared"), &version).await,
        key(1, 0, true)
    );
}

/// More keys than are read in one go come as one object (law 11).
#[tokio::test(start_paused = true)]
async fn large_backups_are_read_whole() {
    let server = Server::start().await;
    let alice = server.register("alice").await;
    let version = create(&alice, "key").await;
    let sessions = |from: u64| -> Value {
        let sessions = (from..from + 600).map(|n| (n.to_string(), key(n, 0, false)));
        json!({"sessions": sessions.collect::<serde_json::Map<_, _>>()})
    };
    let rooms = json!({ROOM: sessions(0), OTHER: sessions(1_000)});
    put(&alice, KEYS, &version, json!({"rooms": rooms})).await;
    assert_eq!(get(&alice, KEYS, &version).await, json!({"rooms": rooms}));
    let room = format!("{KEYS}/{}", encode(OTHER));
    assert_eq!(get(&alice, &room, &version).await, rooms[OTHER]);
    let removed = alice
        .delete(&room)
        .query("version", &version)
        .send()
        .await
        .ok();
    assert_eq!(removed["count"], 600);
}

/// Threats A1, F4: what can't be a key is refused whole; what is too large, with its code.
#[tokio::test(start_paused = true)]
async fn what_can_not_be_a_key_is_refused() {
    let server = Server::start().await;
    let alice = server.register("alice").await;
    let version = create(&alice, "key").await;
    for (field, value, status, code) in [
        ("first_message_index", json!(-1), 400, "M_BAD_JSON"),
        ("first_message_index", json!(1.5), 400, "M_BAD_JSON"),
        ("first_message_index", json!("1"), 400, "M_BAD_JSON"),
        (
            "first_message_index",
            json!(1_u64 << 53),
            400,
            "M_INVALID_PARAM",
        ),
        ("forwarded_count", json!(null), 400, "M_BAD_JSON"),
        ("is_verified", json!(1), 400, "M_BAD_JSON"),
        ("session_data", json!("text"), 400, "M_INVALID_PARAM"),
        (
            "session_data",
            json!({"a": "x".repeat(17 << 10)}),
            413,
            "M_TOO_LARGE",
        ),
    ] {
        let mut bad = key(0, 0, true);
        bad[field] = value;
        let body = json!({"rooms": {ROOM: {"sessions": {"good": key(0, 0, true), "bad": bad}}}});
        let refused = alice
            .put(KEYS)
            .query("version", &version)
            .json(body)
            .send()
            .await;
        refused.error(status, code);
    }
    let long = "s".repeat(256);
    let refused = alice
        .put(of(ROOM, &long))
        .query("version", &version)
        .json(key(0, 0, true));
    refused.send().await.error(400, "M_INVALID_PARAM");
    let no_room = alice
        .put(of("room", "s"))
        .query("version", &version)
        .json(key(0, 0, true));
    no_room.send().await.error(400, "M_INVALID_PARAM");
    let no_room = json!({"rooms": {"room": {"sessions": {"s": key(0, 0, true)}}}});
    let refused = alice.put(KEYS).query("version", &version).json(no_room);
    refused.send().await.error(400, "M_BAD_JSON");
    assert_eq!(info(&alice, &version).await["count"], 0);

    for (algorithm, auth_data, status, code) in [
        ("", json!({}), 400, "M_INVALID_PARAM"),
        (ALGORITHM, json!("text"), 400, "M_INVALID_PARAM"),
        (
            ALGORITHM,
            json!({"a": "x".repeat(65 << 10)}),
            413,
            "M_TOO_LARGE",
        ),
    ] {
        let body = json!({"algorithm": algorithm, "auth_data": auth_data});
        let refused = alice.post(VERSIONS).json(body).send().await;
        refused.error(status, code);
    }
}

/// A user has a hundred backups at the most (law 11); deleting one makes room.
#[tokio::test(start_paused = true)]
async fn backups_are_bounded() {
    let server = Server::start().await;
    let alice = server.register("alice").await;
    for _ in 0..100 {
        create(&alice, "key").await;
    }
    let body = json!({"algorithm": ALGORITHM, "auth_data": {}});
    let refused = alice.post(VERSIONS).json(&body).send().await;
    refused.error(413, "M_TOO_LARGE");
    let _: Value = alice.delete(format!("{VERSIONS}/1")).send().await.ok();
    create(&alice, "key").await;
}

/// A deactivated account leaves no keys behind.
#[tokio::test(start_paused = true)]
async fn deactivation_deletes_backups() {
    let server = Server::start().await;
    let alice = server.register("alice").await;
    let version = create(&alice, "key").await;
    put(&alice, &of(ROOM, "a"), &version, key(0, 0, true)).await;
    server.api.deactivate(&alice.id, false).await.unwrap();
    let user = alice.id.as_str().try_into().unwrap();
    let backups = &server.api.key_backup;
    assert!(backups.info(user, None).await.is_err());
    assert!(
        backups
            .session(user, &version, ROOM.try_into().unwrap(), "a")
            .await
            .is_err()
    );
}
