//! <https://spec.matrix.org/v1.19/server-server-api/#openid>

use std::time::Duration;

use comity_testkit::{Client, Server, User, encode, password};
use serde_json::{Value, json};

async fn token(user: &User) -> Value {
    let user_id = encode(&user.id);
    let path = format!("/_matrix/client/v3/user/{user_id}/openid/request_token");
    user.post(path).json(json!({})).send().await.ok()
}

async fn shown(server: &Client, token: &str) -> comity_testkit::Answer {
    let request = server.get("/_matrix/federation/v1/openid/userinfo");
    request.query("access_token", token).send().await
}

/// A third party learns whose token it was given; it is no access token, nor is an access token one.
#[tokio::test]
async fn a_token_shows_its_user_and_opens_nothing() {
    let server = Server::start().await;
    let alice = server.register("alice").await;
    let answer = token(&alice).await;
    assert_eq!(answer["matrix_server_name"], "localhost");
    let openid = answer["access_token"].as_str().unwrap();
    assert_eq!(shown(&server, openid).await.ok()["sub"], alice.id);
    let whoami = server
        .get("/_matrix/client/v3/account/whoami")
        .token(openid);
    whoami.send().await.error(401, "M_UNKNOWN_TOKEN");
    for other in [alice.token.as_str(), "", "x"] {
        shown(&server, other).await.error(401, "M_UNKNOWN_TOKEN");
    }
    // Asked for in another's name, it is refused.
    let bob = server.register("bob").await;
    let path = format!(
        "/_matrix/client/v3/user/{}/openid/request_token",
        encode(&alice.id)
    );
    let refused = bob.post(path).json(json!({})).send().await;
    refused.error(403, "M_FORBIDDEN");
}

/// It ends after the time it says, and with its account.
#[tokio::test(start_paused = true)]
async fn a_token_ends() {
    let server = Server::start().await;
    let alice = server.register("alice").await;
    let answer = token(&alice).await;
    let openid = answer["access_token"].as_str().unwrap();
    let lifetime = Duration::from_secs(answer["expires_in"].as_u64().unwrap());
    tokio::time::advance(lifetime - Duration::from_secs(10)).await;
    shown(&server, openid).await.ok();
    tokio::time::advance(Duration::from_secs(10)).await;
    shown(&server, openid).await.error(401, "M_UNKNOWN_TOKEN");

    let answer = token(&alice).await;
    let openid = answer["access_token"].as_str().unwrap();
    let deactivate = alice
        .post("/_matrix/client/v3/account/deactivate")
        .json(json!({"auth": {
            "type": "m.login.password",
            "identifier": {"type": "m.id.user", "user": "alice"},
            "password": password("alice"),
        }}));
    deactivate.send().await.ok();
    shown(&server, openid).await.error(401, "M_UNKNOWN_TOKEN");
}
