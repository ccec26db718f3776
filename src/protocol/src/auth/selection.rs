//! Which state an event is judged by, and whether the `auth_events` it lists are that
//! ([auth events selection](https://spec.matrix.org/v1.19/server-server-api/#auth-events-selection)).

use std::collections::BTreeSet;

use super::{AuthEvent, MemberContent, Membership, Rejection, types};
use crate::id::{RoomId, UserId};
use crate::room_version::RoomVersionRules;

/// A state key as the rules name it: event type and state key.
pub type AuthKey = (&'static str, String);

/// The state entries that decide whether an event is allowed: those of them the room has are its
/// `auth_events`. Empty for `m.room.create`; without the create event from room version 12, where
/// the room's id implies it.
///
/// `member` is the content, read, if the event is an `m.room.member`.
pub fn auth_types(
    rules: &RoomVersionRules,
    event_type: &str,
    sender: &UserId,
    state_key: Option<&str>,
    member: Option<&MemberContent>,
) -> BTreeSet<AuthKey> {
    let mut keys = BTreeSet::new();
    if event_type == types::CREATE {
        return keys;
    }
    if !rules.room_id_is_create_hash {
        keys.insert((types::CREATE, String::new()));
    }
    keys.insert((types::POWER_LEVELS, String::new()));
    keys.insert((types::MEMBER, sender.as_str().to_owned()));
    if event_type != types::MEMBER {
        return keys;
    }
    if let Some(target) = state_key {
        keys.insert((types::MEMBER, target.to_owned()));
    }
    let Some(member) = member else { return keys };
    if matches!(
        member.membership,
        Some(Membership::Join | Membership::Invite | Membership::Knock)
    ) {
        keys.insert((types::JOIN_RULES, String::new()));
    }
    if member.membership == Some(Membership::Invite)
        && let Some(token) = member.third_party_token()
    {
        keys.insert((types::THIRD_PARTY_INVITE, token.to_owned()));
    }
    if member.membership == Some(Membership::Join)
        && rules.restricted
        && let Some(authoriser) = member.authoriser()
    {
        keys.insert((types::MEMBER, authoriser.as_str().to_owned()));
    }
    keys
}

/// [`auth_types`] of an event that exists.
pub fn auth_types_for_event(rules: &RoomVersionRules, event: &impl AuthEvent) -> BTreeSet<AuthKey> {
    let member =
        (event.event_type() == types::MEMBER).then(|| MemberContent::read(event.content()));
    auth_types(
        rules,
        event.event_type(),
        event.sender(),
        event.state_key(),
        member.as_ref(),
    )
}

/// An entry of `auth_events`, as far as the rules about the list read it.
#[derive(Clone, Copy, Debug)]
pub struct AuthEntry<'a> {
    /// `type`
    pub event_type: &'a str,
    /// `state_key`
    pub state_key: Option<&'a str>,
    /// The room it belongs to.
    pub room_id: &'a RoomId,
    /// Whether it was rejected on receipt.
    pub rejected: bool,
}

/// The rules about the list of `auth_events` itself; they need no state and are checked once.
///
/// `create` is the event the room's id names, if we have it; it is read from room version 12.
/// An entry that can't be had at all is the caller's to judge: it is no part of the rules.
///
/// # Errors
/// The rule the list breaks.
pub fn check_auth_events<'a>(
    rules: &RoomVersionRules,
    event: &impl AuthEvent,
    auth_events: impl IntoIterator<Item = AuthEntry<'a>>,
    create: Option<AuthEntry<'_>>,
) -> Result<(), Rejection> {
    if event.event_type() == types::CREATE {
        return Ok(());
    }
    if rules.room_id_is_create_hash
        && !create.is_some_and(|create| create.event_type == types::CREATE && !create.rejected)
    {
        return Err(Rejection::NoCreate);
    }
    let expected = auth_types_for_event(rules, event);
    let mut seen = BTreeSet::new();
    for entry in auth_events {
        let state_key = entry.state_key.ok_or(Rejection::UnexpectedAuthEvent)?;
        if !seen.insert((entry.event_type, state_key)) {
            return Err(Rejection::DuplicateAuthEvent);
        }
        if !expected
            .iter()
            .any(|(kind, key)| *kind == entry.event_type && key == state_key)
        {
            return Err(Rejection::UnexpectedAuthEvent);
        }
        if entry.rejected {
            return Err(Rejection::RejectedAuthEvent);
        }
        if entry.room_id != event.room_id() {
            return Err(Rejection::AuthEventOfOtherRoom);
        }
    }
    if !rules.room_id_is_create_hash && !seen.contains(&(types::CREATE, "")) {
        return Err(Rejection::CreateNotInAuthEvents);
    }
    Ok(())
}
