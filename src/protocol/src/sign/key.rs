//! The two halves of a key.

use ed25519_dalek::{Signature, Signer, VerifyingKey};

use super::{ALGORITHM, signed_part, unsigned_part, with_signature};
use crate::event::{BuildError, Event, Signed, Unsigned};
use crate::id::ServerName;
use crate::unpadded;

/// Keys whose secret half is known or can be guessed, in unpadded base64: made by installers
/// without randomness (CVE-2026-24044, threat B6). Whoever signs with one proves nothing.
const KNOWN_WEAK: &[&str] = &["l/O9hxMVKB6Lg+3Hqf0FQQZhVESQcMzbPN1Cz2nM3og"];

/// A server's own signing key. Its secret half is wiped from memory when it is dropped.
pub struct SigningKey {
    key_id: String,
    key: ed25519_dalek::SigningKey,
}

/// Why a signing key can't be read. Says nothing of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Not `ed25519 VERSION BASE64`.
    #[error("not of the form `ed25519 VERSION BASE64`")]
    Form,
    /// The version has other characters than letters, digits and `_`, or none.
    #[error("the key's version may only have letters, digits and underscores")]
    Version,
    /// The key isn't 32 bytes, or no point of the curve.
    #[error("not a key of 32 bytes")]
    Key,
    /// The key's secret half is known to others, or can be guessed.
    #[error("the key is known to be weak (CVE-2026-24044); make another")]
    KnownWeak,
}

impl SigningKey {
    /// The key of this version with these 32 secret bytes, which must come from a source of
    /// randomness fit for keys.
    ///
    /// # Errors
    /// The version isn't of letters, digits and `_`, or the key is known to be weak.
    pub fn from_seed(version: &str, seed: &[u8; 32]) -> Result<Self, KeyError> {
        let is_good = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        if version.is_empty() || !version.bytes().all(is_good) {
            return Err(KeyError::Version);
        }
        let key = ed25519_dalek::SigningKey::from_bytes(seed);
        refuse_known_weak(&key.verifying_key())?;
        Ok(Self {
            key_id: format!("{ALGORITHM}:{version}"),
            key,
        })
    }

    /// Reads a key file: one line `ed25519 VERSION BASE64`, the format that Synapse keeps.
    ///
    /// # Errors
    /// The text isn't such a line.
    pub fn from_file(text: &str) -> Result<Self, KeyError> {
        let mut words = text.split_ascii_whitespace();
        let (Some(ALGORITHM), Some(version), Some(seed), None) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            return Err(KeyError::Form);
        };
        let seed = unpadded::decode(seed).ok_or(KeyError::Form)?;
        Self::from_seed(version, &seed.try_into().map_err(|_| KeyError::Key)?)
    }

    /// The text of a key file. It is the secret: for the key file alone.
    pub fn to_file(&self) -> String {
        let version = self
            .key_id
            .split_once(':')
            .map_or("", |(_, version)| version);
        format!(
            "{ALGORITHM} {version} {}\n",
            unpadded::encode(self.key.as_bytes())
        )
    }

    /// `ed25519:VERSION`.
    pub fn key_id(&self) -> &str {
        &self.key_id
    }

    /// The public half.
    pub fn verify_key(&self) -> VerifyKey {
        VerifyKey(self.key.verifying_key())
    }

    /// Signs an event of a user of `server`, the server that this key is of.
    ///
    /// # Errors
    /// The sender is of another server, or with its signature the event is too large.
    pub fn sign_event(&self, server: &ServerName, event: Unsigned) -> Result<Signed, BuildError> {
        let event = event.into_event();
        if event.sender().server_name() != server {
            return Err(BuildError::NotOurs);
        }
        let signature = self.sign(signed_part(&event).as_bytes());
        let json = with_signature(event.json(), server, &self.key_id, &signature)?;
        let event = Event::from_stored(event.version(), event.event_id().to_owned(), json)?;
        Ok(Signed::new(event))
    }

    pub(super) fn sign(&self, bytes: &[u8]) -> String {
        unpadded::encode(&self.key.sign(bytes).to_bytes())
    }
}

/// Says which key, not what it is.
impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SigningKey")
            .field("key_id", &self.key_id)
            .finish_non_exhaustive()
    }
}

/// A public key that checks signatures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VerifyKey(VerifyingKey);

impl VerifyKey {
    /// Reads a public key in base64, as servers publish it.
    ///
    /// # Errors
    /// It is no base64, not 32 bytes, no point of the curve, of small order (which would accept
    /// one signature for many messages), or known to be weak (threat B6).
    pub fn parse(base64: &str) -> Result<Self, KeyError> {
        let bytes = unpadded::decode(base64).ok_or(KeyError::Key)?;
        let bytes: [u8; 32] = bytes.try_into().map_err(|_| KeyError::Key)?;
        let key = VerifyingKey::from_bytes(&bytes).map_err(|_| KeyError::Key)?;
        if key.is_weak() {
            return Err(KeyError::Key);
        }
        refuse_known_weak(&key)?;
        Ok(Self(key))
    }

    /// The key in unpadded base64.
    pub fn to_base64(self) -> String {
        unpadded::encode(self.0.as_bytes())
    }

    /// Whether this is the key's signature of an object in canonical JSON, wherever it stands.
    pub fn has_signed(&self, canonical: &str, signature: &str) -> bool {
        self.verify(unsigned_part(canonical).as_bytes(), signature)
    }

    pub(super) fn verify(&self, bytes: &[u8], signature: &str) -> bool {
        unpadded::decode(signature)
            .and_then(|signature| Signature::from_slice(&signature).ok())
            .is_some_and(|signature| self.0.verify_strict(bytes, &signature).is_ok())
    }
}

fn refuse_known_weak(key: &VerifyingKey) -> Result<(), KeyError> {
    if KNOWN_WEAK.contains(&unpadded::encode(key.as_bytes()).as_str()) {
        return Err(KeyError::KnownWeak);
    }
    Ok(())
}
