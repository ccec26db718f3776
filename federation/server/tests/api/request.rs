//! <https://spec.matrix.org/v1.19/server-server-api/#request-authentication>

use comity_testkit::{Federation, HostilePeer, encode};
use http::{Method, header::AUTHORIZATION};
use serde_json::{Value, json};

const A: &str = "a.test";

/// A server with a user, and a peer that may ask for her profile.
async fn scene() -> (Federation, HostilePeer, String) {
    let federation = Federation::of([A]).await;
    let alice = federation[A].register("alice").await;
    let mallory = HostilePeer::on(&federation.wire, "mallory.test");
    let target = format!(
        "/_matrix/federation/v1/query/profile?user_id={}",
        encode(&alice.id)
    );
    (federation, mallory, target)
}

/// Threat B1: what is signed well is answered, in all the ways that servers write the header.
#[tokio::test]
async fn b1_signed_requests_are_answered() {
    let (federation, mallory, target) = scene().await;
    let server = &federation[A];
    mallory.to(server).get(&target).send().await.ok();
    let good = mallory.authorisation(server.name(), &Method::GET, &target, b"");
    for header in [
        good.replace("X-Matrix ", "x-matrix  "),
        good.replace(',', " ,\t"),
        format!("{good},future=\"a, \\\"b\\\"\""),
        good.replace(",destination=\"a.test\"", ""),
        good.replace("origin=\"mallory.test\"", "origin=mallory.test"),
        good.replace("key=\"ed25519:evil\"", "key=ed25519:evil"),
    ] {
        let request = server.get(&target).header(AUTHORIZATION, &header);
        request.send().await.ok();
    }
}

/// Threat B1: a wrong destination, a bad signature, an unknown key, a request that isn't the signed one.
#[tokio::test]
async fn b1_what_is_not_signed_well_is_refused() {
    let (federation, mallory, target) = scene().await;
    let server = &federation[A];
    server
        .get(&target)
        .send()
        .await
        .error(401, "M_UNAUTHORIZED");
    let elsewhere = HostilePeer::on(&federation.wire, "b.test").name;
    let sign = |target: &str| mallory.authorisation(server.name(), &Method::GET, target, b"");
    let good = sign(&target);
    for header in [
        String::new(),
        "Bearer token".to_owned(),
        "X-Matrix".to_owned(),
        good.replace("mallory.test", "b.test"),
        good.replace("mallory.test", "nobody.test"),
        good.replace("ed25519:evil", "ed25519:other"),
        good.replace("destination=\"a.test\"", "destination=\"b.test\""),
        good.replace("sig=\"", "sig=\"AAAA"),
        format!("{good},origin=\"mallory.test\""),
        sign("/_matrix/federation/v1/version"),
        mallory.authorisation(&elsewhere, &Method::GET, &target, b""),
        mallory.authorisation(server.name(), &Method::PUT, &target, b""),
        mallory.authorisation(server.name(), &Method::GET, &target, b"{}"),
    ] {
        let request = server.get(&target).header(AUTHORIZATION, &header);
        let answer = request.send().await;
        assert_eq!(answer.status, 401, "{header}");
        answer.error(401, "M_UNAUTHORIZED");
    }
}

/// Threat B1: the signature covers the body.
#[tokio::test]
async fn b1_another_body_than_the_signed_one_is_refused() {
    let (federation, mallory, _) = scene().await;
    let server = &federation[A];
    let target = "/_matrix/federation/v1/publicRooms";
    let header = mallory.authorisation(server.name(), &Method::POST, target, b"{\"limit\":1}");
    let post = |body: Value| {
        let request = server.post(target).json(body);
        request.header(AUTHORIZATION, &header).send()
    };
    post(json!({"limit": 1})).await.ok();
    post(json!({"limit": 2})).await.error(401, "M_UNAUTHORIZED");
}

/// Threat B1: a key past its time signs no more requests.
#[tokio::test]
async fn b1_an_expired_key_is_refused() {
    let (federation, mallory, target) = scene().await;
    mallory.publish_until(1);
    let answer = mallory.to(&federation[A]).get(&target).send().await;
    answer.error(401, "M_UNAUTHORIZED");
}

/// Threat B7: names that nobody has, and our own, are refused and never looked up.
#[tokio::test]
async fn b7_names_that_cannot_be_are_not_looked_up() {
    let (federation, mallory, target) = scene().await;
    let server = &federation[A];
    let good = mallory.authorisation(server.name(), &Method::GET, &target, b"");
    drop(federation.wire.log());
    let long = "a".repeat(256);
    for name in [
        "evil@good.com",
        "good.com:8448@evil",
        "good.com.",
        &long,
        "[::1%25eth0]",
        "[::1%eth0]",
        "a.test",
        "",
    ] {
        let header = good.replace("origin=\"mallory.test\"", &format!("origin=\"{name}\""));
        let request = server.get(&target).header(AUTHORIZATION, &header);
        request.send().await.error(401, "M_UNAUTHORIZED");
    }
    assert_eq!(federation.wire.log(), [""; 0]);
}

/// Threat B6: a key for which anybody can sign is no key.
#[tokio::test]
async fn b6_a_weak_key_is_refused() {
    let (federation, mallory, target) = scene().await;
    // The neutral point: every signature with a neutral commitment is good for it.
    let weak = format!("AQ{}", "A".repeat(41));
    let signature = format!("AQ{}", "A".repeat(84));
    mallory.answer(Method::GET, "/_matrix/key/v2/server", move |_| {
        json!({
            "server_name": "mallory.test",
            "valid_until_ts": 4_102_444_800_000_u64,
            "verify_keys": {"ed25519:evil": {"key": weak}},
            "old_verify_keys": {},
            "signatures": {"mallory.test": {"ed25519:evil": signature}},
        })
    });
    let answer = mallory.to(&federation[A]).get(&target).send().await;
    answer.error(401, "M_UNAUTHORIZED");
}

/// Threat B5: keys that their server hasn't signed, or that are another's, are none.
#[tokio::test]
async fn b5_keys_that_their_server_has_not_signed_are_none() {
    let (federation, mallory, target) = scene().await;
    let others: Value = {
        let server = &federation[A];
        server.get("/_matrix/key/v2/server").send().await.ok()
    };
    mallory.answer(Method::GET, "/_matrix/key/v2/server", move |_| {
        others.clone()
    });
    let answer = mallory.to(&federation[A]).get(&target).send().await;
    answer.error(401, "M_UNAUTHORIZED");
}
