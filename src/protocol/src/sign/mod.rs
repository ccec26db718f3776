//! Signatures: the key that makes them, and the check of others'.
//!
//! [`SigningKey`] signs intents and never bytes (law 9 of the architecture): its public methods
//! take what the signer means to say, compare it, and write the signed text themselves. An event of
//! ours ([`SigningKey::sign_event`]), an invite or a restricted join of another server that we vouch
//! for ([`cosign`](SigningKey::cosign_invite)), a request to another server
//! ([`SigningKey::authorise_request`]), our own keys ([`SigningKey::publish_keys`]), and another
//! server's, as a notary ([`SigningKey::vouch_for_keys`]).
//!
//! Signatures are checked strictly (RFC 8032 with canonical encodings and without keys of small
//! order), so that no two servers that check can disagree about one.
//!
//! See <https://spec.matrix.org/v1.19/appendices/#signing-json> and
//! <https://spec.matrix.org/v1.19/server-server-api/#validating-hashes-and-signatures-on-received-events>.

mod cosign;
mod event;
mod key;
mod policy;
mod published;
mod request;

use std::collections::BTreeMap;

pub use cosign::{CosignError, InviteIntent, JoinIntent};
pub use event::{
    KeyRing, KeyValidity, PublishedKey, SignatureError, required_signers, signing_key_ids,
    verify_json,
};
pub use key::{KeyError, SigningKey, VerifyKey};
pub use policy::{POLICY_KEY_ID, is_recommended};
pub use published::{KeyAnswerError, MAX_KEY_VALIDITY_MS, OldKey, ServerKeys};
pub use request::{Authorization, AuthorizationError, Request};

use crate::canonical::{JsonError, Object, members};
use crate::event::Event;
use crate::id::ServerName;
use crate::redact::redact_without;

/// The one algorithm of the spec.
const ALGORITHM: &str = "ed25519";

/// What an event's signatures cover: its redacted form without `signatures` and `unsigned`.
fn signed_part(event: &Event) -> String {
    redact_without(
        &event.rules().redaction,
        event.event_type(),
        event.json(),
        &["signatures", "unsigned"],
    )
}

/// What the signatures of a plain object in canonical JSON cover: all of it but `signatures` and
/// `unsigned`.
pub fn unsigned_part(canonical: &str) -> String {
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
    use crate::unpadded;

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
        // Threat B6: with padding or without.
        for known in [
            "l/O9hxMVKB6Lg+3Hqf0FQQZhVESQcMzbPN1Cz2nM3og=",
            "l/O9hxMVKB6Lg+3Hqf0FQQZhVESQcMzbPN1Cz2nM3og",
        ] {
            assert_eq!(VerifyKey::parse(known), Err(KeyError::KnownWeak));
        }
        let text = key().verify_key().to_base64();
        assert_eq!(VerifyKey::parse(&text), Ok(key().verify_key()));
    }
}
