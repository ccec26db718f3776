//! The authorisation rules of room versions 1–12
//! ([spec](https://spec.matrix.org/v1.19/server-server-api/#authorisation-rules)).
//!
//! An event is judged by a handful of facts: the room's creators, power levels and join rule, and
//! the membership of at most three users. [`auth_types`] says which; the caller gathers them in an
//! [`AuthState`] from whatever state the check is about; [`check_auth`] answers. What differs
//! between versions is data ([`RoomVersionRules`](crate::room_version::RoomVersionRules)); what the rules read of an event is [`AuthEvent`].

mod content;
mod event;
mod levels;
mod member;
mod power_levels;
mod rejection;
mod rules;
mod selection;
mod state;
mod third_party;

pub use content::{Create, JoinRule, JoinRulesContent, MemberContent, Membership};
pub use event::AuthEvent;
pub use power_levels::{LevelField, PowerLevels, PowerLevelsContent, UnreadableLevels, UserLevel};
pub use rejection::{Act, Rejection};
pub use rules::check_auth;
pub use selection::{AuthEntry, AuthKey, auth_types, auth_types_for_event, check_auth_events};
pub use state::{AuthFact, AuthState};
pub use third_party::ThirdPartyKeys;

/// The event types the rules know by name.
pub(crate) mod types {
    pub(crate) const ALIASES: &str = "m.room.aliases";
    pub(crate) const CREATE: &str = "m.room.create";
    pub(crate) const JOIN_RULES: &str = "m.room.join_rules";
    pub(crate) const MEMBER: &str = "m.room.member";
    pub(crate) const POWER_LEVELS: &str = "m.room.power_levels";
    pub(crate) const REDACTION: &str = "m.room.redaction";
    pub(crate) const THIRD_PARTY_INVITE: &str = "m.room.third_party_invite";
}
