//! One's own account and devices: what needs the password again, and what ends with what.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use comity_testkit::{Answer, Server, User, encode, password};
use serde_json::{Value, json};

const V3: &str = "/_matrix/client/v3";

fn proof(name: &str, session: &Value) -> Value {
    json!({
        "type": "m.login.password",
        "identifier": {"type": "m.id.user", "user": name},
        "password": password(name),
        "session": session,
    })
}

/// What a client that isn't ready to prove who it is gets to see.
fn challenge(answer: Answer) -> Value {
    assert_eq!(answer.status, 401, "{}", answer.body);
    let stages = &answer.body["flows"][0]["stages"];
    assert_eq!(stages, &json!(["m.login.password"]));
    answer.body["session"].clone()
}

async fn is_signed_in(user: &User) -> bool {
    let whoami = user.get(format!("{V3}/account/whoami")).send().await;
    whoami.status == 200
}

/// A new password signs other devices out, unless it is asked not to.
#[tokio::test(start_paused = true)]
async fn changing_the_password() {
    let server = Server::start().await;
    let (phone, laptop) = (server.register("alice").await, server.login("alice").await);
    let change = |body: &Value| phone.post(format!("{V3}/account/password")).json(body);
    let mut body = json!({"new_password": "another", "logout_devices": false});
    let session = challenge(change(&body).send().await);
    body["auth"] = proof("alice", &session);
    body["auth"]["password"] = "wrong".into();
    let refused = change(&body).send().await.error(401, "M_FORBIDDEN");
    assert_eq!(refused["session"], session);
    body["auth"] = proof("alice", &session);
    change(&body).send().await.ok();
    assert!(is_signed_in(&laptop).await);
    let login = json!({
        "type": "m.login.password",
        "identifier": {"type": "m.id.user", "user": "alice"},
        "password": password("alice"),
    });
    let old = server.post(format!("{V3}/login")).json(login);
    old.send().await.error(403, "M_FORBIDDEN");
    let mut auth = proof("alice", &Value::Null);
    auth["password"] = "another".into();
    change(&json!({"new_password": "third", "auth": auth}))
        .send()
        .await
        .ok();
    assert!(is_signed_in(&phone).await && !is_signed_in(&laptop).await);
}

/// G13: a session of one operation, or another user's proof, authorises nothing.
#[tokio::test(start_paused = true)]
async fn a_proof_is_for_one_operation_of_one_user() {
    let server = Server::start().await;
    let (alice, tablet) = (server.register("alice").await, server.login("alice").await);
    server.register("bob").await;
    let device = |id: &str| format!("{V3}/devices/{id}");
    let session = challenge(alice.delete(device(&tablet.device)).send().await);
    let elsewhere = json!({"auth": proof("alice", &session)});
    let other = alice.delete(device(&alice.device)).json(&elsewhere);
    other.send().await.error(403, "M_FORBIDDEN");
    let by_bob = json!({"auth": proof("bob", &session)});
    let refused = alice.delete(device(&tablet.device)).json(by_bob);
    refused.send().await.error(403, "M_FORBIDDEN");
    assert!(is_signed_in(&tablet).await);
    alice
        .delete(device(&tablet.device))
        .json(elsewhere)
        .send()
        .await
        .ok();
    assert!(!is_signed_in(&tablet).await);
    alice
        .get(device(&tablet.device))
        .send()
        .await
        .error(404, "M_NOT_FOUND");
}

#[tokio::test(start_paused = true)]
async fn devices_are_listed_named_and_removed() {
    let server = Server::start().await;
    let (phone, laptop) = (server.register("alice").await, server.login("alice").await);
    let list = || phone.get(format!("{V3}/devices"));
    assert_eq!(
        list().send().await.ok()["devices"]
            .as_array()
            .unwrap()
            .len(),
        2
    );
    let path = format!("{V3}/devices/{}", laptop.device);
    let name = json!({"display_name": "laptop"});
    phone.put(&path).json(name).send().await.ok();
    phone.put(&path).json(json!({})).send().await.ok();
    assert_eq!(phone.get(&path).send().await.ok()["display_name"], "laptop");
    let nowhere = phone.put(format!("{V3}/devices/NONE")).json(json!({}));
    nowhere.send().await.error(404, "M_NOT_FOUND");
    let mut body = json!({"devices": [laptop.device, "NONE"]});
    let delete = |body: &Value| phone.post(format!("{V3}/delete_devices")).json(body);
    let session = challenge(delete(&body).send().await);
    body["auth"] = proof("alice", &session);
    delete(&body).send().await.ok();
    assert!(!is_signed_in(&laptop).await);
    assert_eq!(
        list().send().await.ok()["devices"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
}

/// G11: a deactivated account is gone, and gone from its rooms, also when the server stops in between.
#[tokio::test(start_paused = true)]
async fn deactivating() {
    let server = Server::start().await;
    let alice = server.register("alice").await;
    let path = format!("{V3}/account/deactivate");
    let session = challenge(alice.post(&path).json(json!({})).send().await);
    let body = json!({"auth": proof("alice", &session)});
    alice.post(&path).json(body).send().await.ok();
    assert!(!is_signed_in(&alice).await);
    let login = json!({
        "type": "m.login.password",
        "identifier": {"type": "m.id.user", "user": "alice"},
        "password": password("alice"),
    });
    let refused = server.post(format!("{V3}/login")).json(login).send().await;
    assert_eq!(refused.status, 403);
}

/// `erase`, threat E8: who could read the events before still can; who comes later gets them redacted, on
/// every way to them.
#[tokio::test(start_paused = true)]
async fn e8_what_an_erased_account_wrote() {
    let server = Server::start().await;
    let alice = server.register("alice").await;
    let [bob, dave, eve] = [
        server.register("bob").await,
        server.register("dave").await,
        server.register("eve").await,
    ];
    let carol = server.register("carol").await;
    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    for user in [&bob, &carol, &eve] {
        user.join(&room).await;
    }
    carol
        .set_state(
            &room,
            "m.room.member",
            &carol.id,
            json!({ "membership": "join", "displayname": "Carol" }),
        )
        .await;
    let root = alice.send(&room, "root").await;
    let reply = json!({
        "msgtype": "m.text", "body": "secret",
        "m.relates_to": { "rel_type": "m.thread", "event_id": root },
    });
    let secret = carol.send_event(&room, "m.room.message", reply).await;
    // Dave comes after the event, and before the end of the account; Eve leaves in between.
    dave.join(&room).await;
    eve.leave(&room).await;
    let mut body = json!({ "erase": true });
    let request = carol.post(format!("{V3}/account/deactivate")).json(&body);
    body["auth"] = proof("carol", &challenge(request.send().await));
    let request = carol.post(format!("{V3}/account/deactivate")).json(&body);
    request.send().await.ok();
    let frank = server.register("frank").await;
    frank.join(&room).await;
    let rooms = format!("{V3}/rooms/{}", encode(&room));
    for (user, sees) in [
        (&alice, true),
        (&bob, true),
        (&dave, true),
        (&eve, true),
        (&frank, false),
    ] {
        let text = |event: &Value| event["content"]["body"].as_str().map(str::to_owned);
        let secret_text = sees.then(|| "secret".to_owned());
        let event = user.get(format!("{rooms}/event/{}", encode(&secret)));
        assert_eq!(text(&event.send().await.ok()), secret_text, "{}", user.id);
        let context = user.get(format!("{rooms}/context/{}", encode(&secret)));
        let context = context.send().await.ok();
        assert_eq!(text(&context["event"]), secret_text, "{}", user.id);
        let history = user.messages(&room, 100).await;
        let one = |id: &str| {
            history
                .iter()
                .find(|event| event["event_id"] == id)
                .unwrap()
        };
        assert_eq!(text(one(&secret)), secret_text, "{}", user.id);
        let bundled = &one(&root)["unsigned"]["m.relations"]["m.thread"]["latest_event"];
        assert_eq!(text(bundled), secret_text, "{}", user.id);
        let named = history
            .iter()
            .any(|event| event["content"]["displayname"] == "Carol");
        assert_eq!(named, sees, "{}", user.id);
        let sync = user.sync_request(None).query(
            "filter",
            r#"{"room":{"include_leave":true,"timeline":{"limit":50}}}"#,
        );
        let told = sync.send().await.ok().to_string();
        assert_eq!(told.contains("secret"), sees, "{}", user.id);
    }
}

/// MSC3890: a device's wish to be silent goes with it, and the others are told; another's stays.
#[tokio::test(start_paused = true)]
async fn a_device_s_notification_settings_go_with_it() {
    let server = Server::start().await;
    let alice = server.register("alice").await;
    let (second, third) = (server.login("alice").await, server.login("alice").await);
    let kind = |of: &User| {
        let device = &of.device;
        format!("org.matrix.msc3890.local_notification_settings.{device}")
    };
    let path = |of: &User| format!("{V3}/user/{}/account_data/{}", alice.id, kind(of));
    for device in [&alice, &second, &third] {
        let silent = json!({"is_silenced": true});
        let _ = alice.put(path(device)).json(silent).send().await.ok();
    }
    let sync = alice.sync(None).await;
    let _ = second.post(format!("{V3}/logout")).send().await.ok();
    alice
        .get(path(&second))
        .send()
        .await
        .error(404, "M_NOT_FOUND");
    let _ = alice.get(path(&third)).send().await.ok();
    let sync = alice.sync(sync["next_batch"].as_str()).await;
    assert_eq!(
        sync["account_data"]["events"],
        json!([{"type": kind(&second), "content": {}}])
    );
}
