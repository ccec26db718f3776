//! <https://spec.matrix.org/v1.19/server-server-api/#server-discovery>

use comity_testkit::{Server, Settings};

/// <https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1version>
#[tokio::test]
async fn anybody_may_ask_for_the_version() {
    let server = Server::start().await;
    let answer = server.get("/_matrix/federation/v1/version").send().await;
    assert_eq!(answer.ok()["server"]["name"], "Comity");
}

/// <https://spec.matrix.org/v1.19/server-server-api/#getwell-knownmatrixserver>: published where the operator says so.
#[tokio::test]
async fn a_delegation_is_published() {
    let server = Server::start().await;
    let path = "/.well-known/matrix/server";
    server.get(path).send().await.error(404, "M_NOT_FOUND");
    let delegated = Settings {
        delegated_to: Some("matrix.localhost:443".try_into().unwrap()),
        ..Settings::default()
    };
    let server = Server::with(delegated).await;
    let answer = server.get(path).send().await.ok();
    assert_eq!(answer["m.server"], "matrix.localhost:443");
}
