//! The key by which a peer gives its word on events, as a room's policy server.

use std::sync::Arc;

use ruma_common::{CanonicalJsonObject, RoomVersionId, canonical_json::redact};
use ruma_signatures::{Ed25519KeyPair, sign_json};
use serde_json::{Value, json};

use super::{HostilePeer, hostile::ed25519};

/// A policy server's key; not the one that its server publishes.
#[derive(Clone)]
pub struct PolicyKey {
    server: String,
    pair: Arc<Ed25519KeyPair>,
}

impl HostilePeer {
    /// The peer's key as a policy server; each number is another one.
    ///
    /// # Panics
    /// Never.
    #[must_use]
    pub fn policy_key(&self, number: u8) -> PolicyKey {
        PolicyKey {
            server: self.name.to_string(),
            pair: Arc::new(ed25519(&[number; 32], "policy_server")),
        }
    }
}

impl PolicyKey {
    /// The content of the event that designates the server.
    #[must_use]
    pub fn designation(&self) -> Value {
        json!({ "via": self.server, "public_keys": { "ed25519": self.public() } })
    }

    fn public(&self) -> String {
        ruma_common::serde::Base64::<ruma_common::serde::base64::Standard, _>::new(
            self.pair.public_key().to_vec(),
        )
        .encode()
    }

    /// The server's word on an event, as it answers it.
    ///
    /// # Panics
    /// If the event is no canonical JSON.
    #[must_use]
    pub fn sign(&self, version: &str, event: &Value) -> Value {
        let rules = RoomVersionId::try_from(version)
            .ok()
            .and_then(|version| version.rules())
            .expect("a room version");
        let object: CanonicalJsonObject =
            serde_json::from_value(event.clone()).expect("canonical JSON");
        let mut object = redact(object, &rules.redaction, None).expect("an event");
        object.remove("signatures");
        object.remove("unsigned");
        sign_json(&self.server, &*self.pair, &mut object).expect("an object can be signed");
        let signed = serde_json::to_value(&object).expect("JSON");
        signed["signatures"].clone()
    }
}
