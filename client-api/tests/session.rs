//! Signing up, in and out; what a session may do and when it ends.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use comity_accounts::NewDevice;
use comity_testkit::{Server, Settings, encode, password};
use serde_json::{Value, json};

const V3: &str = "/_matrix/client/v3";

fn by_password(user: &str, password: &str) -> Value {
    json!({
        "type": "m.login.password",
        "identifier": {"type": "m.id.user", "user": user},
        "password": password,
    })
}

/// R1.4, G10: names in any form; a wrong password and an unknown user get the same answer.
#[tokio::test(start_paused = true)]
async fn signing_in_by_password() {
    let server = Server::start().await;
    let alice = server.register("alice").await;
    assert_eq!(alice.id, "@alice:localhost");
    let login = |body| server.post(format!("{V3}/login")).json(body);
    for name in ["alice", "@alice:localhost", "@ALICE:localhost"] {
        let body = login(by_password(name, &password("alice")))
            .send()
            .await
            .ok();
        assert_eq!(body["user_id"], "@alice:localhost");
    }
    let wrong = login(by_password("alice", "wrong")).send().await;
    let wrong = wrong.error(403, "M_FORBIDDEN");
    let unknown = login(by_password("nobody", "wrong")).send().await;
    assert_eq!(wrong, unknown.error(403, "M_FORBIDDEN"));
    let other = json!({"type": "m.login.unheard"});
    login(other).send().await.error(400, "M_UNKNOWN");
    let flows = server.get(format!("{V3}/login")).send().await.ok();
    assert_eq!(flows["flows"][0]["type"], "m.login.password");
}

/// Law 11: a user has 1,000 devices at the most; on those there are they may sign in again.
#[tokio::test(start_paused = true)]
async fn devices_are_bounded() {
    let server = Server::start().await;
    let alice = server.register("alice").await;
    for _ in 1..1_000 {
        let device = NewDevice::default();
        server.api.accounts.login(&alice.id, device).await.unwrap();
    }
    let mut login = by_password("alice", &password("alice"));
    let sign_in = |body: &Value| server.post(format!("{V3}/login")).json(body).send();
    sign_in(&login).await.error(403, "M_FORBIDDEN");
    login["device_id"] = alice.device.clone().into();
    sign_in(&login).await.ok();
}

/// Names that are as long as they may be fit together; longer ones are refused.
#[tokio::test(start_paused = true)]
async fn the_longest_names() {
    let server = Server::start().await;
    let name = "a".repeat(255 - "@:localhost".len());
    let user = server.register(&name).await;
    for (device, status) in [
        ("D".repeat(230), 200),
        ("D".repeat(231), 400),
        ("D\0".to_owned(), 400),
    ] {
        let mut login = by_password(&name, &password(&name));
        login["device_id"] = device.into();
        let answer = server.post(format!("{V3}/login")).json(login).send().await;
        assert_eq!(answer.status, status, "{}", answer.body);
    }
    let room = user.create_room(json!({})).await;
    let of_user = format!("{V3}/user/{}", encode(&user.id));
    let of_room = format!("{of_user}/rooms/{}", encode(&room));
    for base in [of_user, of_room] {
        for (length, status) in [(230, 200), (231, 400)] {
            let path = format!("{base}/account_data/{}", "t".repeat(length));
            let set = user.put(path).json(json!({})).send().await;
            assert_eq!(set.status, status, "{}", set.body);
        }
    }
}

/// G12: no token, an empty one, a wrong one; in the header and in the query.
#[tokio::test(start_paused = true)]
async fn g12_tokens_that_are_none() {
    let server = Server::start().await;
    let alice = server.register("alice").await;
    let whoami = || server.get(format!("{V3}/account/whoami"));
    whoami().send().await.error(401, "M_MISSING_TOKEN");
    for header in ["Bearer", "Bearer ", "Basic eA=="] {
        let asked = whoami().header(http::header::AUTHORIZATION, header);
        asked.send().await.error(401, "M_MISSING_TOKEN");
    }
    let wrong = whoami().token("wrong").send().await;
    assert_eq!(wrong.error(401, "M_UNKNOWN_TOKEN")["soft_logout"], false);
    let asked = whoami().query("access_token", &alice.token);
    assert_eq!(asked.send().await.ok()["device_id"], alice.device);
    let r0 = alice.get("/_matrix/client/r0/account/whoami");
    assert_eq!(r0.send().await.ok()["user_id"], alice.id);
}

/// R1.5: a session is over as soon as it is ended.
#[tokio::test(start_paused = true)]
async fn signing_out_ends_tokens_at_once() {
    let server = Server::start().await;
    let (phone, laptop) = (server.register("alice").await, server.login("alice").await);
    phone.post(format!("{V3}/logout")).send().await.ok();
    let whoami = format!("{V3}/account/whoami");
    phone
        .get(&whoami)
        .send()
        .await
        .error(401, "M_UNKNOWN_TOKEN");
    laptop.get(&whoami).send().await.ok();
    laptop.post(format!("{V3}/logout/all")).send().await.ok();
    laptop
        .get(&whoami)
        .send()
        .await
        .error(401, "M_UNKNOWN_TOKEN");
}

/// G16: the next pair of tokens; the old refresh token is good until that is used.
#[tokio::test(start_paused = true)]
async fn g16_refreshing_tokens() {
    let server = Server::start().await;
    server.register("alice").await;
    let mut login = by_password("alice", &password("alice"));
    login["refresh_token"] = true.into();
    let first = server
        .post(format!("{V3}/login"))
        .json(login)
        .send()
        .await
        .ok();
    assert!(first["expires_in_ms"].as_u64().unwrap() > 0);
    let refresh = |token: &Value| {
        server
            .post(format!("{V3}/refresh"))
            .json(json!({"refresh_token": token}))
    };
    let second = refresh(&first["refresh_token"]).send().await.ok();
    let whoami = format!("{V3}/account/whoami");
    let token = second["access_token"].as_str().unwrap();
    server.get(&whoami).token(token).send().await.ok();
    let replayed = refresh(&first["refresh_token"]).send().await;
    replayed.error(401, "M_UNKNOWN_TOKEN");
    server
        .get(&whoami)
        .token(token)
        .send()
        .await
        .error(401, "M_UNKNOWN_TOKEN");
}

/// G9: the sixth wrong password waits.
#[tokio::test(start_paused = true)]
async fn g9_guessing_is_slowed_down() {
    let server = Server::with(Settings {
        limits: true,
        ..Settings::default()
    })
    .await;
    server.register("alice").await;
    let login = || {
        server
            .post(format!("{V3}/login"))
            .json(by_password("alice", "wrong"))
    };
    for _ in 0..5 {
        login().send().await.error(403, "M_FORBIDDEN");
    }
    let refused = login().send().await;
    assert!(refused.headers.contains_key(http::header::RETRY_AFTER));
    assert!(
        refused.error(429, "M_LIMIT_EXCEEDED")["retry_after_ms"]
            .as_u64()
            .unwrap()
            > 0
    );
}

/// A device vouches for another one: once, for two minutes, with the password (G13).
#[tokio::test(start_paused = true)]
async fn signing_another_device_in() {
    let server = Server::start().await;
    let phone = server.register("alice").await;
    let path = "/_matrix/client/v1/login/get_token";
    assert_eq!(phone.post(path).json(json!({})).send().await.status, 401);
    let auth = by_password("alice", &password("alice"));
    let ask = || phone.post(path).json(json!({"auth": auth}));
    let token = ask().send().await.ok()["login_token"].clone();
    let login = |token: &Value| {
        let body = json!({"type": "m.login.token", "token": token});
        server.post(format!("{V3}/login")).json(body)
    };
    assert_eq!(login(&token).send().await.ok()["user_id"], phone.id);
    login(&token).send().await.error(403, "M_FORBIDDEN");
    let late = ask().send().await.ok()["login_token"].clone();
    tokio::time::advance(std::time::Duration::from_secs(120)).await;
    login(&late).send().await.error(403, "M_FORBIDDEN");
}
