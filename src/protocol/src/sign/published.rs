//! What servers publish of their keys: ours written, others' checked.
//!
//! See <https://spec.matrix.org/v1.19/server-server-api/#publishing-keys>.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::canonical::{JsonError, Numbers, canonicalize, to_canonical};
use crate::id::{OwnedServerName, ServerName};

use super::{
    ALGORITHM, KeyValidity, PublishedKey, SigningKey, VerifyKey, unsigned_part, verify_json,
    with_signature,
};

/// However long a server says that its keys are good, they are asked for again after seven days
/// (threat B4).
pub const MAX_KEY_VALIDITY_MS: u64 = 7 * 24 * 60 * 60 * 1000;

/// A key that we signed with once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OldKey {
    /// `ed25519:VERSION`.
    pub key_id: String,
    /// Its public half.
    pub key: VerifyKey,
    /// When we stopped to sign with it, in milliseconds since 1970.
    pub expired_ts: u64,
}

#[derive(Serialize, Deserialize)]
struct Key {
    key: String,
}

#[derive(Serialize, Deserialize)]
struct Old {
    expired_ts: i64,
    key: String,
}

#[derive(Serialize)]
struct Published<'a> {
    old_verify_keys: BTreeMap<&'a str, Old>,
    server_name: &'a ServerName,
    valid_until_ts: u64,
    verify_keys: BTreeMap<&'a str, Key>,
}

impl SigningKey {
    /// The answer of `/_matrix/key/v2/server`: this key, those of before, until when they need not
    /// be asked for again (in milliseconds since 1970).
    ///
    /// # Errors
    /// A time is beyond what JSON between servers can say.
    pub fn publish_keys(
        &self,
        server: &ServerName,
        old: &[OldKey],
        valid_until_ts: u64,
    ) -> Result<String, JsonError> {
        let encoded = |key: &VerifyKey| key.to_base64();
        let old = old.iter().map(|old| {
            let expired_ts = i64::try_from(old.expired_ts).unwrap_or(i64::MAX);
            let key = encoded(&old.key);
            (old.key_id.as_str(), Old { expired_ts, key })
        });
        let key = encoded(&self.verify_key());
        let json = to_canonical(&Published {
            old_verify_keys: old.collect(),
            server_name: server,
            valid_until_ts,
            verify_keys: BTreeMap::from([(self.key_id(), Key { key })]),
        })?;
        let signature = self.sign(json.as_bytes());
        with_signature(&json, server, self.key_id(), &signature)
    }

    /// Another server's keys with our signature added to its own: what we answer as a notary.
    ///
    /// # Errors
    /// Its answer carries signatures of a strange shape, beside its own.
    pub fn vouch_for_keys(
        &self,
        notary: &ServerName,
        keys: &ServerKeys,
    ) -> Result<String, JsonError> {
        let signature = self.sign(unsigned_part(&keys.json).as_bytes());
        with_signature(&keys.json, notary, self.key_id(), &signature)
    }
}

/// Why another server's answer about its keys isn't taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyAnswerError {
    /// Not JSON of that shape.
    #[error("not an answer of the specified form")]
    Form,
    /// It is another server's.
    #[error("the answer is about another server")]
    OtherServer,
    /// The server hasn't signed it with one of the keys in it (threat B5).
    #[error("the answer is not signed by the server it is about")]
    Unsigned,
}

/// A server's keys as it published and signed them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerKeys {
    json: String,
    server: OwnedServerName,
    keys: BTreeMap<String, PublishedKey>,
    valid_until_ts: u64,
}

#[derive(Deserialize)]
struct Answer {
    server_name: OwnedServerName,
    valid_until_ts: i64,
    verify_keys: BTreeMap<String, Key>,
    #[serde(default)]
    old_verify_keys: BTreeMap<String, Old>,
}

impl ServerKeys {
    /// Reads and checks what `server`, or a notary, answered at `fetched_ts` (milliseconds since
    /// 1970). Keys that can't be used (of other algorithms, malformed, known to be weak) are left
    /// out.
    ///
    /// # Errors
    /// It isn't what `server` published.
    pub fn check(
        server: &ServerName,
        answer: &[u8],
        fetched_ts: u64,
    ) -> Result<Self, KeyAnswerError> {
        let form = |_| KeyAnswerError::Form;
        let json = canonicalize(answer, Numbers::Lax).map_err(form)?;
        let answer: Answer = serde_json::from_str(&json).map_err(|_| KeyAnswerError::Form)?;
        if answer.server_name != server {
            return Err(KeyAnswerError::OtherServer);
        }
        let usable = |key_id: &str, key: &str| {
            let version = key_id.strip_prefix(ALGORITHM)?.strip_prefix(':')?;
            (!version.is_empty()).then(|| VerifyKey::parse(key).ok())?
        };
        let at_most = fetched_ts.saturating_add(MAX_KEY_VALIDITY_MS);
        let valid_until_ts = u64::try_from(answer.valid_until_ts)
            .unwrap_or(0)
            .min(at_most);
        let until = KeyValidity::Until(i64::try_from(valid_until_ts).unwrap_or(i64::MAX));
        let mut keys = BTreeMap::new();
        for (key_id, old) in answer.old_verify_keys {
            if let Some(key) = usable(&key_id, &old.key) {
                let validity = KeyValidity::Expired(old.expired_ts);
                keys.insert(key_id, PublishedKey { key, validity });
            }
        }
        let mut current = BTreeMap::new();
        for (key_id, key) in answer.verify_keys {
            if let Some(key) = usable(&key_id, &key.key) {
                current.insert(key_id.clone(), key);
                // A key that is listed twice is a current one: its server signs with it.
                let validity = until;
                keys.insert(key_id, PublishedKey { key, validity });
            }
        }
        verify_json(&json, server.as_str(), |key_id| {
            current.get(key_id).copied()
        })
        .map_err(|_| KeyAnswerError::Unsigned)?;
        Ok(Self {
            json,
            server: server.to_owned(),
            keys,
            valid_until_ts,
        })
    }

    /// Whose they are.
    pub fn server(&self) -> &ServerName {
        &self.server
    }

    /// The key of this id, current or old.
    pub fn key(&self, key_id: &str) -> Option<PublishedKey> {
        self.keys.get(key_id).copied()
    }

    /// All keys, by id.
    pub fn keys(&self) -> impl Iterator<Item = (&str, PublishedKey)> {
        self.keys
            .iter()
            .map(|(key_id, key)| (key_id.as_str(), *key))
    }

    /// When they are to be asked for again, in milliseconds since 1970: what the server said, at
    /// most [`MAX_KEY_VALIDITY_MS`] after they were fetched.
    pub fn valid_until_ts(&self) -> u64 {
        self.valid_until_ts
    }

    /// The answer in canonical JSON, signatures included.
    pub fn json(&self) -> &str {
        &self.json
    }
}
