//! Servers' signing keys, asked without a signature: ours could not be checked yet.

use bytes::Bytes;
use comity_protocol::id::ServerName;
use serde::Deserialize;
use serde_json::{json, value::RawValue};

use super::{Call, PeerError, Peers, SMALL};

#[derive(Deserialize)]
struct Notarised {
    server_keys: Vec<Box<RawValue>>,
}

impl Peers {
    /// A server's own answer about its keys, unchecked.
    ///
    /// <https://spec.matrix.org/v1.19/server-server-api/#get_matrixkeyv2server>
    ///
    /// # Errors
    /// [`PeerError`].
    pub async fn server_keys(&self, to: &ServerName) -> Result<Bytes, PeerError> {
        let call = Call::get(&["key", "v2", "server"], SMALL);
        self.exchange(to, call.unsigned()).await
    }

    /// What a notary has of a server's keys that are good until some time (milliseconds since 1970),
    /// unchecked.
    ///
    /// <https://spec.matrix.org/v1.19/server-server-api/#post_matrixkeyv2query>
    ///
    /// # Errors
    /// [`PeerError`].
    pub async fn notarised_keys(
        &self,
        notary: &ServerName,
        server: &ServerName,
        minimum_valid_until_ts: u64,
    ) -> Result<Vec<Box<RawValue>>, PeerError> {
        let wanted = json!({ "minimum_valid_until_ts": minimum_valid_until_ts });
        // No key by name: all of the server's.
        let body = json!({ "server_keys": { server.as_str(): { "": wanted } } });
        let call = Call::post(&["key", "v2", "query"], &body, SMALL)?;
        let answer = self.call(notary, call.unsigned()).await;
        answer.map(|Notarised { server_keys }| server_keys)
    }
}
