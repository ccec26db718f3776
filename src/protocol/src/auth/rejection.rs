//! Why an event is not allowed.

use super::{JoinRule, Membership, UnreadableLevels};

/// What a sender lacked the power for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Act {
    /// Inviting, or creating a third-party invite.
    Invite,
    /// Kicking, or withdrawing an invite.
    Kick,
    /// Banning.
    Ban,
    /// Lifting a ban.
    Unban,
    /// Sending an event of its type.
    Send,
    /// Changing the power levels in this way.
    ChangeLevels,
    /// Redacting another's event.
    Redact,
}

/// The rule an event broke. The text names no content.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// A create event with `prev_events`.
    #[error("m.room.create has prev_events")]
    CreateHasPrevEvents,
    /// A second create event.
    #[error("the room has another m.room.create")]
    UnexpectedCreate,
    /// A create event whose `room_id` is of another domain than its sender.
    #[error("the room_id of m.room.create is not of its sender's domain")]
    CreateRoomId,
    /// A create event for a room version that isn't known.
    #[error("m.room.create names a room version that is not recognised")]
    UnrecognisedRoomVersion,
    /// A create event without `creator`.
    #[error("m.room.create has no creator")]
    NoCreator,
    /// A create event whose `additional_creators` aren't user ids.
    #[error("additional_creators of m.room.create are not user ids")]
    AdditionalCreators,
    /// No accepted create event stands behind the room.
    #[error("the room has no accepted m.room.create")]
    NoCreate,
    /// Two `auth_events` of one type and state key.
    #[error("auth_events hold two of one type and state key")]
    DuplicateAuthEvent,
    /// An entry of `auth_events` the selection doesn't name.
    #[error("auth_events hold an event that does not belong there")]
    UnexpectedAuthEvent,
    /// An entry of `auth_events` that was itself rejected.
    #[error("auth_events hold a rejected event")]
    RejectedAuthEvent,
    /// `auth_events` without the create event.
    #[error("auth_events lack m.room.create")]
    CreateNotInAuthEvents,
    /// An entry of `auth_events` from another room.
    #[error("auth_events hold an event of another room")]
    AuthEventOfOtherRoom,
    /// A sender from another server in a room that doesn't federate.
    #[error("the room does not federate")]
    NotFederated,
    /// `m.room.aliases` of another server than the sender's, or without state key.
    #[error("m.room.aliases is not of the sender's server")]
    AliasesOfOtherServer,
    /// A content that isn't an object of the right shape.
    #[error("the content is malformed")]
    MalformedContent,
    /// `m.room.member` without state key.
    #[error("m.room.member has no state_key")]
    NoStateKey,
    /// A membership missing or unknown to the room version.
    #[error("the membership is missing or unknown")]
    UnknownMembership,
    /// `join_authorised_via_users_server` isn't a user id.
    #[error("join_authorised_via_users_server is not a user id")]
    MalformedAuthoriser,
    /// The authoriser of a restricted join is missing, not joined, or may not invite.
    #[error("nobody with the right to invite authorised the join")]
    Unauthorised,
    /// A join or knock sent for somebody else.
    #[error("the sender is not the user concerned")]
    SenderIsNotTarget,
    /// The user concerned is banned.
    #[error("the user is banned")]
    Banned,
    /// The join rule lets nobody in this way.
    #[error("the join rule {0:?} does not allow it")]
    ForbiddenByJoinRule(JoinRule),
    /// The user concerned has a membership from which this one can't be reached.
    #[error("not possible while the user's membership is {}", .0.as_str())]
    WrongMembership(Membership),
    /// The sender isn't in the room.
    #[error("the sender is not joined to the room")]
    SenderNotJoined,
    /// A third-party invite that isn't signed, isn't for this user, or isn't the room's.
    #[error("the third-party invite does not hold")]
    ThirdPartyInvite,
    /// The sender's power level is too low.
    #[error("the sender's power level is too low to {0:?}")]
    InsufficientPower(Act),
    /// A state key that is another user's id.
    #[error("the state_key is another user's id")]
    StateKeyOfOtherUser,
    /// Power levels that can't be read.
    #[error(transparent)]
    PowerLevels(#[from] UnreadableLevels),
    /// Power levels that list a creator (from version 12).
    #[error("power levels list a room creator")]
    CreatorInPowerLevels,
}
