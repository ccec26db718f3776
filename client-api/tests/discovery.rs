//! What the server is and can, and what it doesn't have.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use comity_testkit::{Server, probe};

/// Clients decide by these what they ask for next.
#[tokio::test(start_paused = true)]
async fn what_the_server_can_is_told() {
    let server = Server::start().await;
    let versions = server.get("/_matrix/client/versions").send().await.ok();
    assert!(
        versions["versions"]
            .as_array()
            .unwrap()
            .contains(&"v1.19".into())
    );
    let found = server.get("/.well-known/matrix/client").send().await.ok();
    assert_eq!(found["m.homeserver"]["base_url"], "http://localhost");
    let support = server.get("/.well-known/matrix/support").send().await.ok();
    assert_eq!(support["support_page"], "http://localhost/help");
    let policy = server.get("/.well-known/matrix/policy_server");
    policy.send().await.error(404, "M_NOT_FOUND");
    let capabilities = "/_matrix/client/v3/capabilities";
    server
        .get(capabilities)
        .send()
        .await
        .error(401, "M_MISSING_TOKEN");
    let alice = server.register("alice").await;
    let capabilities = alice.get(capabilities).send().await.ok();
    assert_eq!(
        capabilities["capabilities"]["m.room_versions"]["default"],
        "12"
    );
}

/// Every row of the specification's endpoints.csv: what is due is there, what comes later says so. Routes are probed as a
/// stranger, so that no answer depends on what was asked before.
#[tokio::test(start_paused = true)]
async fn every_endpoint_that_is_due_is_served() {
    let server = Server::start().await;
    probe::assert_due_is_served(&server).await;
}

#[tokio::test(start_paused = true)]
async fn what_is_not_there_is_unrecognized() {
    let server = Server::start().await;
    probe::assert_unknown_is_refused(&server).await;
}
