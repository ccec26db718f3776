//! Requests between servers: the `X-Matrix` authorisation, written and read.
//!
//! The signature covers method, target, both servers and the body. The body is covered by its
//! canonical form, so it may be written in any way on the wire.
//!
//! See <https://spec.matrix.org/v1.19/server-server-api/#request-authentication>.

use crate::canonical::{JsonError, Numbers, canonicalize_within, write_string};
use crate::event::MAX_EVENT_BYTES;
use crate::id::{OwnedServerName, ServerName, is_reachable_name};

use super::{PublishedKey, SigningKey};

/// The longest header that is looked at, in bytes: two server names, a key id and a signature
/// have room in a quarter of it.
const MAX_HEADER: usize = 4096;

/// The deepest nesting of a body. An event in it that is nested too deeply is dropped by itself (threat
/// A3), so its request must be checked all the same; and none of 64 KiB has more levels.
const MAX_BODY_DEPTH: usize = MAX_EVENT_BYTES / 2;

/// What of a request is signed beside the two servers.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// `GET`, `PUT`, `POST`.
    pub method: &'a str,
    /// The target as it stands in the request: path, and query with its `?`.
    pub uri: &'a str,
    /// The body; empty where there is none.
    pub body: &'a [u8],
}

impl SigningKey {
    /// The `Authorization` header of a request from us to another server.
    ///
    /// # Errors
    /// The body isn't JSON.
    pub fn authorise_request(
        &self,
        origin: &ServerName,
        destination: &ServerName,
        request: Request<'_>,
    ) -> Result<String, JsonError> {
        let signature = self.sign(covered(origin, destination, request)?.as_bytes());
        let key = self.key_id();
        Ok(format!(
            r#"X-Matrix origin="{origin}",destination="{destination}",key="{key}",sig="{signature}""#
        ))
    }
}

/// The canonical object that the signature covers.
fn covered(
    origin: &ServerName,
    destination: &ServerName,
    request: Request<'_>,
) -> Result<String, JsonError> {
    let mut out = String::with_capacity(request.body.len() + 256);
    out.push('{');
    if !request.body.is_empty() {
        out.push_str(r#""content":"#);
        // A transaction carries events of old rooms as well, whose numbers stay as they are.
        out.push_str(&canonicalize_within(
            request.body,
            Numbers::Lax,
            MAX_BODY_DEPTH,
        )?);
        out.push(',');
    }
    for (name, value) in [
        (r#""destination":"#, destination.as_str()),
        (r#","method":"#, request.method),
        (r#","origin":"#, origin.as_str()),
        (r#","uri":"#, request.uri),
    ] {
        out.push_str(name);
        write_string(value, &mut out);
    }
    out.push('}');
    Ok(out)
}

/// Why a request isn't taken for another server's: 401, but for [`AuthorizationError::Body`] (400).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthorizationError {
    /// The header isn't `X-Matrix` with origin, key and signature, each once.
    #[error("not an X-Matrix authorisation")]
    Form,
    /// The origin is no name of another server that we would ever look up.
    #[error("the origin is not the name of another server")]
    Origin,
    /// The request was made for another server.
    #[error("made for another destination")]
    Destination,
    /// The key isn't good any more.
    #[error("signed with an expired key")]
    ExpiredKey,
    /// The signature is wrong.
    #[error("wrong signature")]
    Signature,
    /// The body isn't JSON.
    #[error("the body is not JSON")]
    Body,
}

/// An `X-Matrix` authorisation that names another server, its signature yet to be checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authorization {
    origin: OwnedServerName,
    key_id: String,
    signature: String,
}

impl Authorization {
    /// Reads an `Authorization` header that came to `us`.
    ///
    /// Unknown parameters are passed over and `destination` may be missing, but must be us where
    /// it is there.
    ///
    /// # Errors
    /// It is no such header, is for another server, or is from one that can't be (threats B1, B7).
    pub fn parse(header: &str, us: &ServerName) -> Result<Self, AuthorizationError> {
        let form = AuthorizationError::Form;
        if header.len() > MAX_HEADER {
            return Err(form);
        }
        let (scheme, rest) = header.split_once(' ').ok_or(form)?;
        if !scheme.eq_ignore_ascii_case("X-Matrix") {
            return Err(form);
        }
        let (mut origin, mut destination, mut key, mut signature) = (None, None, None, None);
        for parameter in Parameters(rest) {
            let (name, value) = parameter.ok_or(form)?;
            let place = match name.to_ascii_lowercase().as_str() {
                "origin" => &mut origin,
                "destination" => &mut destination,
                "key" => &mut key,
                "sig" | "signature" => &mut signature,
                _ => continue,
            };
            if place.replace(value).is_some() {
                return Err(form);
            }
        }
        let (Some(origin), Some(key_id), Some(signature)) = (origin, key, signature) else {
            return Err(form);
        };
        if destination.is_some_and(|destination| destination != us.as_str()) {
            return Err(AuthorizationError::Destination);
        }
        let origin = OwnedServerName::try_from(origin).map_err(|_| AuthorizationError::Origin)?;
        if !is_reachable_name(&origin) || origin == us {
            return Err(AuthorizationError::Origin);
        }
        Ok(Self {
            origin,
            key_id,
            signature,
        })
    }

    /// Who says to have made the request.
    pub fn origin(&self) -> &ServerName {
        &self.origin
    }

    /// The key that signed it, to be looked up.
    pub fn key_id(&self) -> &str {
        &self.key_id
    }

    /// Checks that the origin made this request, with its key of [`Authorization::key_id`].
    ///
    /// # Errors
    /// It didn't, or not with a key that is good now.
    pub fn check(
        &self,
        us: &ServerName,
        request: Request<'_>,
        key: PublishedKey,
        now_ms: u64,
    ) -> Result<(), AuthorizationError> {
        if !key.is_current(now_ms) {
            return Err(AuthorizationError::ExpiredKey);
        }
        let covered = covered(&self.origin, us, request).map_err(|_| AuthorizationError::Body)?;
        if key.key.verify(covered.as_bytes(), &self.signature) {
            Ok(())
        } else {
            Err(AuthorizationError::Signature)
        }
    }
}

/// The `name=value` pairs of a header; `None` once, where it is malformed.
struct Parameters<'a>(&'a str);

impl<'a> Iterator for Parameters<'a> {
    type Item = Option<(&'a str, String)>;

    fn next(&mut self) -> Option<Self::Item> {
        let blank_or_comma = [' ', '\t', ','];
        self.0 = self.0.trim_start_matches(blank_or_comma);
        if self.0.is_empty() {
            return None;
        }
        let parameter = self.parameter();
        if parameter.is_none() {
            self.0 = "";
        }
        Some(parameter)
    }
}

impl<'a> Parameters<'a> {
    fn parameter(&mut self) -> Option<(&'a str, String)> {
        let (name, rest) = self.0.split_once('=')?;
        let name = name.trim_end_matches([' ', '\t']);
        if name.is_empty() || !name.bytes().all(is_token) {
            return None;
        }
        let rest = rest.trim_start_matches([' ', '\t']);
        let (value, rest) = match rest.strip_prefix('"') {
            Some(rest) => quoted(rest)?,
            None => {
                // Older servers leave out the quotes around ids with a colon, and around base64.
                let is_bare =
                    |byte: u8| is_token(byte) || matches!(byte, b':' | b'/' | b'=' | b'[' | b']');
                let end = rest
                    .bytes()
                    .position(|byte| !is_bare(byte))
                    .unwrap_or(rest.len());
                let (value, rest) = rest.split_at_checked(end)?;
                (value.to_owned(), rest)
            }
        };
        let rest = rest.trim_start_matches([' ', '\t']);
        if !rest.is_empty() && !rest.starts_with(',') {
            return None;
        }
        self.0 = rest;
        Some((name, value))
    }
}

/// A quoted value after its first quote, and what follows the last.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.chars();
    loop {
        match chars.next()? {
            '"' => return Some((value, chars.as_str())),
            '\\' => value.push(chars.next()?),
            char => value.push(char),
        }
    }
}

/// RFC 9110, 5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}
