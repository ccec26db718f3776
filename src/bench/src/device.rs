//! A device's keys, signed as a client signs them, since servers check that.
//!
//! The load never decrypts anything: what would be a Curve25519 key is 32 bytes of chance, which is what
//! such a key looks like to a server.

use comity_protocol::canonical::to_canonical;
use comity_protocol::unpadded;
use ed25519_dalek::{Signer as _, SigningKey};
use rand::Rng as _;
use rand_chacha::ChaCha12Rng;
use serde_json::{Map, Value, json};

use crate::error::{Error, Result};
use crate::matrix::Account;

/// A device that encrypts.
pub struct Device {
    /// Its account.
    pub account: Account,
    /// The public half of its identity key, in base64.
    pub curve25519: String,
    key: SigningKey,
}

impl Device {
    /// The device of `account`, with new keys.
    #[must_use]
    pub fn new(account: Account, random: &mut ChaCha12Rng) -> Self {
        Self {
            account,
            curve25519: base64(random),
            key: SigningKey::from_bytes(&bytes(random)),
        }
    }

    /// Its [identity keys](https://spec.matrix.org/v1.19/client-server-api/#device-keys).
    ///
    /// # Errors
    /// There are none that anybody can do something about.
    pub fn identity(&self) -> Result<Value> {
        let Account {
            user_id, device_id, ..
        } = &self.account;
        let (curve25519, ed25519) = (format!("curve25519:{device_id}"), self.key_id());
        self.signed(json!({
            "user_id": user_id,
            "device_id": device_id,
            "algorithms": ["m.olm.v1.curve25519-aes-sha2", "m.megolm.v1.aes-sha2"],
            "keys": { curve25519: self.curve25519, ed25519: public(&self.key) },
        }))
    }

    /// New [one-time keys](https://spec.matrix.org/v1.19/client-server-api/#key-algorithms) by their ids, which `names` tells apart.
    ///
    /// # Errors
    /// As [`Device::identity`].
    pub fn one_time_keys(
        &self,
        names: impl IntoIterator<Item = String>,
        random: &mut ChaCha12Rng,
    ) -> Result<Map<String, Value>> {
        let keys = names.into_iter().map(|name| {
            let key = self.signed(json!({ "key": base64(random) }))?;
            Ok((format!("signed_curve25519:{name}"), key))
        });
        keys.collect()
    }

    fn key_id(&self) -> String {
        format!("ed25519:{}", self.account.device_id)
    }

    fn signed(&self, object: Value) -> Result<Value> {
        signed(object, &self.account.user_id, &self.key_id(), &self.key)
    }
}

/// New [cross-signing keys](https://spec.matrix.org/v1.19/client-server-api/#cross-signing) of a user, as they are uploaded.
///
/// # Errors
/// As [`Device::identity`].
pub fn cross_signing(user: &str, random: &mut ChaCha12Rng) -> Result<Value> {
    let master = SigningKey::from_bytes(&bytes(random));
    let key = |key: &SigningKey, usage: &str| {
        let (id, public) = (format!("ed25519:{}", public(key)), public(key));
        json!({ "user_id": user, "usage": [usage], "keys": { id: public } })
    };
    let mut subkey = |usage: &str| {
        let object = key(&SigningKey::from_bytes(&bytes(random)), usage);
        signed(
            object,
            user,
            &format!("ed25519:{}", public(&master)),
            &master,
        )
    };
    let (self_signing, user_signing) = (subkey("self_signing")?, subkey("user_signing")?);
    Ok(json!({
        "master_key": key(&master, "master"),
        "self_signing_key": self_signing,
        "user_signing_key": user_signing,
    }))
}

/// The object with its [signature](https://spec.matrix.org/v1.19/appendices/#signing-json), its first.
fn signed(mut object: Value, user: &str, key_id: &str, key: &SigningKey) -> Result<Value> {
    let text = to_canonical(&object).map_err(|error| Error::Program(error.to_string()))?;
    let signature = unpadded::encode(&key.sign(text.as_bytes()).to_bytes());
    if let Some(members) = object.as_object_mut() {
        let signatures = json!({ user: { key_id: signature } });
        members.insert("signatures".to_owned(), signatures);
    }
    Ok(object)
}

fn public(key: &SigningKey) -> String {
    unpadded::encode(key.verifying_key().as_bytes())
}

fn bytes(random: &mut ChaCha12Rng) -> [u8; 32] {
    let mut bytes = [0; 32];
    random.fill_bytes(&mut bytes);
    bytes
}

/// 32 bytes of chance in base64.
#[must_use]
pub fn base64(random: &mut ChaCha12Rng) -> String {
    unpadded::encode(&bytes(random))
}

#[cfg(test)]
mod tests {
    use comity_protocol::sign::{VerifyKey, verify_json};
    use rand::SeedableRng as _;

    use super::*;

    fn device() -> Device {
        let account = Account {
            user_id: "@alice:bench.invalid".to_owned(),
            device_id: "PHONE".to_owned(),
            token: "t".to_owned(),
        };
        Device::new(account, &mut ChaCha12Rng::seed_from_u64(1))
    }

    fn check(object: &Value, id: &str, key: &str) {
        let canonical = to_canonical(object).unwrap();
        let key = VerifyKey::parse(key).unwrap();
        let of = |asked: &str| (asked == id).then_some(key);
        verify_json(&canonical, "@alice:bench.invalid", of).unwrap();
    }

    /// <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3keysupload>: all keys are signed by the device.
    #[test]
    fn keys_are_signed_by_the_device() {
        let device = device();
        let identity = device.identity().unwrap();
        let key = identity["keys"]["ed25519:PHONE"].as_str().unwrap();
        check(&identity, "ed25519:PHONE", key);
        let mut random = ChaCha12Rng::seed_from_u64(2);
        let names = ["a", "b"].map(str::to_owned);
        let keys = device.one_time_keys(names, &mut random).unwrap();
        assert_eq!(keys.len(), 2);
        for (id, object) in &keys {
            assert!(id.starts_with("signed_curve25519:"));
            check(object, "ed25519:PHONE", key);
        }
        assert_ne!(
            keys["signed_curve25519:a"]["key"],
            keys["signed_curve25519:b"]["key"]
        );
    }

    /// <https://spec.matrix.org/v1.19/client-server-api/#cross-signing>: the master key signs the two others.
    #[test]
    fn subkeys_are_signed_by_the_master_key() {
        let mut random = ChaCha12Rng::seed_from_u64(3);
        let keys = cross_signing("@alice:bench.invalid", &mut random).unwrap();
        let master = keys["master_key"]["keys"].as_object().unwrap();
        let (id, key) = master.iter().next().unwrap();
        for name in ["self_signing_key", "user_signing_key"] {
            check(&keys[name], id, key.as_str().unwrap());
        }
    }
}
