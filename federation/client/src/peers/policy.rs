//! A policy server's word on an event.

use std::{collections::BTreeMap, time::Duration};

use comity_protocol::{id::ServerName, sign::POLICY_KEY_ID};
use serde_json::value::RawValue;

use super::{Call, Limits, PeerError, Peers};

/// Somebody waits to have said something.
const POLICY: Limits = Limits {
    timeout: Duration::from_secs(10),
    max_bytes: 64 << 10,
};

impl Peers {
    /// Asks a policy server to sign an event: its signature, unchecked. Also one that hasn't answered lately: an event that it wasn't asked
    /// about is refused here for good, and may not be elsewhere.
    ///
    /// <https://spec.matrix.org/v1.19/server-server-api/#post_matrixpolicyv1sign>
    ///
    /// # Errors
    /// [`PeerError`]; a refusal says that it doesn't recommend the event.
    pub async fn policy_signature(
        &self,
        to: &ServerName,
        event: &RawValue,
    ) -> Result<String, PeerError> {
        let call = Call::post(&["policy", "v1", "sign"], event, POLICY)?.insisting();
        let signatures: BTreeMap<String, BTreeMap<String, String>> = self.call(to, call).await?;
        let of_server = signatures.get(to.as_str());
        let signature = of_server.and_then(|keys| keys.get(POLICY_KEY_ID));
        signature.cloned().ok_or(PeerError::Malformed)
    }
}
