//! A client's side of encryption: keys of its own making, signed.

use comity_protocol::canonical::to_canonical;
use serde_json::{Map, Value, json};
use vodozemac::{Ed25519SecretKey, olm::Account};

use crate::{Answer, Client, User};

/// Where keys are served.
pub const V3: &str = "/_matrix/client/v3/keys";

/// A device that encrypts.
pub struct Device {
    client: Client,
    /// Whose it is.
    pub user: String,
    /// Its id.
    pub id: String,
    olm: Account,
}

/// Signs an object, beside what has signed it already.
pub fn sign(object: &mut Value, user: &str, key_id: &str, sign: impl Fn(&str) -> String) {
    let mut unsigned = object.clone();
    let map = unsigned.as_object_mut().unwrap();
    map.remove("signatures");
    map.remove("unsigned");
    let signature = sign(&to_canonical(&unsigned).unwrap());
    object["signatures"][user][key_id] = signature.into();
}

impl Device {
    /// The one that a user is signed in on.
    #[must_use]
    pub fn of(user: &User) -> Self {
        Self {
            client: user.with_token(&user.token),
            user: user.id.clone(),
            id: user.device.clone(),
            olm: Account::new(),
        }
    }

    /// Another device of a user's, which they aren't signed in on.
    #[must_use]
    pub fn named(user: &User, id: &str) -> Self {
        let id = id.to_owned();
        Self {
            id,
            ..Self::of(user)
        }
    }

    /// Signs an object with the device's key.
    pub fn sign(&self, object: &mut Value) {
        let key_id = format!("ed25519:{}", self.id);
        sign(object, &self.user, &key_id, |text| {
            self.olm.sign(text).to_base64()
        });
    }

    /// Its identity keys, signed by itself.
    #[must_use]
    pub fn device_keys(&self) -> Value {
        let mut keys = json!({
            "user_id": self.user,
            "device_id": self.id,
            "algorithms": ["m.olm.v1.curve25519-aes-sha2", "m.megolm.v1.aes-sha2"],
            "keys": {
                format!("curve25519:{}", self.id): self.olm.curve25519_key().to_base64(),
                format!("ed25519:{}", self.id): self.olm.ed25519_key().to_base64(),
            },
        });
        self.sign(&mut keys);
        keys
    }

    /// New one-time keys by id.
    pub fn one_time_keys(&mut self, count: usize) -> Map<String, Value> {
        self.olm.generate_one_time_keys(count);
        let keys = self.olm.one_time_keys();
        self.olm.mark_keys_as_published();
        let keys = keys.into_iter().map(|(id, key)| {
            let mut key = json!({ "key": key.to_base64() });
            self.sign(&mut key);
            (format!("signed_curve25519:{}", id.to_base64()), key)
        });
        keys.collect()
    }

    /// A new fallback key by its id.
    pub fn fallback_key(&mut self) -> Map<String, Value> {
        self.olm.generate_fallback_key();
        let keys = self.olm.fallback_key();
        self.olm.mark_keys_as_published();
        let keys = keys.into_iter().map(|(id, key)| {
            let mut key = json!({ "key": key.to_base64(), "fallback": true });
            self.sign(&mut key);
            (format!("signed_curve25519:{}", id.to_base64()), key)
        });
        keys.collect()
    }

    /// Asks for an upload of keys.
    pub async fn upload(&self, body: Value) -> Answer {
        self.post("upload", body).await
    }

    /// Uploads identity keys.
    pub async fn publish(&self) -> Value {
        let keys = self.device_keys();
        self.upload(json!({ "device_keys": keys })).await.ok();
        keys
    }

    /// Asks a path below [`V3`].
    pub async fn post(&self, path: &str, body: Value) -> Answer {
        let request = self.client.post(format!("{V3}/{path}")).json(body);
        request.send().await
    }

    /// All keys of users.
    pub async fn query(&self, users: &[&str]) -> Value {
        let asked: Map<String, Value> =
            users.iter().map(|u| ((*u).to_owned(), json!([]))).collect();
        self.post("query", json!({ "device_keys": asked }))
            .await
            .ok()
    }

    /// Claims a key of another device; its id and the key.
    pub async fn claim(&self, user: &str, device: &str) -> Option<(String, Value)> {
        let wanted = json!({ "one_time_keys": { user: { device: "signed_curve25519" } } });
        let answer = self.post("claim", wanted).await.ok();
        let keys = answer["one_time_keys"][user][device].as_object()?.clone();
        assert_eq!(keys.len(), 1);
        keys.into_iter().next()
    }
}

/// A user's cross-signing keys.
pub struct CrossSigning {
    /// Whose they are.
    pub user: String,
    /// What the others are signed by.
    pub master: Ed25519SecretKey,
    /// What the user's devices are signed by.
    pub self_signing: Ed25519SecretKey,
    /// What other users are signed by.
    pub user_signing: Ed25519SecretKey,
}

impl CrossSigning {
    /// New ones of a user.
    #[must_use]
    pub fn of(user: &str) -> Self {
        Self {
            user: user.to_owned(),
            master: Ed25519SecretKey::new(),
            self_signing: Ed25519SecretKey::new(),
            user_signing: Ed25519SecretKey::new(),
        }
    }

    /// The master key as it is uploaded.
    #[must_use]
    pub fn master_key(&self) -> Value {
        self.key(&self.master, "master")
    }

    fn key(&self, key: &Ed25519SecretKey, usage: &str) -> Value {
        let public = key.public_key().to_base64();
        json!({
            "user_id": self.user,
            "usage": [usage],
            "keys": { format!("ed25519:{public}"): public },
        })
    }

    /// One of the others as it is uploaded, signed by the master key.
    #[must_use]
    pub fn subkey(&self, key: &Ed25519SecretKey, usage: &str) -> Value {
        let mut object = self.key(key, usage);
        self.sign_with(&self.master, &mut object);
        object
    }

    /// Signs an object with one of them.
    pub fn sign_with(&self, key: &Ed25519SecretKey, object: &mut Value) {
        let id = format!("ed25519:{}", key.public_key().to_base64());
        sign(object, &self.user, &id, |text| {
            key.sign(text.as_bytes()).to_base64()
        });
    }

    /// The body of an upload.
    #[must_use]
    pub fn upload(&self) -> Value {
        json!({
            "master_key": self.master_key(),
            "self_signing_key": self.subkey(&self.self_signing, "self_signing"),
            "user_signing_key": self.subkey(&self.user_signing, "user_signing"),
        })
    }
}

/// The public half of a key.
#[must_use]
pub fn public(key: &Ed25519SecretKey) -> String {
    key.public_key().to_base64()
}
