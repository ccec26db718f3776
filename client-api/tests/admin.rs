//! What administrators do with accounts, and what they are told of.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use comity_accounts::{Reported, Standing};
use comity_testkit::{Server, User, encode};
use serde_json::{Value, json};

const CLIENT: &str = "/_matrix/client";

async fn admin(server: &Server, name: &str) -> User {
    let user = server.register(name).await;
    let accounts = &server.api.accounts;
    let made = accounts.set_standing(&user.id, Standing::Admin(true)).await;
    made.unwrap();
    user
}

/// Server administration: both switches, who may not use them, and on whom they don't work.
#[tokio::test(start_paused = true)]
async fn administrators_suspend_and_lock() {
    let server = Server::start().await;
    let root = admin(&server, "root").await;
    let other = admin(&server, "other").await;
    let alice = server.register("alice").await;
    for (path, key) in [("suspend", "suspended"), ("lock", "locked")] {
        let of = |user: &str| format!("{CLIENT}/v1/admin/{path}/{user}");
        let on = json!({ key: true });
        let mine = of(&alice.id);
        for user in [&alice.id, "@nobody:localhost"] {
            alice.get(of(user)).send().await.error(403, "M_FORBIDDEN");
        }
        for (user, status, errcode) in [
            (&*root.id, 403, "M_FORBIDDEN"),
            (&*other.id, 403, "M_FORBIDDEN"),
            ("@nobody:localhost", 404, "M_NOT_FOUND"),
            ("@alice:elsewhere", 400, "M_INVALID_PARAM"),
        ] {
            let refused = root.put(of(user)).json(&on).send().await;
            refused.error(status, errcode);
        }
        assert_eq!(root.get(&mine).send().await.ok(), json!({ key: false }));
        assert_eq!(root.put(&mine).json(&on).send().await.ok(), on);
        assert_eq!(root.get(&mine).send().await.ok(), on);
    }
    let whoami = alice
        .get(format!("{CLIENT}/v3/account/whoami"))
        .send()
        .await;
    whoami.error(401, "M_USER_LOCKED");
    let unlock = root.put(format!("{CLIENT}/v1/admin/lock/{}", alice.id));
    let _ = unlock.json(json!({"locked": false})).send().await.ok();
    let name = alice.put(format!("{CLIENT}/v3/profile/{}/displayname", alice.id));
    let refused = name.json(json!({"displayname": "Al"})).send().await;
    refused.error(403, "M_USER_SUSPENDED");
}

/// Capabilities tell administrators alone that they may moderate accounts; whois is for them and for the user.
#[tokio::test(start_paused = true)]
async fn what_only_administrators_are_told() {
    let server = Server::start().await;
    let root = admin(&server, "root").await;
    let alice = server.register("alice").await;
    let capabilities = format!("{CLIENT}/v3/capabilities");
    let may = |answer: Value| answer["capabilities"]["m.account_moderation"].clone();
    assert_eq!(may(alice.get(&capabilities).send().await.ok()), Value::Null);
    assert_eq!(
        may(root.get(&capabilities).send().await.ok()),
        json!({"suspend": true, "lock": true})
    );
    let whois = |user: &User| format!("{CLIENT}/v3/admin/whois/{}", user.id);
    alice
        .get(whois(&root))
        .send()
        .await
        .error(403, "M_FORBIDDEN");
    for asker in [&alice, &root] {
        let answer = asker.get(whois(&alice)).send().await.ok();
        let connection = &answer["devices"][&alice.device]["sessions"][0]["connections"][0];
        assert_eq!(connection["ip"], "127.0.0.1");
    }
}

/// Reporting content: kept for the administrators; the answer tells nothing of what exists (threat E5).
#[tokio::test(start_paused = true)]
async fn reports_are_kept() {
    let server = Server::start().await;
    let alice = server.register("alice").await;
    let bob = server.register("bob").await;
    let room = bob.create_room(json!({"preset": "public_chat"})).await;
    let event = bob.send(&room, "spam").await;
    let why = json!({"reason": "spam"});
    let reported = async |path: String| {
        let request = alice.post(format!("{CLIENT}/v3/{path}")).json(&why);
        request.send().await
    };
    let of_event = format!("rooms/{room}/report/{event}");
    reported(of_event.clone()).await.error(404, "M_NOT_FOUND");
    alice.join(&room).await;
    let no_event = format!("rooms/{room}/report/$nothing");
    reported(no_event).await.error(404, "M_NOT_FOUND");
    for path in [
        of_event,
        format!("rooms/{room}/report"),
        "rooms/!nowhere:localhost/report".to_owned(),
        format!("users/{}/report", bob.id),
        "users/@nobody:localhost/report".to_owned(),
    ] {
        let _ = reported(path).await.ok();
    }
    let kept = server.api.accounts.reports(None, 10).await.unwrap();
    assert!(
        kept.iter()
            .all(|(_, report)| report.reporter == alice.id && report.reason == "spam")
    );
    let about = |about: &Reported| {
        kept.iter()
            .filter(|(_, report)| report.about == *about)
            .count()
    };
    let (room_id, event_id) = (room.clone(), event.clone());
    assert_eq!(about(&Reported::Event { room_id, event_id }), 1);
    assert_eq!(about(&Reported::Room(room)), 1);
    assert_eq!(about(&Reported::User(bob.id.clone())), 1);
    assert_eq!(kept.len(), 3);
}

/// Threat E3: an event that one can't see is none to be reported, also in a room that one is in.
#[tokio::test(start_paused = true)]
async fn what_one_cannot_see_cannot_be_reported() {
    let server = Server::start().await;
    let alice = server.register("alice").await;
    let bob = server.register("bob").await;
    let hidden = json!([{
        "type": "m.room.history_visibility", "state_key": "",
        "content": {"history_visibility": "joined"},
    }]);
    let room = bob
        .create_room(json!({"preset": "public_chat", "initial_state": hidden}))
        .await;
    let before = bob.send(&room, "before").await;
    alice.join(&room).await;
    let since = bob.send(&room, "since").await;
    let report = |event: &str| {
        let path = format!("{CLIENT}/v3/rooms/{room}/report/{event}");
        alice.post(path).json(json!({"reason": "spam"})).send()
    };
    report(&before).await.error(404, "M_NOT_FOUND");
    let _ = report(&since).await.ok();
    let kept = server.api.accounts.reports(None, 10).await.unwrap();
    assert_eq!(kept.len(), 1);
}

/// <https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3directorylistroomroomid>: the directory is the
/// server's, so its administrators decide what stands there, members or not, whatever their power in the room.
#[tokio::test(start_paused = true)]
async fn administrators_publish_rooms() {
    let server = Server::start().await;
    let (root, alice) = (admin(&server, "root").await, server.register("alice").await);
    let room = alice.create_room(json!({ "name": "A room" })).await;
    let listed = format!("{CLIENT}/v3/directory/list/room/{}", encode(&room));
    for visibility in ["public", "private"] {
        let told = json!({ "visibility": visibility });
        root.put(&listed).json(&told).send().await.ok();
        assert_eq!(alice.get(&listed).send().await.ok(), told);
    }
    let none = format!(
        "{CLIENT}/v3/directory/list/room/{}",
        encode("!none:localhost")
    );
    let public = json!({ "visibility": "public" });
    let answer = root.put(none).json(public).send().await;
    answer.error(403, "M_FORBIDDEN");
}
