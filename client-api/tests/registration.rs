//! New accounts, by each way in.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use comity_testkit::{SHARED_SECRET, Server, Settings};
use hmac::{Hmac, KeyInit, Mac};
use serde_json::json;
use sha1::Sha1;

const V3: &str = "/_matrix/client/v3";

/// The stages one after another, as the specification tells it; the session is good for this registration alone (G13).
#[tokio::test(start_paused = true)]
async fn registering_step_by_step() {
    let server = Server::start().await;
    let register = |body| server.post(format!("{V3}/register")).json(body);
    let asked = register(json!({"username": "alice", "password": "x"}))
        .send()
        .await;
    assert_eq!(asked.status, 401);
    let session = asked.body["session"].clone();
    let auth = json!({"type": "m.login.dummy", "session": session});
    let other = json!({"username": "mallory", "password": "x", "auth": auth});
    register(other).send().await.error(403, "M_FORBIDDEN");
    let done = json!({"username": "alice", "password": "x", "auth": auth, "device_id": "PHONE"});
    register(done).send().await.error(403, "M_FORBIDDEN");
    let done = json!({"username": "alice", "password": "x", "auth": auth});
    let body = register(done).send().await.ok();
    assert_eq!(body["user_id"], "@alice:localhost");
    let again = json!({"username": "alice", "password": "x", "auth": {"type": "m.login.dummy"}});
    register(again).send().await.error(400, "M_USER_IN_USE");
}

/// <https://spec.matrix.org/v1.19/appendices/#user-identifiers>
#[tokio::test(start_paused = true)]
async fn names_that_cannot_be() {
    let server = Server::start().await;
    let available = |name| {
        server
            .get(format!("{V3}/register/available"))
            .query("username", name)
    };
    for name in ["us,er", "user!", "us er", "user@x", "é", "user\n", ""] {
        available(name)
            .send()
            .await
            .error(400, "M_INVALID_USERNAME");
        let body = json!({"username": name, "password": "x", "auth": {"type": "m.login.dummy"}});
        let refused = server.post(format!("{V3}/register")).json(body);
        refused.send().await.error(400, "M_INVALID_USERNAME");
    }
    assert_eq!(available("q3._=-/").send().await.ok()["available"], true);
    let alice = server.register("ALICE").await;
    assert_eq!(alice.id, "@alice:localhost");
    available("alice").send().await.error(400, "M_USER_IN_USE");
}

/// Without a login there is an account, and no session.
#[tokio::test(start_paused = true)]
async fn an_account_alone() {
    let server = Server::start().await;
    let body = json!({
        "username": "alice", "password": "x", "inhibit_login": true, "auth": {"type": "m.login.dummy"},
    });
    let body = server
        .post(format!("{V3}/register"))
        .json(body)
        .send()
        .await
        .ok();
    assert!(body["access_token"].is_null());
}

/// Guests look around; what is for accounts alone is closed to them, and where they aren't wanted so is the door.
#[tokio::test(start_paused = true)]
async fn guests() {
    let server = Server::start().await;
    let guest = || {
        server
            .post(format!("{V3}/register"))
            .query("kind", "guest")
            .json(json!({}))
    };
    let body = guest().send().await.ok();
    let token = body["access_token"].as_str().unwrap();
    let whoami = server
        .get(format!("{V3}/account/whoami"))
        .token(token)
        .send()
        .await
        .ok();
    assert_eq!(whoami["is_guest"], true);
    let refused = server
        .get(format!("{V3}/capabilities"))
        .token(token)
        .send()
        .await;
    refused.error(403, "M_GUEST_ACCESS_FORBIDDEN");
    let profile = |field: &str, value: &str| {
        let user = body["user_id"].as_str().unwrap();
        let put = server.put(format!("{V3}/profile/{user}/{field}"));
        put.token(token).json(json!({field: value})).send()
    };
    profile("displayname", "Visitor").await.ok();
    let picture = profile("avatar_url", "mxc://localhost/a").await;
    picture.error(403, "M_GUEST_ACCESS_FORBIDDEN");
    let closed = Server::with(Settings {
        guests: false,
        ..Settings::default()
    })
    .await;
    let guest = closed
        .post(format!("{V3}/register"))
        .query("kind", "guest")
        .json(json!({}));
    guest.send().await.error(403, "M_FORBIDDEN");
}

/// G21's API: where registration is closed, a token opens it, once.
#[tokio::test(start_paused = true)]
async fn a_registration_token_opens_a_closed_door() {
    let server = Server::with(Settings {
        registration_open: false,
        ..Settings::default()
    })
    .await;
    let accounts = &server.api.accounts;
    let token = accounts
        .create_registration_token(None, Some(1), None)
        .await
        .unwrap();
    let valid = |token: &str| {
        let path = "/_matrix/client/v1/register/m.login.registration_token/validity";
        server.get(path).query("token", token)
    };
    assert_eq!(valid(&token).send().await.ok()["valid"], true);
    assert_eq!(valid("other").send().await.ok()["valid"], false);
    let register = |name: &str, auth| {
        let body = json!({"username": name, "password": "x", "auth": auth});
        server.post(format!("{V3}/register")).json(body)
    };
    let dummy = json!({"type": "m.login.dummy"});
    register("alice", dummy)
        .send()
        .await
        .error(403, "M_FORBIDDEN");
    let by_token = json!({"type": "m.login.registration_token", "token": token});
    register("alice", by_token.clone()).send().await.ok();
    register("bob", by_token)
        .send()
        .await
        .error(401, "M_FORBIDDEN");
}

/// The shared secret, as Synapse's clients show that they know it.
#[tokio::test(start_paused = true)]
async fn registering_by_shared_secret() {
    let server = Server::start().await;
    let path = "/_synapse/admin/v1/register";
    let nonce = server.get(path).send().await.ok()["nonce"].clone();
    let nonce = nonce.as_str().unwrap().to_owned();
    let asked = |nonce: &str, mac: &str| {
        let body = json!({
            "nonce": nonce, "username": "root", "displayname": "Ruth", "password": "x", "admin": true, "mac": mac,
        });
        server.post(path).json(body)
    };
    asked(&nonce, "00").send().await.error(403, "M_FORBIDDEN");
    // A nonce is spent by whatever uses it.
    let mac = hmac(&format!("{nonce}\0root\0x\0admin"));
    asked(&nonce, &mac)
        .send()
        .await
        .error(400, "M_INVALID_PARAM");
    let nonce = server.get(path).send().await.ok()["nonce"].clone();
    let nonce = nonce.as_str().unwrap();
    let mac = hmac(&format!("{nonce}\0root\0x\0admin"));
    let made = asked(nonce, &mac).send().await.ok();
    assert_eq!(made["user_id"], "@root:localhost");
    let root = server.with_token(made["access_token"].as_str().unwrap());
    let whoami = root.get(format!("{V3}/account/whoami")).send().await.ok();
    assert_eq!(whoami["device_id"], made["device_id"]);
    let profile = root.get(format!("{V3}/profile/@root:localhost")).send();
    assert_eq!(profile.await.ok(), json!({"displayname": "Ruth"}));
}

/// HMAC-SHA1 by the server's shared secret, as Synapse's clients write it.
fn hmac(text: &str) -> String {
    let mut mac = <Hmac<Sha1>>::new_from_slice(SHARED_SECRET.as_bytes()).unwrap();
    mac.update(text.as_bytes());
    let mac = mac.finalize().into_bytes();
    mac.iter().map(|byte| format!("{byte:02x}")).collect()
}
