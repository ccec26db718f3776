//! The few facts of a room's state that decide whether one event is allowed.

use std::sync::Arc;

use super::{
    AuthEvent, Create, JoinRule, JoinRulesContent, MemberContent, Membership, PowerLevels,
    PowerLevelsContent, ThirdPartyKeys, UnreadableLevels, types,
};
use crate::room_version::RoomVersionRules;

/// What one state event says to the rules. Cheap to clone, so that callers can keep it.
#[derive(Clone, Debug)]
pub enum AuthFact<Id> {
    /// `m.room.create`, and the caller's name of it.
    Create(Id, Arc<Create>),
    /// `m.room.power_levels`
    PowerLevels(Arc<PowerLevelsContent>),
    /// `m.room.join_rules`
    JoinRule(JoinRule),
    /// `m.room.member` of that user.
    Membership(String, Membership),
    /// `m.room.third_party_invite` of that token.
    ThirdPartyInvite(String, Arc<ThirdPartyKeys>),
}

impl<Id: Clone> AuthFact<Id> {
    /// What an event says; none if it is not of the state the rules read.
    ///
    /// # Errors
    /// Power levels that the room version can't read, which therefore can't be in its state.
    pub fn read<E: AuthEvent<Id = Id>>(
        rules: &RoomVersionRules,
        event: &E,
    ) -> Result<Option<Self>, UnreadableLevels> {
        let Some(state_key) = event.state_key() else {
            return Ok(None);
        };
        let content = event.content();
        Ok(match event.event_type() {
            types::MEMBER => {
                let membership = MemberContent::read(content).membership.unwrap_or_default();
                Some(Self::Membership(state_key.to_owned(), membership))
            }
            types::THIRD_PARTY_INVITE => {
                let keys = ThirdPartyKeys::read(event.sender(), content);
                Some(Self::ThirdPartyInvite(state_key.to_owned(), Arc::new(keys)))
            }
            _ if !state_key.is_empty() => None,
            types::CREATE => {
                let create = Create::read(rules, event.sender(), content);
                Some(Self::Create(event.id(), Arc::new(create)))
            }
            types::POWER_LEVELS => Some(Self::PowerLevels(Arc::new(PowerLevelsContent::read(
                rules, content,
            )?))),
            types::JOIN_RULES => Some(Self::JoinRule(JoinRulesContent::read(content).join_rule)),
            _ => None,
        })
    }
}

/// The state an event is checked against: the entries [`auth_types`](super::auth_types) names, and
/// the create event. What isn't put in counts as not being in the state, so put in all of them.
#[derive(Clone, Debug)]
pub struct AuthState<Id> {
    pub(super) create: Option<(Id, Arc<Create>)>,
    pub(super) power_levels: Option<Arc<PowerLevelsContent>>,
    pub(super) join_rule: JoinRule,
    members: Vec<(String, Membership)>,
    third_party_invites: Vec<(String, Arc<ThirdPartyKeys>)>,
}

impl<Id> Default for AuthState<Id> {
    fn default() -> Self {
        Self {
            create: None,
            power_levels: None,
            join_rule: JoinRule::default(),
            members: Vec::new(),
            third_party_invites: Vec::new(),
        }
    }
}

impl<Id> AuthState<Id> {
    /// Puts in what a state event says, in place of what was said of the same before.
    pub fn put(&mut self, fact: AuthFact<Id>) {
        match fact {
            AuthFact::Create(id, create) => self.create = Some((id, create)),
            AuthFact::PowerLevels(content) => self.power_levels = Some(content),
            AuthFact::JoinRule(join_rule) => self.join_rule = join_rule,
            AuthFact::Membership(user, membership) => put(&mut self.members, user, membership),
            AuthFact::ThirdPartyInvite(token, keys) => {
                put(&mut self.third_party_invites, token, keys)
            }
        }
    }

    /// A user's membership; `leave` for one without a member event.
    pub fn membership(&self, user: &str) -> Membership {
        get(&self.members, user).copied().unwrap_or_default()
    }

    /// The power levels, with the creators.
    pub fn levels(&self) -> PowerLevels<'_> {
        PowerLevels::new(
            self.create.as_ref().map(|(_, create)| create.as_ref()),
            self.power_levels.as_deref(),
        )
    }

    pub(super) fn third_party_invite(&self, token: &str) -> Option<&ThirdPartyKeys> {
        get(&self.third_party_invites, token).map(AsRef::as_ref)
    }
}

fn get<'a, V>(entries: &'a [(String, V)], key: &str) -> Option<&'a V> {
    entries
        .iter()
        .find(|(known, _)| known == key)
        .map(|(_, value)| value)
}

fn put<V>(entries: &mut Vec<(String, V)>, key: String, value: V) {
    entries.retain(|(known, _)| *known != key);
    entries.push((key, value));
}
