//! <https://spec.matrix.org/v1.19/server-server-api/#retrieving-server-keys>

use comity_protocol::{id::ServerName, sign::ServerKeys};
use comity_testkit::Server;

/// <https://spec.matrix.org/v1.19/server-server-api/#publishing-keys>: what we publish is what others accept, for a day.
#[tokio::test]
async fn the_server_publishes_its_keys_under_its_own_signature() {
    let server = Server::start().await;
    let answer = server.get("/_matrix/key/v2/server").send().await;
    let name = ServerName::parse("localhost").unwrap();
    let until = answer.body["valid_until_ts"].as_u64().unwrap();
    let hour = 60 * 60 * 1000;
    let keys = ServerKeys::check(&name, &answer.bytes, until - 23 * hour).unwrap();
    assert_eq!(keys.valid_until_ts(), until);
    assert!(keys.key("ed25519:1").is_some());
}
