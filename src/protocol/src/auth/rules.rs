//! The rules themselves, in the order of the room versions' pages.

use serde_json::Value;

use super::content::read_object;
use super::levels::check_levels;
use super::member::check_member;
use super::rejection::Act;
use super::{AuthEvent, AuthState, Create, LevelField, Membership, Rejection, types};
use crate::id::UserId;
use crate::room_version::{RoomVersion, RoomVersionRules};

/// Whether a room's state allows an event
/// ([authorisation rules](https://spec.matrix.org/v1.19/server-server-api/#authorisation-rules)).
///
/// `state` holds what [`auth_types`](super::auth_types) names, from the state the check is about:
/// the event's own `auth_events`, the state before it, or the room's current state. Signatures are
/// checked before, among them the one `join_authorised_via_users_server` asks for; so is the list
/// of `auth_events`, by [`check_auth_events`](super::check_auth_events).
///
/// # Errors
/// The first rule that forbids the event.
pub fn check_auth<E: AuthEvent>(
    rules: &RoomVersionRules,
    event: &E,
    state: &AuthState<E::Id>,
) -> Result<(), Rejection> {
    if event.event_type() == types::CREATE {
        return check_create(rules, event);
    }
    let (create_id, create) = state.create.as_ref().ok_or(Rejection::NoCreate)?;
    let sender = event.sender();
    if !create.federate && create.sender.server_name() != sender.server_name() {
        return Err(Rejection::NotFederated);
    }
    if rules.special_case_aliases_auth && event.event_type() == types::ALIASES {
        return allow_if(
            event.state_key() == Some(sender.server_name().as_str()),
            Rejection::AliasesOfOtherServer,
        );
    }
    if event.event_type() == types::MEMBER {
        return check_member(rules, event, state, create_id, create);
    }
    if state.membership(sender.as_str()) != Membership::Join {
        return Err(Rejection::SenderNotJoined);
    }
    let levels = state.levels();
    let power = levels.user(sender.as_str());
    if event.event_type() == types::THIRD_PARTY_INVITE {
        return allow_if(
            power.reaches(levels.field(LevelField::Invite)),
            Rejection::InsufficientPower(Act::Invite),
        );
    }
    if !power.reaches(levels.to_send(event.event_type(), event.state_key().is_some())) {
        return Err(Rejection::InsufficientPower(Act::Send));
    }
    if event
        .state_key()
        .is_some_and(|key| key.starts_with('@') && key != sender.as_str())
    {
        return Err(Rejection::StateKeyOfOtherUser);
    }
    if event.event_type() == types::POWER_LEVELS {
        let current = state.power_levels.as_deref();
        return check_levels(rules, sender, power, event.content(), create, current);
    }
    if rules.special_case_redaction_auth && event.event_type() == types::REDACTION {
        let domain = event.event_id().server_name();
        let same_domain =
            domain.is_some() && domain == event.redacts().and_then(|id| id.server_name());
        return allow_if(
            power.reaches(levels.field(LevelField::Redact)) || same_domain,
            Rejection::InsufficientPower(Act::Redact),
        );
    }
    Ok(())
}

/// Rule 1: a create event stands at the start and depends on nothing.
fn check_create<E: AuthEvent>(rules: &RoomVersionRules, event: &E) -> Result<(), Rejection> {
    if !event.prev_events().is_empty() {
        return Err(Rejection::CreateHasPrevEvents);
    }
    // That it carries no `room_id` where the hash is the id, the event format sees to.
    if !rules.room_id_is_create_hash
        && event.room_id().server_name() != Some(event.sender().server_name())
    {
        return Err(Rejection::CreateRoomId);
    }
    let content = read_object(event.content()).ok_or(Rejection::MalformedContent)?;
    if content
        .get("room_version")
        .is_some_and(|version| !is_recognised(version))
    {
        return Err(Rejection::UnrecognisedRoomVersion);
    }
    if !rules.creator_is_sender && !content.contains_key("creator") {
        return Err(Rejection::NoCreator);
    }
    if rules.privileged_creators
        && content
            .get("additional_creators")
            .is_some_and(|c| !are_user_ids(c))
    {
        return Err(Rejection::AdditionalCreators);
    }
    Ok(())
}

fn is_recognised(version: &Value) -> bool {
    version.as_str().and_then(RoomVersion::parse).is_some()
}

fn are_user_ids(value: &Value) -> bool {
    let is_user_id = |entry: &Value| {
        entry
            .as_str()
            .is_some_and(|id| <&UserId>::try_from(id).is_ok())
    };
    value
        .as_array()
        .is_some_and(|entries| entries.iter().all(is_user_id))
}

pub(super) fn allow_if(allowed: bool, otherwise: Rejection) -> Result<(), Rejection> {
    if allowed { Ok(()) } else { Err(otherwise) }
}

/// Whether the room's only event so far is its create event, and this is its creator's.
pub(super) fn is_first_join<E: AuthEvent>(
    event: &E,
    target: &str,
    create_id: &E::Id,
    create: &Create,
) -> bool {
    event.prev_events() == std::slice::from_ref(create_id)
        && create.creator.as_deref() == Some(target)
}
