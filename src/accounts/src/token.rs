//! Access tokens and refresh tokens: what they say and how they are made.
//!
//! An access token is a JWT of [RFC 9068](https://www.rfc-editor.org/rfc/rfc9068), signed with EdDSA by the tenant's own token
//! key. One for a client that can't refresh has no `exp`: the session's row alone says how long it lives. A refresh token is a
//! locator of the session with an HMAC over it, so that nothing of it is stored and asking again gives the same one.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use ed25519_dalek::SigningKey;
use hmac::{Hmac, KeyInit, Mac};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{error::AccountError, tables::SessionId};

/// The `client_id` of logins by the legacy API, which knows no clients.
const LEGACY_CLIENT: &str = "legacy";
/// Keeps an OpenID token from being read as an access token, and the other way round.
const OPENID_TYPE: &str = "openid+jwt";
const REFRESH_PREFIX: &str = "mcr_";
/// No token of ours is longer.
const MAX_TOKEN_BYTES: usize = 4096;

/// What stands before the seed in an Ed25519 key's PKCS#8 form, which is what the JWT library takes
/// ([RFC 8410](https://www.rfc-editor.org/rfc/rfc8410#section-7)).
const PKCS8_ED25519: [u8; 16] = [
    0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20,
];

/// Which pair of tokens of which login.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Grant {
    pub(crate) user: String,
    pub(crate) device: String,
    pub(crate) session: SessionId,
    pub(crate) generation: u32,
}

/// What an access token says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Access {
    pub(crate) grant: Grant,
    /// In milliseconds since 1970.
    pub(crate) expires_ts: Option<u64>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Claims {
    iss: String,
    aud: String,
    sub: String,
    client_id: String,
    device_id: String,
    iat: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    exp: Option<u64>,
    jti: String,
}

/// What an OpenID token says.
#[derive(Debug, Serialize, Deserialize)]
struct OpenIdClaims {
    iss: String,
    aud: String,
    sub: String,
    iat: u64,
    exp: u64,
}

/// Makes and reads a tenant's tokens.
pub(crate) struct Tokens {
    issuer: String,
    header: Header,
    signing: EncodingKey,
    verifying: DecodingKey,
    validation: Validation,
    refresh: [u8; 32],
}

impl Tokens {
    /// `seed` is the tenant's token key, `issuer` its public base URL.
    pub(crate) fn new(seed: &[u8; 32], issuer: &str) -> Result<Self, AccountError> {
        let bad_key = || AccountError::Internal("the token key can't be used");
        let key = SigningKey::from_bytes(seed);
        let der = [PKCS8_ED25519.as_slice(), seed].concat();
        let public = key.verifying_key();
        let mut header = Header::new(Algorithm::EdDSA);
        header.typ = Some("at+jwt".to_owned());
        header.kid = Some(URL_SAFE_NO_PAD.encode(Sha256::digest(public.as_bytes())));
        let mut validation = Validation::new(Algorithm::EdDSA);
        validation.set_issuer(&[issuer]);
        validation.set_audience(&[issuer]);
        validation.set_required_spec_claims(&["iss", "aud", "sub"]);
        // The library would ask the operating system for the time; we compare with the injected clock.
        validation.validate_exp = false;
        let mut mac = <Hmac<Sha256>>::new_from_slice(seed).map_err(|_| bad_key())?;
        mac.update(b"refresh token");
        Ok(Self {
            issuer: issuer.to_owned(),
            header,
            signing: EncodingKey::from_ed_der(&der),
            verifying: DecodingKey::from_ed_der(public.as_bytes()),
            validation,
            refresh: mac.finalize().into_bytes().into(),
        })
    }

    /// An access token.
    pub(crate) fn access(
        &self,
        grant: &Grant,
        now_ms: u64,
        expires_ts: Option<u64>,
    ) -> Result<String, AccountError> {
        let session = URL_SAFE_NO_PAD.encode(grant.session);
        let claims = Claims {
            iss: self.issuer.clone(),
            aud: self.issuer.clone(),
            sub: grant.user.clone(),
            client_id: LEGACY_CLIENT.to_owned(),
            device_id: grant.device.clone(),
            iat: now_ms / 1000,
            exp: expires_ts.map(|ts| ts / 1000),
            jti: format!("{session}.{}", grant.generation),
        };
        jsonwebtoken::encode(&self.header, &claims, &self.signing)
            .map_err(|_| AccountError::Internal("a token could not be signed"))
    }

    /// What an access token says, if it is one of ours. Whether it has expired is the caller's to compare.
    pub(crate) fn read_access(&self, token: &str) -> Option<Access> {
        if token.len() > MAX_TOKEN_BYTES {
            return None;
        }
        let decoded =
            jsonwebtoken::decode::<Claims>(token, &self.verifying, &self.validation).ok()?;
        if decoded.header.typ != self.header.typ {
            return None;
        }
        let claims = decoded.claims;
        let (session, generation) = claims.jti.split_once('.')?;
        Some(Access {
            grant: Grant {
                user: claims.sub,
                device: claims.device_id,
                session: URL_SAFE_NO_PAD.decode(session).ok()?.try_into().ok()?,
                generation: generation.parse().ok()?,
            },
            expires_ts: claims.exp.map(|exp| exp.saturating_mul(1000)),
        })
    }

    /// A token that tells third parties who a user is, and nothing else.
    pub(crate) fn openid(
        &self,
        user_id: &str,
        now_ms: u64,
        expires_ts: u64,
    ) -> Result<String, AccountError> {
        let mut header = self.header.clone();
        header.typ = Some(OPENID_TYPE.to_owned());
        let claims = OpenIdClaims {
            iss: self.issuer.clone(),
            aud: self.issuer.clone(),
            sub: user_id.to_owned(),
            iat: now_ms / 1000,
            exp: expires_ts / 1000,
        };
        jsonwebtoken::encode(&header, &claims, &self.signing)
            .map_err(|_| AccountError::Internal("a token could not be signed"))
    }

    /// Whose OpenID token it is and when it ends, if it is one of ours.
    pub(crate) fn read_openid(&self, token: &str) -> Option<(String, u64)> {
        if token.len() > MAX_TOKEN_BYTES {
            return None;
        }
        let decoded =
            jsonwebtoken::decode::<OpenIdClaims>(token, &self.verifying, &self.validation).ok()?;
        let is_openid = decoded.header.typ.as_deref() == Some(OPENID_TYPE);
        let claims = decoded.claims;
        is_openid.then(|| (claims.sub, claims.exp.saturating_mul(1000)))
    }

    /// A refresh token; the same for the same grant.
    pub(crate) fn refresh(&self, grant: &Grant) -> Result<String, AccountError> {
        let failed = |_| AccountError::Internal("a token could not be made");
        let mut bytes = comity_storage::table::to_postcard(grant).map_err(failed)?;
        let mac = self.mac(&bytes)?.finalize().into_bytes();
        bytes.extend_from_slice(&mac);
        Ok(format!("{REFRESH_PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes)))
    }

    /// What a refresh token says, if it is one of ours.
    pub(crate) fn read_refresh(&self, token: &str) -> Option<Grant> {
        if token.len() > MAX_TOKEN_BYTES {
            return None;
        }
        let bytes = URL_SAFE_NO_PAD
            .decode(token.strip_prefix(REFRESH_PREFIX)?)
            .ok()?;
        let (grant, mac) = bytes.split_last_chunk::<32>()?;
        self.mac(grant).ok()?.verify_slice(mac).ok()?;
        comity_storage::table::from_postcard(grant).ok()
    }

    fn mac(&self, bytes: &[u8]) -> Result<Hmac<Sha256>, AccountError> {
        let mac = <Hmac<Sha256>>::new_from_slice(&self.refresh);
        let mut mac = mac.map_err(|_| AccountError::Internal("the refresh key can't be used"))?;
        mac.update(bytes);
        Ok(mac)
    }
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokens")
            .field("issuer", &self.issuer)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grant() -> Grant {
        Grant {
            user: "@alice:example.org".into(),
            device: "DEVICE".into(),
            session: [7; 16],
            generation: 3,
        }
    }

    /// R1.1: the header and claims of RFC 9068.
    #[test]
    fn r1_1_an_access_token_is_a_signed_jwt() {
        let tokens = Tokens::new(&[1; 32], "https://example.org").unwrap();
        let token = tokens.access(&grant(), 5_000, Some(305_000)).unwrap();
        let part = |n: usize| -> serde_json::Value {
            let part = token.split('.').nth(n).unwrap();
            serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
        };
        let (header, claims) = (part(0), part(1));
        assert_eq!(
            (&header["typ"], &header["alg"]),
            (&"at+jwt".into(), &"EdDSA".into())
        );
        assert!(header["kid"].is_string());
        for (claim, expected) in [
            ("iss", "https://example.org"),
            ("aud", "https://example.org"),
            ("sub", "@alice:example.org"),
            ("device_id", "DEVICE"),
        ] {
            assert_eq!(claims[claim], expected);
        }
        assert_eq!((&claims["iat"], &claims["exp"]), (&5.into(), &305.into()));
        assert!(claims["client_id"].is_string() && claims["jti"].is_string());
        let access = tokens.read_access(&token).unwrap();
        assert_eq!(
            access,
            Access {
                grant: grant(),
                expires_ts: Some(305_000)
            }
        );
    }

    /// R1.1, E9: another tenant's token is none, whether it differs in the key or in the issuer; nor is an altered one.
    #[test]
    fn e9_another_tenants_token_is_refused() {
        let tokens = Tokens::new(&[1; 32], "https://example.org").unwrap();
        for (seed, issuer) in [
            ([2; 32], "https://example.org"),
            ([1; 32], "https://example.com"),
        ] {
            let other = Tokens::new(&seed, issuer).unwrap();
            assert!(
                tokens
                    .read_access(&other.access(&grant(), 0, None).unwrap())
                    .is_none()
            );
        }
        let token = tokens.access(&grant(), 0, None).unwrap();
        let mut parts: Vec<_> = token.split('.').collect();
        let none = URL_SAFE_NO_PAD.encode(r#"{"typ":"at+jwt","alg":"none"}"#);
        parts[0] = &none;
        for forged in [
            parts.join("."),
            format!("{token}A"),
            String::new(),
            "x".repeat(10_000),
        ] {
            assert!(tokens.read_access(&forged).is_none());
        }
    }

    /// RFC 9068: another kind of JWT by the same key, an ID token say, is no access token.
    #[test]
    fn r1_1_only_access_tokens_are_access_tokens() {
        let tokens = Tokens::new(&[1; 32], "https://example.org").unwrap();
        let claims = Claims {
            iss: "https://example.org".into(),
            aud: "https://example.org".into(),
            sub: "@alice:example.org".into(),
            client_id: "x".into(),
            device_id: "DEVICE".into(),
            iat: 0,
            exp: None,
            jti: format!("{}.0", URL_SAFE_NO_PAD.encode([7; 16])),
        };
        let mut header = tokens.header.clone();
        let signed =
            |header: &Header| jsonwebtoken::encode(header, &claims, &tokens.signing).unwrap();
        assert!(tokens.read_access(&signed(&header)).is_some());
        for typ in [Some("JWT".to_owned()), None] {
            header.typ = typ;
            assert!(tokens.read_access(&signed(&header)).is_none());
        }
    }

    /// <https://spec.matrix.org/v1.19/client-server-api/#openid>: good for nothing else.
    #[test]
    fn an_openid_token_and_an_access_token_are_not_each_other() {
        let tokens = Tokens::new(&[1; 32], "https://example.org").unwrap();
        let openid = tokens.openid("@alice:example.org", 5_000, 9_000).unwrap();
        assert_eq!(
            tokens.read_openid(&openid),
            Some(("@alice:example.org".to_owned(), 9_000))
        );
        assert!(tokens.read_access(&openid).is_none());
        let access = tokens.access(&grant(), 5_000, Some(9_000)).unwrap();
        assert!(tokens.read_openid(&access).is_none());
    }

    #[test]
    fn a_refresh_token_is_bound_to_its_grant() {
        let tokens = Tokens::new(&[1; 32], "https://example.org").unwrap();
        let token = tokens.refresh(&grant()).unwrap();
        assert_eq!(tokens.refresh(&grant()).unwrap(), token);
        assert_eq!(tokens.read_refresh(&token), Some(grant()));
        let other = Tokens::new(&[2; 32], "https://example.org").unwrap();
        assert_eq!(other.read_refresh(&token), None);
        let mut bytes = URL_SAFE_NO_PAD.decode(&token[4..]).unwrap();
        for at in 0..bytes.len() {
            bytes[at] ^= 1;
            assert_eq!(
                tokens.read_refresh(&format!("mcr_{}", URL_SAFE_NO_PAD.encode(&bytes))),
                None
            );
            bytes[at] ^= 1;
        }
    }
}
