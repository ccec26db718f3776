//! Making rooms.
//!
//! All events of a new room are one batch of its lane: the room is there whole or not at all. Only
//! its alias has a lane of its own and is taken first ([`crate::aliases`]).
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3createroom>

use std::{collections::BTreeSet, time::Duration};

use comity_encryption_policy::{ALGORITHM, ENCRYPTION_EVENT, MODE_EVENT};
use comity_protocol::{
    auth::{MemberContent, Membership, Rejection},
    id::{OwnedRoomAliasId, OwnedRoomId, OwnedUserId, RoomId, UserId},
    room_version::RoomVersion,
};
use serde_json::{
    Map, Value, json,
    value::{RawValue, to_raw_value},
};

use crate::{
    aliases,
    change::{Change, Intent, SERVER_LOCALPART},
    error::RoomError,
    profile::{Profile, member_content},
    rooms::Rooms,
};

/// Events that a room may begin with.
const MAX_EVENTS: usize = 1_000;
/// Milliseconds to look for a free room id in.
const ATTEMPTS: usize = 100;

/// Whether a room is in the directory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Visibility {
    /// It is.
    Public,
    /// It is not.
    #[default]
    Private,
}

/// Which state a room begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Preset {
    /// `private_chat`
    Private,
    /// `trusted_private_chat`
    TrustedPrivate,
    /// `public_chat`
    Public,
}

impl Preset {
    /// The preset of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "private_chat" => Self::Private,
            "trusted_private_chat" => Self::TrustedPrivate,
            "public_chat" => Self::Public,
            _ => return None,
        })
    }
}

/// A state event that a room is to begin with.
#[derive(Debug, Clone)]
pub struct StateEvent {
    /// `type`
    pub event_type: String,
    /// `state_key`
    pub state_key: String,
    /// An object.
    pub content: Box<RawValue>,
}

/// A user who is invited to a new room.
#[derive(Debug, Clone)]
pub struct Invitee {
    /// Who.
    pub user: OwnedUserId,
    /// Their profile, for the invite.
    pub profile: Profile,
}

/// What is asked for. The fields are those of the endpoint.
#[derive(Debug, Clone, Default)]
pub struct CreateRoom {
    /// `visibility`
    pub visibility: Visibility,
    /// `room_alias_name`
    pub room_alias_name: Option<String>,
    /// `name`
    pub name: Option<String>,
    /// `topic`
    pub topic: Option<String>,
    /// `invite`
    pub invite: Vec<Invitee>,
    /// Whether there are any `invite_3pid`: they are refused.
    pub invites_3pid: bool,
    /// `room_version`
    pub room_version: Option<String>,
    /// `creation_content`
    pub creation_content: Map<String, Value>,
    /// `initial_state`
    pub initial_state: Vec<StateEvent>,
    /// `preset`
    pub preset: Option<Preset>,
    /// `is_direct`
    pub is_direct: bool,
    /// `power_level_content_override`
    pub power_level_content_override: Map<String, Value>,
}

impl Rooms {
    /// Makes a room.
    ///
    /// # Errors
    /// [`RoomError::UnsupportedVersion`], [`RoomError::Taken`] of the alias,
    /// [`RoomError::InvalidState`], [`RoomError::BadJson`], [`RoomError::Invalid`] of the alias,
    /// [`RoomError::OtherServer`] where it needs one. There is no room then.
    pub async fn create_room(
        &self,
        creator: &UserId,
        profile: &Profile,
        request: CreateRoom,
    ) -> Result<OwnedRoomId, RoomError> {
        let version = match request.room_version.as_deref() {
            None => self.default_version(),
            Some(version) => RoomVersion::parse(version).ok_or(RoomError::UnsupportedVersion)?,
        };
        let alias = match &request.room_alias_name {
            Some(localpart) => Some(self.alias_of(localpart)?),
            None => None,
        };
        self.check_create(&request, alias.as_ref())?;
        let content = create_content(version, creator, &request)?;
        let mut change = self.first_event(version, creator, &content).await?;
        let mut asked_elsewhere = Vec::new();
        let encrypts = self.encrypts(creator, &request);
        for intent in intents(
            version,
            creator,
            profile,
            &request,
            alias.as_ref(),
            encrypts,
        )? {
            if self.is_for_another_server(&intent) {
                asked_elsewhere.push(intent);
            } else {
                change.add(intent, None).await.map_err(in_new_room)?;
            }
        }
        if request.visibility == Visibility::Public {
            change.publish(true)?;
        }
        let room_id = self.finish_room(creator, change, alias).await?;
        for intent in asked_elsewhere {
            self.invite_later(&room_id, &intent).await;
        }
        Ok(room_id)
    }

    /// Whether a new room begins encrypted, if its creator doesn't say how.
    fn encrypts(&self, creator: &UserId, request: &CreateRoom) -> bool {
        let room_type = request.creation_content.get("type");
        let is_space = room_type.and_then(Value::as_str) == Some("m.space");
        let is_public = preset_of(request) == Preset::Public;
        creator.localpart() != SERVER_LOCALPART
            && self.encryption().encrypts_new(is_public, is_space)
    }

    /// Whether an event of a new room is an invite that needs another server's signature.
    fn is_for_another_server(&self, intent: &Intent) -> bool {
        let user = intent.state_key.as_deref();
        let user = user.and_then(|user| <&UserId>::try_from(user).ok());
        let content = MemberContent::read(intent.content.get());
        intent.event_type == "m.room.member"
            && content.membership == Some(Membership::Invite)
            && user.is_some_and(|user| !self.is_local(user))
    }

    /// The room is there: an invite that can't be delivered doesn't undo it.
    async fn invite_later(&self, room_id: &RoomId, intent: &Intent) {
        let content = serde_json::from_str(intent.content.get()).unwrap_or_default();
        let target = intent.state_key.as_deref().unwrap_or_default();
        if let Ok(target) = <&UserId>::try_from(target)
            && let Err(error) = self
                .invite_with(&intent.sender, room_id, target, &content)
                .await
        {
            tracing::warn!(%room_id, %target, %error, "an invite into a new room failed");
        }
    }

    /// Places the create event. From version 12 the room's id is its hash: a user who makes two alike
    /// rooms in one millisecond gets the second in the next.
    pub(crate) async fn first_event(
        &self,
        version: RoomVersion,
        creator: &UserId,
        content: &Map<String, Value>,
    ) -> Result<Change, RoomError> {
        let content = to_raw_value(content).unwrap_or_default();
        for _ in 0..ATTEMPTS {
            match self.create_event(version, creator, content.clone()).await {
                Err(RoomError::Taken(_)) => tokio::time::sleep(Duration::from_millis(1)).await,
                other => return other.map_err(in_new_room),
            }
        }
        Err(RoomError::Taken("a room with this id exists"))
    }

    /// Commits a new room, its alias taken before.
    async fn finish_room(
        &self,
        creator: &UserId,
        mut change: Change,
        alias: Option<OwnedRoomAliasId>,
    ) -> Result<OwnedRoomId, RoomError> {
        let room_id = change.room_id()?.to_owned();
        let Some(alias) = alias else {
            change.commit().await?;
            return Ok(room_id);
        };
        change.list_alias(&alias)?;
        self.reserve_alias(creator, &alias, &room_id).await?;
        match change.commit().await {
            Ok(_) => Ok(room_id),
            Err(error) => {
                self.release_alias(&alias, &room_id).await;
                Err(error)
            }
        }
    }

    fn check_create(
        &self,
        request: &CreateRoom,
        alias: Option<&OwnedRoomAliasId>,
    ) -> Result<(), RoomError> {
        for event in &request.initial_state {
            if event.event_type == "m.room.canonical_alias" && event.state_key.is_empty() {
                aliases::check_first(&event.content, alias)?;
            }
        }
        if request.invites_3pid {
            return Err(RoomError::Forbidden(
                "this server sends no third-party invites",
            ));
        }
        if request.invite.len() + request.initial_state.len() > MAX_EVENTS {
            return Err(RoomError::BadJson("too many invites and state events"));
        }
        let mut invited = request.invite.iter();
        if invited.any(|invitee| !self.is_local(&invitee.user)) {
            self.elsewhere("users of other servers can't be invited")?;
        }
        Ok(())
    }
}

/// What the rules forbid in a room that is being made is a fault of its intended state.
pub(crate) fn in_new_room(error: RoomError) -> RoomError {
    match error {
        RoomError::Rejected(Rejection::AdditionalCreators) => {
            RoomError::BadJson("additional_creators are not user ids")
        }
        RoomError::Rejected(rejection) => RoomError::InvalidState(rejection),
        RoomError::Forbidden(why) => RoomError::BadJson(why),
        error => error,
    }
}

/// The content of `m.room.create`.
fn create_content(
    version: RoomVersion,
    creator: &UserId,
    request: &CreateRoom,
) -> Result<Map<String, Value>, RoomError> {
    let rules = version.rules();
    let mut content = request.creation_content.clone();
    content.insert("room_version".into(), version.as_str().into());
    if rules.creator_is_sender {
        content.remove("creator");
    } else {
        content.insert("creator".into(), creator.as_str().into());
    }
    if rules.privileged_creators && request.preset == Some(Preset::TrustedPrivate) {
        let asked = match content.remove("additional_creators") {
            None => Vec::new(),
            Some(Value::Array(users)) => users,
            Some(_) => return Err(RoomError::BadJson("additional_creators is not an array")),
        };
        let invited = request
            .invite
            .iter()
            .map(|invitee| Value::from(invitee.user.as_str()));
        let mut creators: Vec<Value> = Vec::new();
        for user in asked.into_iter().chain(invited) {
            if !creators.contains(&user) {
                creators.push(user);
            }
        }
        if !creators.is_empty() {
            content.insert("additional_creators".into(), creators.into());
        }
    }
    Ok(content)
}

/// The preset asked for, or the one that fits the room's visibility.
fn preset_of(request: &CreateRoom) -> Preset {
    request.preset.unwrap_or(match request.visibility {
        Visibility::Public => Preset::Public,
        Visibility::Private => Preset::Private,
    })
}

/// Everything after the create event, in the specification's order.
fn intents(
    version: RoomVersion,
    creator: &UserId,
    profile: &Profile,
    request: &CreateRoom,
    alias: Option<&OwnedRoomAliasId>,
    encrypts: bool,
) -> Result<Vec<Intent>, RoomError> {
    let state = |kind: &str, content: &Value| Intent::state(creator, kind, "", content);
    let preset = preset_of(request);
    let mut join = Map::new();
    member_content(&mut join, "join", Some(profile), None);
    let levels = power_levels(version, creator, preset, request)?;
    let mut intents = vec![
        Intent::state(creator, "m.room.member", creator.as_str(), &join),
        state("m.room.power_levels", &levels.into()),
    ];
    if let Some(alias) = alias {
        intents.push(state("m.room.canonical_alias", &json!({ "alias": alias })));
    }
    // That guests may not come in is what a room says that has no `m.room.guest_access`.
    let (join_rule, guest_access) = match preset {
        Preset::Public => ("public", None),
        Preset::Private | Preset::TrustedPrivate => ("invite", Some("can_join")),
    };
    let given: BTreeSet<&str> = request
        .initial_state
        .iter()
        .filter(|event| event.state_key.is_empty())
        .map(|event| event.event_type.as_str())
        .collect();
    let guest_access = guest_access.map(|access| {
        let content = json!({ "guest_access": access });
        ("m.room.guest_access", content)
    });
    let of_preset = [
        ("m.room.join_rules", json!({ "join_rule": join_rule })),
        (
            "m.room.history_visibility",
            json!({ "history_visibility": "shared" }),
        ),
    ];
    let encryption = encrypts.then(|| (ENCRYPTION_EVENT, json!({ "algorithm": ALGORITHM })));
    for (kind, content) in of_preset.into_iter().chain(guest_access).chain(encryption) {
        if !given.contains(kind) {
            intents.push(state(kind, &content));
        }
    }
    for event in &request.initial_state {
        let overwritten = event.state_key.is_empty()
            && (event.event_type == "m.room.name" && request.name.is_some()
                || event.event_type == "m.room.topic" && request.topic.is_some());
        if !overwritten {
            intents.push(Intent {
                sender: creator.to_owned(),
                event_type: event.event_type.clone(),
                state_key: Some(event.state_key.clone()),
                content: event.content.clone(),
                redacts: None,
            });
        }
    }
    if let Some(name) = &request.name {
        intents.push(state("m.room.name", &json!({ "name": name })));
    }
    if let Some(topic) = &request.topic {
        let content = json!({ "topic": topic, "m.topic": { "m.text": [{ "body": topic }] } });
        intents.push(state("m.room.topic", &content));
    }
    let mut invited = BTreeSet::new();
    for invitee in &request.invite {
        if !invited.insert(&invitee.user) {
            continue;
        }
        let mut invite = Map::new();
        if request.is_direct {
            invite.insert("is_direct".into(), true.into());
        }
        member_content(&mut invite, "invite", Some(&invitee.profile), None);
        let key = invitee.user.as_str();
        intents.push(Intent::state(creator, "m.room.member", key, &invite));
    }
    Ok(intents)
}

/// The content of the first `m.room.power_levels`.
fn power_levels(
    version: RoomVersion,
    creator: &UserId,
    preset: Preset,
    request: &CreateRoom,
) -> Result<Map<String, Value>, RoomError> {
    let privileged = version.rules().privileged_creators;
    let mut users = Map::new();
    if !privileged {
        users.insert(creator.to_string(), 100.into());
        if preset == Preset::TrustedPrivate {
            let invited = request.invite.iter();
            users.extend(invited.map(|invitee| (invitee.user.to_string(), 100.into())));
        }
    }
    // In a public room strangers don't bring strangers.
    let invite = if preset == Preset::Public { 50 } else { 0 };
    let levels = json!({
        "ban": 50,
        "events": {
            "m.room.avatar": 50,
            "m.room.canonical_alias": 50,
            "m.room.encryption": 100,
            "m.room.history_visibility": 100,
            "m.room.name": 50,
            "m.room.power_levels": 100,
            "m.room.server_acl": 100,
            MODE_EVENT: 100,
            "m.room.tombstone": if privileged { 150 } else { 100 },
        },
        "events_default": 0,
        "invite": invite,
        "kick": 50,
        "notifications": { "room": 50 },
        "redact": 50,
        "state_default": 50,
        "users": users,
        "users_default": 0,
    });
    let Value::Object(mut levels) = levels else {
        return Err(RoomError::BadJson("power levels are an object"));
    };
    levels.extend(request.power_level_content_override.clone());
    Ok(levels)
}
