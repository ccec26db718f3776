//! The contents the rules read, leniently: a field of the wrong shape is as good as absent unless
//! a rule says otherwise, because an event others accepted must not stop us.

use std::collections::BTreeSet;

use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

use crate::id::{OwnedUserId, UserId};
use crate::room_version::RoomVersionRules;

/// `content.membership` of [`m.room.member`](https://spec.matrix.org/v1.19/client-server-api/#mroommember).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Membership {
    /// `ban`
    Ban,
    /// `invite`
    Invite,
    /// `join`
    Join,
    /// `knock`, known from room version 7
    Knock,
    /// `leave`, and what holds for a user without a member event
    #[default]
    Leave,
}

impl Membership {
    /// The membership of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "ban" => Self::Ban,
            "invite" => Self::Invite,
            "join" => Self::Join,
            "knock" => Self::Knock,
            "leave" => Self::Leave,
            _ => return None,
        })
    }

    /// Its name in `content.membership`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ban => "ban",
            Self::Invite => "invite",
            Self::Join => "join",
            Self::Knock => "knock",
            Self::Leave => "leave",
        }
    }
}

/// The content of `m.room.member`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(from = "RawMember")]
pub struct MemberContent {
    /// The membership; none when it is missing or unknown to every room version.
    pub membership: Option<Membership>,
    /// `third_party_invite` as it stands.
    pub third_party_invite: Option<Value>,
    /// `join_authorised_via_users_server` as it stands.
    pub authoriser: Option<Value>,
}

#[derive(Deserialize)]
struct RawMember {
    #[serde(default, deserialize_with = "present")]
    membership: Option<Value>,
    #[serde(default, deserialize_with = "present")]
    third_party_invite: Option<Value>,
    #[serde(default, deserialize_with = "present")]
    join_authorised_via_users_server: Option<Value>,
}

impl From<RawMember> for MemberContent {
    fn from(raw: RawMember) -> Self {
        Self {
            membership: raw
                .membership
                .as_ref()
                .and_then(Value::as_str)
                .and_then(Membership::from_name),
            third_party_invite: raw.third_party_invite,
            authoriser: raw.join_authorised_via_users_server,
        }
    }
}

impl MemberContent {
    /// Reads a content; one that is no JSON object has no membership.
    pub fn read(content: &str) -> Self {
        serde_json::from_str(content).unwrap_or_default()
    }

    /// `third_party_invite.signed.token`, which names the `m.room.third_party_invite` event.
    pub fn third_party_token(&self) -> Option<&str> {
        self.third_party_invite
            .as_ref()?
            .get("signed")?
            .get("token")?
            .as_str()
    }

    /// The user whose server vouches for a restricted join, when it is a user id.
    pub fn authoriser(&self) -> Option<&UserId> {
        <&UserId>::try_from(self.authoriser.as_ref()?.as_str()?).ok()
    }
}

/// `content.join_rule` of [`m.room.join_rules`](https://spec.matrix.org/v1.19/client-server-api/#mroomjoin_rules).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum JoinRule {
    /// `public`
    Public,
    /// `invite`, and what holds when the room has no join rule
    #[default]
    Invite,
    /// `knock`
    Knock,
    /// `restricted`
    Restricted,
    /// `knock_restricted`
    KnockRestricted,
    /// `private` (reserved) or any other word: nobody joins by it
    Other,
}

impl JoinRule {
    /// The join rule of that name.
    pub fn from_name(name: &str) -> Self {
        match name {
            "public" => Self::Public,
            "invite" => Self::Invite,
            "knock" => Self::Knock,
            "restricted" => Self::Restricted,
            "knock_restricted" => Self::KnockRestricted,
            _ => Self::Other,
        }
    }
}

/// The content of `m.room.join_rules`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(from = "RawJoinRules")]
pub struct JoinRulesContent {
    /// The rule; absent reads as `invite`.
    pub join_rule: JoinRule,
    /// The rooms whose members a `restricted` rule lets in (`allow` entries of type
    /// `m.room_membership`).
    pub allow: Vec<String>,
}

impl JoinRulesContent {
    /// Reads a content; one that is no JSON object lets nobody in.
    pub fn read(content: &str) -> Self {
        serde_json::from_str(content).unwrap_or(Self {
            join_rule: JoinRule::Other,
            allow: Vec::new(),
        })
    }
}

#[derive(Deserialize)]
struct RawJoinRules {
    #[serde(default, deserialize_with = "present")]
    join_rule: Option<Value>,
    #[serde(default, deserialize_with = "present")]
    allow: Option<Value>,
}

impl From<RawJoinRules> for JoinRulesContent {
    fn from(raw: RawJoinRules) -> Self {
        let join_rule = match &raw.join_rule {
            None => JoinRule::Invite,
            Some(Value::String(name)) => JoinRule::from_name(name),
            Some(_) => JoinRule::Other,
        };
        let allow = raw
            .allow
            .as_ref()
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter(|entry| entry.get("type").and_then(Value::as_str) == Some("m.room_membership"))
            .filter_map(|entry| Some(entry.get("room_id")?.as_str()?.to_owned()))
            .collect();
        Self { join_rule, allow }
    }
}

/// What the rules keep of the room's `m.room.create` event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Create {
    /// Its sender.
    pub sender: OwnedUserId,
    /// Who may join first and has power level 100 while there are no power levels: the sender from
    /// version 11, `content.creator` before. None when that is not a string.
    pub creator: Option<String>,
    /// The users above every power level (from version 12): the sender and the
    /// `additional_creators`. Empty before.
    pub privileged: BTreeSet<String>,
    /// Whether users of other servers than the sender's may take part.
    pub federate: bool,
}

impl Create {
    /// Reads the content of a create event.
    pub fn read(rules: &RoomVersionRules, sender: &UserId, content: &str) -> Self {
        let content = read_object(content).unwrap_or_default();
        let creator = if rules.creator_is_sender {
            Some(sender.as_str().to_owned())
        } else {
            content
                .get("creator")
                .and_then(Value::as_str)
                .map(str::to_owned)
        };
        let mut privileged = BTreeSet::new();
        if rules.privileged_creators {
            privileged.insert(sender.as_str().to_owned());
            let additional = content.get("additional_creators").and_then(Value::as_array);
            privileged.extend(
                additional
                    .into_iter()
                    .flatten()
                    .filter_map(|user| Some(user.as_str()?.to_owned())),
            );
        }
        Self {
            sender: sender.to_owned(),
            creator,
            privileged,
            federate: content.get("m.federate") != Some(&Value::Bool(false)),
        }
    }
}

/// A content as a map; none if it is no JSON object.
pub(super) fn read_object(content: &str) -> Option<Map<String, Value>> {
    serde_json::from_str(content).ok()
}

/// Tells `null` (present) from absent.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}
