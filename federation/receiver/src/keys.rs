//! Keys of users of other servers: asked for, and heard of.

use async_trait::async_trait;
use comity_federation_client::{PeerError, Peers};
use comity_keys::{Claimed, Elsewhere, PeerDevices, PeerKeys, Unreachable, Wanted};
use comity_protocol::id::{ServerName, UserId};
use serde::Deserialize;
use serde_json::{Map, json};

/// Asks other servers for keys. Somebody waits for each answer.
pub struct KeysElsewhere(Peers);

impl KeysElsewhere {
    /// Asks by these peers.
    pub fn new(peers: &Peers) -> Self {
        Self(peers.urgent())
    }
}

#[derive(Deserialize)]
struct Given {
    one_time_keys: Option<Claimed>,
}

#[async_trait]
impl Elsewhere for KeysElsewhere {
    async fn query(&self, server: &ServerName, users: &[&str]) -> Result<PeerKeys, Unreachable> {
        let asked: Map<String, _> = users
            .iter()
            .map(|user| ((*user).to_owned(), json!([])))
            .collect();
        let asked = json!({ "device_keys": asked });
        self.0.query_keys(server, &asked).await.map_err(unreachable)
    }

    async fn claim(&self, server: &ServerName, wanted: &Wanted) -> Result<Claimed, Unreachable> {
        let asked = json!({ "one_time_keys": wanted });
        let given = self.0.claim_keys(server, &asked).await;
        given
            .map(|Given { one_time_keys }| one_time_keys.unwrap_or_default())
            .map_err(unreachable)
    }

    async fn devices(&self, user: &UserId) -> Result<PeerDevices, Unreachable> {
        self.0
            .devices(user.server_name(), user)
            .await
            .map_err(unreachable)
    }
}

/// Its own words don't reach our users, only what kind of answer it was.
fn unreachable(error: PeerError) -> Unreachable {
    Unreachable(match error {
        PeerError::Refused(refusal) => format!("The server refused with {}", refusal.status),
        PeerError::Malformed => "The server gave no answer that can be read".to_owned(),
        _ => "The server can't be reached".to_owned(),
    })
}
