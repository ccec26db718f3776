//! Signed key objects: read once, checked, kept as canonical text.
//!
//! Nothing of what a client signed is taken away or put in order but what canonical JSON puts in order, since others will check the
//! signatures. What isn't signed (`unsigned`) is ours to say, and is dropped.
//!
//! <https://spec.matrix.org/v1.19/appendices/#signing-json>

use std::collections::BTreeMap;

use comity_protocol::{
    canonical::{Numbers, Object, canonicalize},
    sign::VerifyKey,
};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::KeysError;

/// The largest identity or cross-signing key object, in bytes.
const MAX_IDENTITY: usize = 32 << 10;
/// The largest one-time or fallback key object, in bytes.
const MAX_KEY: usize = 4 << 10;
/// The longest `algorithm:name` of a key, in bytes; names of devices and keys of curve 25519 are shorter.
const MAX_KEY_ID: usize = 300;
/// The longest name of an algorithm, in bytes.
const MAX_ALGORITHM: usize = 64;

/// User → id of the key that signed → signature.
pub type Signatures = BTreeMap<String, BTreeMap<String, String>>;

/// Reads an object into canonical form, without `unsigned`.
fn object(raw: &RawValue, most: usize) -> Result<String, KeysError> {
    let json = canonicalize(raw.get().as_bytes(), Numbers::Strict)
        .map_err(|_| KeysError::BadJson("A key is not canonical JSON"))?;
    if json.len() > most {
        return Err(KeysError::TooLarge("A key is too large"));
    }
    let mut object = Object::parse(&json).map_err(|_| KeysError::BadJson("A key is no object"))?;
    if object.get("unsigned").is_none() {
        return Ok(json);
    }
    object.remove("unsigned");
    object
        .write()
        .map_err(|_| KeysError::BadJson("A key is no object"))
}

/// Any signed object.
#[derive(Debug)]
pub struct Signed {
    /// As it is kept.
    pub json: String,
    /// Those that stand in it.
    pub signatures: Signatures,
}

impl Signed {
    /// Reads what somebody has signed; the signatures are not checked here.
    ///
    /// # Errors
    /// [`KeysError::BadJson`], [`KeysError::TooLarge`].
    pub fn read(raw: &RawValue) -> Result<Self, KeysError> {
        #[derive(Deserialize)]
        struct Form {
            #[serde(default)]
            signatures: Signatures,
        }
        let json = object(raw, MAX_IDENTITY)?;
        let Form { signatures } = serde_json::from_str(&json)
            .map_err(|_| KeysError::BadJson("Signatures are not of the specified form"))?;
        Ok(Self { json, signatures })
    }
}

/// The identity keys of a device.
///
/// <https://spec.matrix.org/v1.19/client-server-api/#device-keys>
#[derive(Debug)]
pub struct DeviceKeys {
    /// As they are kept.
    pub json: String,
    /// The signing key, in base64 as it stands there.
    pub ed25519: String,
}

#[derive(Deserialize)]
struct DeviceForm {
    user_id: String,
    device_id: String,
    #[serde(rename = "algorithms")]
    _algorithms: Vec<String>,
    keys: BTreeMap<String, String>,
    signatures: Signatures,
}

impl DeviceKeys {
    /// Reads what a device uploads as its own. Its own signature must be right if there is one; without one the keys are kept, and
    /// nobody believes them.
    ///
    /// # Errors
    /// [`KeysError::BadJson`], [`KeysError::Invalid`], [`KeysError::TooLarge`].
    pub fn read(raw: &RawValue, user: &str, device: &str) -> Result<Self, KeysError> {
        let json = object(raw, MAX_IDENTITY)?;
        let form: DeviceForm = serde_json::from_str(&json)
            .map_err(|_| KeysError::BadJson("device_keys is not of the specified form"))?;
        if form.user_id != user || form.device_id != device {
            return Err(KeysError::Invalid(
                "device_keys is of another user or device",
            ));
        }
        let is_ours = |key_id: &String| {
            key_id.split_once(':').is_some_and(|(algorithm, of)| {
                !algorithm.is_empty() && algorithm.len() <= MAX_ALGORITHM && of == device
            })
        };
        if !form.keys.keys().all(is_ours) {
            return Err(KeysError::Invalid(
                "The ids of device_keys.keys are not of this device",
            ));
        }
        let own = format!("ed25519:{device}");
        let Some(ed25519) = form.keys.get(&own) else {
            return Err(KeysError::Invalid("device_keys has no ed25519 key"));
        };
        let signature = form.signatures.get(user).and_then(|by| by.get(&own));
        if let Some(signature) = signature
            && !is_signed(&json, ed25519, signature)
        {
            return Err(KeysError::Invalid(
                "device_keys is not signed by the device",
            ));
        }
        Ok(Self {
            ed25519: ed25519.clone(),
            json,
        })
    }

    /// The signing key of keys that were taken before.
    pub fn signing_key(json: &str, device: &str) -> Option<String> {
        #[derive(Deserialize)]
        struct Form {
            keys: BTreeMap<String, String>,
        }
        let mut form: Form = serde_json::from_str(json).ok()?;
        form.keys.remove(&format!("ed25519:{device}"))
    }
}

/// Whether a text is a device's keys as another server may tell of them: theirs, with a signing key or not.
pub fn device_keys_of_peer(raw: &RawValue, user: &str, device: &str) -> Option<String> {
    let json = object(raw, MAX_IDENTITY).ok()?;
    let form: DeviceForm = serde_json::from_str(&json).ok()?;
    (form.user_id == user && form.device_id == device).then_some(json)
}

/// The longest id, and name, of another server's device that is kept, in bytes.
pub(crate) const MAX_PEER_TEXT: usize = 255;

/// What is kept of the name that another server tells of a device.
pub(crate) fn name_of_peer(mut name: String) -> String {
    name.truncate(name.floor_char_boundary(MAX_PEER_TEXT));
    name
}

/// The name of a device that stands beside its keys.
pub(crate) fn display_name(raw: &RawValue) -> Option<String> {
    #[derive(Deserialize)]
    struct Form {
        unsigned: Unsigned,
    }
    #[derive(Deserialize)]
    struct Unsigned {
        device_display_name: String,
    }
    let form: Form = serde_json::from_str(raw.get()).ok()?;
    Some(form.unsigned.device_display_name)
}

/// A key that is given away: one-time or fallback.
///
/// <https://spec.matrix.org/v1.19/client-server-api/#one-time-and-fallback-keys>
#[derive(Debug, PartialEq, Eq)]
pub struct PreKey {
    /// What comes before the colon of its id.
    pub algorithm: String,
    /// Its whole id.
    pub key_id: String,
    /// As it is kept.
    pub json: String,
}

impl PreKey {
    /// Reads a key that a device uploads; where the algorithm has signed keys, it must be signed by the device's `signing_key`.
    ///
    /// # Errors
    /// [`KeysError::BadJson`], [`KeysError::Invalid`], [`KeysError::TooLarge`].
    pub fn read(
        key_id: &str,
        raw: &RawValue,
        user: &str,
        device: &str,
        signing_key: Option<&str>,
    ) -> Result<Self, KeysError> {
        #[derive(Deserialize)]
        struct Form {
            #[serde(rename = "key")]
            _key: String,
            #[serde(default)]
            signatures: Signatures,
        }
        let Some((algorithm, name)) = key_id.split_once(':') else {
            return Err(KeysError::Invalid("A key's id has no algorithm"));
        };
        if algorithm.is_empty()
            || name.is_empty()
            || algorithm.len() > MAX_ALGORITHM
            || key_id.len() > MAX_KEY_ID
        {
            return Err(KeysError::Invalid("A key's id can't be used"));
        }
        let key = |json: String| Self {
            algorithm: algorithm.to_owned(),
            key_id: key_id.to_owned(),
            json,
        };
        if raw.get().starts_with('"') && !algorithm.starts_with("signed_") {
            let json = canonicalize(raw.get().as_bytes(), Numbers::Strict)
                .map_err(|_| KeysError::BadJson("A key is not canonical JSON"))?;
            return if json.len() > MAX_KEY {
                Err(KeysError::TooLarge("A key is too large"))
            } else {
                Ok(key(json))
            };
        }
        let json = object(raw, MAX_KEY)?;
        let form: Form = serde_json::from_str(&json)
            .map_err(|_| KeysError::BadJson("A key is not of the specified form"))?;
        let own = format!("ed25519:{device}");
        let signature = form.signatures.get(user).and_then(|by| by.get(&own));
        let is_good = signature
            .zip(signing_key)
            .is_some_and(|(signature, by)| is_signed(&json, by, signature));
        let must_be_signed = algorithm.starts_with("signed_") || !form.signatures.is_empty();
        if must_be_signed && !is_good {
            return Err(KeysError::Invalid("A key is not signed by the device"));
        }
        Ok(key(json))
    }
}

/// What a cross-signing key is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Usage {
    /// The others of the user.
    Master,
    /// The user's devices.
    SelfSigning,
    /// Other users.
    UserSigning,
}

impl Usage {
    fn as_str(self) -> &'static str {
        match self {
            Self::Master => "master",
            Self::SelfSigning => "self_signing",
            Self::UserSigning => "user_signing",
        }
    }
}

/// One of the keys by which a user signs others.
///
/// <https://spec.matrix.org/v1.19/client-server-api/#key-and-signature-security>
#[derive(Clone, Debug)]
pub struct CrossSigningKey {
    /// As it is kept.
    pub json: String,
    /// The public half in base64.
    pub public: String,
    /// The public half.
    pub key: VerifyKey,
    /// Those that stand in it.
    pub signatures: Signatures,
}

impl CrossSigningKey {
    /// Reads a key of a user.
    ///
    /// # Errors
    /// [`KeysError::BadJson`], [`KeysError::Invalid`], [`KeysError::TooLarge`].
    pub fn read(raw: &RawValue, user: &str, usage: Usage) -> Result<Self, KeysError> {
        Self::of(object(raw, MAX_IDENTITY)?, user, usage)
    }

    /// A key that was taken before.
    pub fn stored(json: &str, user: &str, usage: Usage) -> Option<Self> {
        Self::of(json.to_owned(), user, usage).ok()
    }

    fn of(json: String, user: &str, usage: Usage) -> Result<Self, KeysError> {
        #[derive(Deserialize)]
        struct Form {
            user_id: String,
            usage: Vec<String>,
            keys: BTreeMap<String, String>,
            #[serde(default)]
            signatures: Signatures,
        }
        let form: Form = serde_json::from_str(&json)
            .map_err(|_| KeysError::BadJson("A cross-signing key is not of the specified form"))?;
        if form.user_id != user {
            return Err(KeysError::Invalid("A cross-signing key is of another user"));
        }
        if !form.usage.iter().any(|of| of == usage.as_str()) {
            return Err(KeysError::Invalid(
                "A cross-signing key is for another usage",
            ));
        }
        let mut keys = form.keys.into_iter();
        let (Some((key_id, public)), None) = (keys.next(), keys.next()) else {
            return Err(KeysError::Invalid(
                "A cross-signing key has not exactly one key",
            ));
        };
        if key_id.strip_prefix("ed25519:") != Some(public.as_str()) {
            return Err(KeysError::Invalid(
                "A cross-signing key is not named by its public half",
            ));
        }
        let key = VerifyKey::parse(&public)
            .map_err(|_| KeysError::Invalid("A cross-signing key is no ed25519 key"))?;
        Ok(Self {
            json,
            public,
            key,
            signatures: form.signatures,
        })
    }

    /// `ed25519:` and its public half.
    pub fn id(&self) -> String {
        format!("ed25519:{}", self.public)
    }

    /// Whether it is signed by another key of the same user.
    pub fn is_signed_by(&self, user: &str, by: &Self) -> bool {
        let signature = self.signatures.get(user).and_then(|of| of.get(&by.id()));
        signature.is_some_and(|signature| by.key.has_signed(&self.json, signature))
    }
}

/// Whether a key in base64 has made this signature of an object.
pub(crate) fn is_signed(json: &str, key: &str, signature: &str) -> bool {
    VerifyKey::parse(key).is_ok_and(|key| key.has_signed(json, signature))
}

/// A stored object as it is given out: with further signatures, and with what we say of it.
pub fn shown<'a>(
    json: &str,
    signatures: impl IntoIterator<Item = (&'a str, &'a str, &'a str)>,
    name: Option<&str>,
) -> Option<Box<RawValue>> {
    let mut object = Object::parse(json).ok()?;
    let mut all: Signatures = match object.get("signatures") {
        Some(signatures) => serde_json::from_str(signatures).ok()?,
        None => Signatures::new(),
    };
    let mut more = false;
    for (user, by, signature) in signatures {
        all.entry(user.to_owned())
            .or_default()
            .insert(by.to_owned(), signature.to_owned());
        more = true;
    }
    if more {
        object.set("signatures", &all).ok()?;
    }
    if let Some(name) = name {
        let unsigned = BTreeMap::from([("device_display_name", name)]);
        object.set("unsigned", &unsigned).ok()?;
    }
    RawValue::from_string(object.write().ok()?).ok()
}
