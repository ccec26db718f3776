//! The server-server API, by its groups.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod discovery;
mod history;
mod invites;
mod keys;
mod media;
mod membership;
mod openid;
mod queries;
mod request;
mod transactions;

/// The server has every endpoint of the table that a homeserver serves, but for those that wait.
#[tokio::test]
async fn every_endpoint_that_is_due_is_served() {
    const WAIT: [&str; 2] = [
        // Told by identity servers, of which we know none.
        "/3pid/onbind",
        // A policy server is asked, not run.
        "/policy/",
    ];
    let server = comity_testkit::Server::start().await;
    let mut endpoints = comity_testkit::probe::server_endpoints();
    endpoints.retain(|endpoint| !WAIT.iter().any(|part| endpoint.name().contains(part)));
    let served = comity_testkit::probe::served(&server, &endpoints).await;
    let all: Vec<String> = endpoints.iter().map(|endpoint| endpoint.name()).collect();
    assert_eq!(served, all);
}
