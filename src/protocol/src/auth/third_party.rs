//! Invites made by an identity server's promise: `m.room.third_party_invite` and the signature by
//! which its holder becomes a member
//! ([spec](https://spec.matrix.org/v1.19/client-server-api/#third-party-invites)).

use ed25519_dalek::{Signature, VerifyingKey};
use serde_json::{Map, Value};

use super::content::read_object;
use crate::canonical::to_canonical;
use crate::id::{OwnedUserId, UserId};
use crate::unpadded;

/// What the rules keep of an `m.room.third_party_invite` event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ThirdPartyKeys {
    pub(super) sender: OwnedUserId,
    /// The keys any of which may have signed, as they stand.
    keys: Vec<String>,
}

impl ThirdPartyKeys {
    /// Reads `public_key` and `public_keys` of the content.
    pub fn read(sender: &UserId, content: &str) -> Self {
        let content = read_object(content).unwrap_or_default();
        let listed = content
            .get("public_keys")
            .and_then(Value::as_array)
            .into_iter()
            .flatten();
        let keys = content
            .get("public_key")
            .into_iter()
            .chain(listed.filter_map(|entry| entry.get("public_key")))
            .filter_map(|key| Some(key.as_str()?.to_owned()))
            .collect();
        Self {
            sender: sender.to_owned(),
            keys,
        }
    }

    /// Whether any signature in `signed` is by any of the keys.
    pub(super) fn have_signed(&self, signed: &Map<String, Value>) -> bool {
        let Some(message) = signable(signed) else {
            return false;
        };
        let keys: Vec<_> = self
            .keys
            .iter()
            .filter_map(|key| verifying_key(key))
            .collect();
        let signatures = signed.get("signatures").and_then(Value::as_object);
        signatures
            .into_iter()
            .flat_map(Map::values)
            .filter_map(Value::as_object)
            .flatten()
            .filter(|(key_id, _)| key_id.starts_with("ed25519:"))
            .filter_map(|(_, signature)| {
                Signature::from_slice(&unpadded::decode(signature.as_str()?)?).ok()
            })
            .any(|signature| {
                keys.iter()
                    .any(|key| key.verify_strict(message.as_bytes(), &signature).is_ok())
            })
    }
}

fn verifying_key(encoded: &str) -> Option<VerifyingKey> {
    // Identity servers write their keys in either alphabet.
    let bytes = unpadded::decode(&encoded.replace('-', "+").replace('_', "/"))?;
    VerifyingKey::from_bytes(&bytes.try_into().ok()?).ok()
}

/// What was signed: the object's canonical JSON without `signatures` and `unsigned`.
fn signable(signed: &Map<String, Value>) -> Option<String> {
    let mut object = signed.clone();
    object.remove("signatures");
    object.remove("unsigned");
    to_canonical(&object).ok()
}
