//! The client against a router that answers as the test says: what the specification forbids must not pass.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use axum::routing::{get, post, put};
use axum::{Json, Router};
use comity_testkit::{Client, probe, spec};
use http::{HeaderMap, StatusCode};
use serde_json::{Value, json};

async fn unrecognized(status: StatusCode) -> (StatusCode, Json<Value>) {
    (
        status,
        Json(json!({"errcode": "M_UNRECOGNIZED", "error": "Unrecognized request"})),
    )
}

fn router() -> Router {
    Router::new()
        .route(
            "/_matrix/client/v3/register",
            post(async |Json(body): Json<Value>| {
                let user = format!("@{}:localhost", body["username"].as_str().unwrap());
                Json(json!({"user_id": user, "access_token": "secret", "device_id": "D"}))
            }),
        )
        .route(
            "/_matrix/client/v3/account/whoami",
            get(async |headers: HeaderMap| {
                let known = headers
                    .get("authorization")
                    .is_some_and(|token| token == "Bearer secret");
                // An answer that lacks its one required field, for whoever has a token.
                if known {
                    (StatusCode::OK, Json(json!({"device_id": "D"})))
                } else {
                    (
                        StatusCode::UNAUTHORIZED,
                        Json(json!({"errcode": "M_MISSING_TOKEN", "error": "No token"})),
                    )
                }
            }),
        )
        .route(
            "/_matrix/client/v3/rooms/{room}/send/{kind}/{txn}",
            put(async || Json(json!({"event_id": "$event"}))),
        )
        .route("/_matrix/client/v3/login", post(async || ()))
        .route(
            "/_matrix/client/versions",
            get(async || Json(json!({"versions": ["v1.19"]}))),
        )
        .route("/_matrix/client/v3/sync", get(async || ()))
        .method_not_allowed_fallback(async || unrecognized(StatusCode::METHOD_NOT_ALLOWED).await)
        .fallback(async || unrecognized(StatusCode::NOT_FOUND).await)
}

/// Routes whose answers are as they should be.
fn sound_router() -> Router {
    Router::new()
        .route(
            "/_matrix/client/versions",
            get(async || Json(json!({"versions": ["v1.19"]}))),
        )
        .route("/_matrix/client/v3/logout", post(async || Json(json!({}))))
        .method_not_allowed_fallback(async || unrecognized(StatusCode::METHOD_NOT_ALLOWED).await)
        .fallback(async || unrecognized(StatusCode::NOT_FOUND).await)
}

/// Registering and sending take a line each, with the user's token.
#[tokio::test]
async fn a_user_sends() {
    let alice = Client::new(router()).register("alice").await;
    assert_eq!(alice.id, "@alice:localhost");
    assert_eq!(alice.send("!room:localhost", "hi").await, "$event");
}

/// A common error passes and is compared; it carries no token of a user.
#[tokio::test]
async fn a_common_error_passes() {
    let nobody = Client::new(router());
    let answer = nobody.get("/_matrix/client/v3/account/whoami").send().await;
    answer.error(401, "M_MISSING_TOKEN");
}

/// A missing field fails the test that sees the answer.
#[tokio::test]
async fn a_missing_field_fails() {
    let alice = Client::new(router()).register("alice").await;
    let request = alice.get("/_matrix/client/v3/account/whoami").send();
    let seen = tokio::spawn(request).await;
    assert_eq!(seen.is_err(), spec::get().is_some());
}

/// JSON that doesn't say so fails.
#[tokio::test]
async fn json_comes_as_json() {
    let versions = get(async || json!({"versions": ["v1.19"]}).to_string());
    let client = Client::new(Router::new().route("/_matrix/client/versions", versions));
    let request = client.get("/_matrix/client/versions").send();
    assert_eq!(tokio::spawn(request).await.is_err(), spec::get().is_some());
}

/// The probe tells what is served from what isn't, whatever the parameters are.
#[tokio::test]
async fn the_probe_finds_what_is_served() {
    let served = probe::served(&Client::new(sound_router()), &probe::endpoints()).await;
    let expected = [
        "GET /_matrix/client/versions",
        "POST /_matrix/client/v3/logout",
    ];
    let expected = if spec::get().is_some() {
        &expected[..]
    } else {
        &[]
    };
    let mut served: Vec<&str> = served.iter().map(String::as_str).collect();
    served.sort_unstable();
    assert_eq!(served, expected);
}

/// What is due and not served fails.
#[tokio::test]
async fn the_probe_misses_what_is_due() {
    let client = Client::new(sound_router());
    let missed = tokio::spawn(async move { probe::assert_due_is_served(&client).await });
    assert_eq!(missed.await.is_err(), spec::get().is_some());
}

/// Unknown paths are 404, known ones in another method 405.
#[tokio::test]
async fn the_unknown_is_refused() {
    probe::assert_unknown_is_refused(&Client::new(router())).await;
}
