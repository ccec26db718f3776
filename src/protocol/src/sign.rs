//! Signatures: the key that makes them, and the check of others'.
//!
//! [`SigningKey`] signs intents and never bytes (law 9 of the architecture): its public methods
//! take what the signer means to say, compare it, and write the signed text themselves.
//!
//! Signatures are checked strictly (RFC 8032 with canonical encodings and without keys of small
//! order), so that no two servers that check can disagree about one.
//!
//! See <https://spec.matrix.org/v1.19/appendices/#signing-json> and
//! <https://spec.matrix.org/v1.19/server-server-api/#validating-hashes-and-signatures-on-received-events>.

use std::collections::{BTreeMap, BTreeSet};

use ed25519_dalek::{Signature, Signer, VerifyingKey};

use crate::canonical::{JsonError, Object, members, string};
use crate::event::{BuildError, Event, Signed, Unsigned, WellFormed};
use crate::id::{OwnedServerName, ServerName, UserId};
use crate::redact::redact_without;
use crate::unpadded;

/// The one algorithm of the spec.
const ALGORITHM: &str = "ed25519";

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
}

impl SigningKey {
    /// The key of this version with these 32 secret bytes, which must come from a source of
    /// randomness fit for keys.
    ///
    /// # Errors
    /// The version isn't of letters, digits and `_`.
    pub fn from_seed(version: &str, seed: &[u8; 32]) -> Result<Self, KeyError> {
        let is_good = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        if version.is_empty() || !version.bytes().all(is_good) {
            return Err(KeyError::Version);
        }
        let key = ed25519_dalek::SigningKey::from_bytes(seed);
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

    fn sign(&self, bytes: &[u8]) -> String {
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
    /// It is no base64, not 32 bytes, no point of the curve, or of small order (which would
    /// accept one signature for many messages).
    pub fn parse(base64: &str) -> Result<Self, KeyError> {
        let bytes = unpadded::decode(base64).ok_or(KeyError::Key)?;
        let bytes: [u8; 32] = bytes.try_into().map_err(|_| KeyError::Key)?;
        let key = VerifyingKey::from_bytes(&bytes).map_err(|_| KeyError::Key)?;
        if key.is_weak() {
            Err(KeyError::Key)
        } else {
            Ok(Self(key))
        }
    }

    /// The key in unpadded base64.
    pub fn to_base64(self) -> String {
        unpadded::encode(self.0.as_bytes())
    }

    fn verify(&self, bytes: &[u8], signature: &str) -> bool {
        unpadded::decode(signature)
            .and_then(|signature| Signature::from_slice(&signature).ok())
            .is_some_and(|signature| self.0.verify_strict(bytes, &signature).is_ok())
    }
}

/// Until when a published key is good, in milliseconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyValidity {
    /// From `verify_keys`: the answer's `valid_until_ts`, at most seven days after it was fetched.
    Until(i64),
    /// From `old_verify_keys`: its `expired_ts`. Good for events made before.
    Expired(i64),
}

/// A key that a server published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PublishedKey {
    /// The key.
    pub key: VerifyKey,
    /// When it is good.
    pub validity: KeyValidity,
}

impl PublishedKey {
    /// Whether it counts for an event of this time.
    fn counts(&self, enforce_validity: bool, origin_server_ts: i64) -> bool {
        match self.validity {
            KeyValidity::Until(until) => !enforce_validity || origin_server_ts <= until,
            KeyValidity::Expired(expired) => origin_server_ts <= expired,
        }
    }
}

/// Where to look for servers' keys: what has been fetched already.
pub trait KeyRing {
    /// The key that `server` publishes as `key_id` (`ed25519:…`), if it is known.
    fn key(&self, server: &ServerName, key_id: &str) -> Option<PublishedKey>;
}

/// Why a signature check failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// A server has not signed that must have.
    #[error("not signed by {0}")]
    Missing(String),
    /// Signed, but by no key of that server that is known and good at that time.
    #[error("no known key of {0} has signed")]
    UnknownKey(String),
    /// A signature is wrong.
    #[error("wrong signature of {0}")]
    Wrong(String),
    /// `join_authorised_via_users_server` is no user id.
    #[error("the authorising user is no user id")]
    Authoriser,
}

/// The servers that must have signed an event.
///
/// The sender's, except for an invite made from a third-party invite; in room versions 1 and 2
/// the one in the event's id; from version 8 on the authorising user's of a restricted join.
///
/// # Errors
/// The authorising user is no user id.
pub fn required_signers(event: &Event) -> Result<BTreeSet<OwnedServerName>, SignatureError> {
    let rules = event.rules();
    let is_member = event.event_type() == "m.room.member";
    let is_third_party_invite = is_member
        && event.content_string("membership").as_deref() == Some("invite")
        && event.content_member("third_party_invite").is_some();
    let mut servers = BTreeSet::new();
    if !is_third_party_invite {
        servers.insert(event.sender().server_name().to_owned());
    }
    if rules.event_id_server_signs
        && let Some(server) = event.event_id().server_name()
    {
        servers.insert(server.to_owned());
    }
    if rules.restricted
        && is_member
        && event
            .content_member("join_authorised_via_users_server")
            .is_some()
    {
        let user = event
            .content_string("join_authorised_via_users_server")
            .and_then(|user| UserId::parse(user).ok())
            .ok_or(SignatureError::Authoriser)?;
        servers.insert(user.server_name().to_owned());
    }
    Ok(servers)
}

impl WellFormed {
    /// Checks the signatures of every server that must have signed, then the content hash. An
    /// event with a wrong hash goes on as its redacted copy.
    ///
    /// # Errors
    /// A signature is missing, wrong, or of no known key; the event is to be dropped, or checked
    /// again when more keys are known.
    pub fn verify(self, keys: &impl KeyRing) -> Result<Signed, SignatureError> {
        let event = self.event();
        let rules = event.rules();
        let signed = signed_part(event);
        let signatures = members(event.json()).get("signatures").unwrap_or("{}");
        for server in required_signers(event)? {
            verify_entity(signed.as_bytes(), signatures, server.as_str(), |key_id| {
                keys.key(&server, key_id)
                    .filter(|key| key.counts(rules.enforce_key_validity, event.origin_server_ts()))
                    .map(|key| key.key)
            })?;
        }
        let event = if event.content_hash_matches() {
            event.clone()
        } else {
            event.redact()
        };
        Ok(Signed::new(event))
    }
}

/// Checks that `entity` has signed a canonical object, under `key(key_id)`.
///
/// # Errors
/// It hasn't, by no key that is known, or wrongly.
pub fn verify_json(
    canonical: &str,
    entity: &str,
    key: impl Fn(&str) -> Option<VerifyKey>,
) -> Result<(), SignatureError> {
    let signatures = members(canonical).get("signatures").unwrap_or("{}");
    verify_entity(unsigned_part(canonical).as_bytes(), signatures, entity, key)
}

/// At least one signature by a known key, and none by a known key that is wrong.
fn verify_entity(
    signed: &[u8],
    signatures: &str,
    entity: &str,
    key: impl Fn(&str) -> Option<VerifyKey>,
) -> Result<(), SignatureError> {
    // Server names need no escapes; an entity that does has no entry to find.
    let entry = members(signatures)
        .get(entity)
        .ok_or_else(|| SignatureError::Missing(entity.to_owned()))?;
    let mut has_signature = false;
    let mut has_known = false;
    for (key_id, signature) in members(entry) {
        if !key_id
            .strip_prefix(ALGORITHM)
            .is_some_and(|rest| rest.starts_with(':'))
        {
            continue;
        }
        has_signature = true;
        let Some(key) = key(key_id) else { continue };
        let is_right = string(signature).is_some_and(|signature| key.verify(signed, &signature));
        if !is_right {
            return Err(SignatureError::Wrong(entity.to_owned()));
        }
        has_known = true;
    }
    match (has_signature, has_known) {
        (_, true) => Ok(()),
        (true, false) => Err(SignatureError::UnknownKey(entity.to_owned())),
        (false, false) => Err(SignatureError::Missing(entity.to_owned())),
    }
}

/// What an event's signatures cover: its redacted form without `signatures` and `unsigned`.
fn signed_part(event: &Event) -> String {
    redact_without(
        &event.rules().redaction,
        event.event_type(),
        event.json(),
        &["signatures", "unsigned"],
    )
}

/// What a plain object's signatures cover.
fn unsigned_part(canonical: &str) -> String {
    let mut out = String::from("{");
    for (key, value) in members(canonical) {
        if !matches!(key, "signatures" | "unsigned") {
            crate::redact::push_member(&mut out, key, value);
        }
    }
    out.push('}');
    out
}

/// A canonical object with one more signature.
fn with_signature(
    canonical: &str,
    entity: &ServerName,
    key_id: &str,
    signature: &str,
) -> Result<String, JsonError> {
    let mut object = Object::parse(canonical)?;
    let mut signatures: BTreeMap<String, BTreeMap<String, String>> = object
        .get("signatures")
        .map_or(Ok(BTreeMap::new()), serde_json::from_str)
        .map_err(|_| JsonError::NotAnObject)?;
    signatures
        .entry(entity.as_str().to_owned())
        .or_default()
        .insert(key_id.to_owned(), signature.to_owned());
    object.set("signatures", &signatures)?;
    object.write()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The seed of the spec's test vectors.
    fn key() -> SigningKey {
        SigningKey::from_file("ed25519 1 YJDBA9Xnr2sVqXD9Vj7XVUnmFZcZrlw8Md7kMW+3XA1").unwrap()
    }

    fn signed(json: &str) -> String {
        let domain = ServerName::parse("domain").unwrap();
        let signature = key().sign(unsigned_part(json).as_bytes());
        with_signature(json, &domain, "ed25519:1", &signature).unwrap()
    }

    /// <https://spec.matrix.org/v1.19/appendices/#json-signing>
    #[test]
    fn spec_vectors_json_signing() {
        assert_eq!(
            signed("{}"),
            r#"{"signatures":{"domain":{"ed25519:1":"K8280/U9SSy9IVtjBuVeLr+HpOB4BQFWbg+UZaADMtTdGYI7Geitb76LTrr5QV/7Xg4ahLwYGYZzuHGZKM5ZAQ"}}}"#
        );
        assert_eq!(
            signed(r#"{"one":1,"two":"Two"}"#),
            r#"{"one":1,"signatures":{"domain":{"ed25519:1":"KqmLSbO39/Bzb0QIYE82zqLwsA+PDzYIpIRA2sRQ4sL53+sN6/fpNSoqE7BP7vBZhG6kYdD13EIMJpvhJI+6Bw"}},"two":"Two"}"#
        );
    }

    #[test]
    fn a_signature_covers_all_but_unsigned_and_signatures() {
        let text = signed(r#"{"one":1,"unsigned":{"age":1}}"#);
        let verify = |text: &str, entity: &str| {
            verify_json(text, entity, |id| {
                (id == "ed25519:1").then(|| key().verify_key())
            })
        };
        assert_eq!(verify(&text, "domain"), Ok(()));
        assert_eq!(
            verify(&text.replace("\"age\":1", "\"age\":2"), "domain"),
            Ok(())
        );
        let wrong = Err(SignatureError::Wrong("domain".into()));
        assert_eq!(
            verify(&text.replace("\"one\":1", "\"one\":2"), "domain"),
            wrong
        );
        let missing = Err(SignatureError::Missing("other".into()));
        assert_eq!(verify(&text, "other"), missing);
        let unknown = Err(SignatureError::UnknownKey("domain".into()));
        assert_eq!(
            verify(&text.replace("ed25519:1", "ed25519:2"), "domain"),
            unknown
        );
        let missing = Err(SignatureError::Missing("domain".into()));
        assert_eq!(
            verify(&text.replace("ed25519:1", "rsa:1"), "domain"),
            missing
        );
    }

    #[test]
    fn key_files() {
        let file = key().to_file();
        assert_eq!(
            file,
            "ed25519 1 YJDBA9Xnr2sVqXD9Vj7XVUnmFZcZrlw8Md7kMW+3XA0\n"
        );
        assert_eq!(
            SigningKey::from_file(&file).unwrap().verify_key(),
            key().verify_key()
        );
        assert!(!format!("{:?}", key()).contains("YJDB"));
        for bad in [
            "",
            "ed25519 1",
            "rsa 1 YJDB",
            "ed25519 1 YJDB",
            "ed25519 a-b YJDBA9Xnr2sVqXD9Vj7XVUnmFZcZrlw8Md7kMW+3XA0",
        ] {
            assert!(SigningKey::from_file(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn weak_public_keys_are_refused() {
        let identity = unpadded::encode(&[&[1_u8][..], &[0; 31]].concat());
        assert_eq!(VerifyKey::parse(&identity), Err(KeyError::Key));
        let text = key().verify_key().to_base64();
        assert_eq!(VerifyKey::parse(&text), Ok(key().verify_key()));
    }
}
