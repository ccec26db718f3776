//! The check of others' signatures: who must have signed an event, and whether they have.

use std::collections::BTreeSet;

use super::{ALGORITHM, VerifyKey, signed_part, unsigned_part};
use crate::canonical::{members, string};
use crate::event::{Event, Signed, WellFormed};
use crate::id::{OwnedServerName, ServerName, UserId};

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
    /// Whether a request that comes now may be signed with it.
    pub fn is_current(&self, now_ms: u64) -> bool {
        match self.validity {
            KeyValidity::Until(until) => i64::try_from(now_ms).is_ok_and(|now| now <= until),
            KeyValidity::Expired(_) => false,
        }
    }

    /// Whether it counts for an event of this time, in a room whose version enforces the validity
    /// of current keys or doesn't.
    pub fn counts(&self, enforce_validity: bool, origin_server_ts: i64) -> bool {
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
        verify_signers(event, &required_signers(event)?, keys)?;
        let event = if event.content_hash_matches() {
            event.clone()
        } else {
            event.redact()
        };
        Ok(Signed::new(event))
    }
}

/// Checks that each of these servers has signed the event.
pub(super) fn verify_signers(
    event: &Event,
    servers: &BTreeSet<OwnedServerName>,
    keys: &impl KeyRing,
) -> Result<(), SignatureError> {
    let enforced = event.rules().enforce_key_validity;
    let signed = signed_part(event);
    let signatures = members(event.json()).get("signatures").unwrap_or("{}");
    for server in servers {
        verify_entity(signed.as_bytes(), signatures, server.as_str(), |key_id| {
            keys.key(server, key_id)
                .filter(|key| key.counts(enforced, event.origin_server_ts()))
                .map(|key| key.key)
        })?;
    }
    Ok(())
}

/// The keys that `server` says it has signed an event with, known or not: what to fetch before
/// the check.
pub fn signing_key_ids<'a>(event: &'a Event, server: &ServerName) -> impl Iterator<Item = &'a str> {
    let signatures = members(event.json()).get("signatures").unwrap_or("{}");
    let entry = members(signatures).get(server.as_str()).unwrap_or("{}");
    members(entry)
        .map(|(key_id, _)| key_id)
        .filter(|key_id| is_of_algorithm(key_id))
}

fn is_of_algorithm(key_id: &str) -> bool {
    key_id
        .strip_prefix(ALGORITHM)
        .is_some_and(|rest| rest.starts_with(':'))
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
pub(super) fn verify_entity(
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
        if !is_of_algorithm(key_id) {
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
