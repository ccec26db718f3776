//! What is sent to another server of our own accord.

use std::collections::BTreeMap;

use comity_protocol::id::ServerName;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{Call, Limits, PeerError, Peers};
use std::time::Duration;

/// The receiver may have to fetch much before it answers.
const TRANSACTION: Limits = Limits {
    timeout: Duration::from_secs(60),
    max_bytes: 1 << 20,
};

/// Events and ephemeral data for one server.
#[derive(Debug, Serialize)]
pub struct Transaction<'a> {
    /// Us.
    pub origin: &'a ServerName,
    /// Now, in milliseconds since 1970.
    pub origin_server_ts: u64,
    /// At most 50 events.
    pub pdus: &'a [Box<RawValue>],
    /// At most 100 pieces of ephemeral data.
    pub edus: &'a [Box<RawValue>],
}

/// What became of the events: by id, why one was refused.
#[derive(Debug, Default, Deserialize)]
pub struct TransactionAnswer {
    /// By event id.
    #[serde(default)]
    pub pdus: BTreeMap<String, PduResult>,
}

/// What became of an event.
#[derive(Debug, Default, Deserialize)]
pub struct PduResult {
    /// Why it was refused: another's words.
    pub error: Option<String>,
}

impl Peers {
    /// Sends a transaction; sending it again under its id does nothing twice.
    ///
    /// <https://spec.matrix.org/v1.19/server-server-api/#put_matrixfederationv1sendtxnid>
    ///
    /// # Errors
    /// [`PeerError`].
    pub async fn send_transaction(
        &self,
        to: &ServerName,
        txn_id: &str,
        transaction: &Transaction<'_>,
    ) -> Result<TransactionAnswer, PeerError> {
        let path = ["federation", "v1", "send", txn_id];
        let answer = self
            .exchange(to, Call::put(&path, transaction, TRANSACTION)?)
            .await?;
        // It was taken: what else is said doesn't change that.
        Ok(serde_json::from_slice(&answer).unwrap_or_default())
    }
}
