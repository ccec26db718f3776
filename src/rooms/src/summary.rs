//! Room summaries: what lists, spaces and previews show of a room, kept in the batch of the state
//! change that alters it (R7.5), so that showing a room reads one row.
//!
//! A summary follows the *state*, one key at a time: whatever puts another event under a key says so
//! to [`Summary::set`], whatever changes a membership to [`Summary::member`]. Resolution and resync
//! tell it the differences of their roots in the same words.

use comity_encryption_policy::{ENCRYPTION_EVENT, MODE_EVENT, Mode};
use comity_protocol::{
    auth::{Create, JoinRulesContent, Membership},
    event::Event,
    id::RoomId,
};
use comity_storage::RoomKey;

use crate::{
    error::RoomError,
    policy::{POLICY_EVENT, designated},
    rooms::Rooms,
    tables::{InRoom, Info, Summaries, Summary},
};

impl Rooms {
    /// What a room looks like now; whether the asker may know is the caller's question.
    ///
    /// # Errors
    /// [`RoomError::UnknownRoom`].
    pub async fn summary(&self, room_id: &RoomId) -> Result<Summary, RoomError> {
        let room = RoomKey::of(room_id.as_str());
        let row = self
            .tenant()
            .reader()
            .get::<Summaries>(&InRoom { room })
            .await?;
        row.map(|row| row.value)
            .filter(|summary| summary.room_id == room_id.as_str())
            .ok_or(RoomError::UnknownRoom)
    }
}

impl Summary {
    /// Of a room without state.
    pub(crate) fn new(info: &Info) -> Self {
        Self {
            room_id: info.room_id.clone(),
            version: info.version,
            creators: Vec::new(),
            room_type: None,
            predecessor: None,
            replacement: None,
            name: None,
            topic: None,
            avatar_url: None,
            canonical_alias: None,
            join_rule: None,
            allowed: Vec::new(),
            history_visibility: None,
            guest_can_join: false,
            encryption: None,
            encryption_mode: None,
            policy: None,
            joined: 0,
            invited: 0,
            ours: 0,
        }
    }

    /// Whether anyone may read the room.
    #[must_use]
    pub fn world_readable(&self) -> bool {
        self.history_visibility.as_deref() == Some("world_readable")
    }

    /// The join rule; `invite` where the room has none.
    #[must_use]
    pub fn join_rule(&self) -> &str {
        self.join_rule.as_deref().unwrap_or("invite")
    }

    /// Whether encryption is required for good: a room that is encrypted and has required it once requires it of our users, whoever
    /// elsewhere takes it back (R20.1). Where nothing is encrypted, whoever may set the mode may set another.
    pub(crate) fn keeps_encryption(&self) -> bool {
        self.encryption_mode == Some(Mode::Required) && self.encryption.is_some()
    }

    /// Another event, or none, stands under a key of the state.
    pub(crate) fn set(&mut self, event_type: &str, state_key: &str, event: Option<&Event>) {
        if !state_key.is_empty() {
            return;
        }
        let text = |key| {
            let text = event?.content_string(key)?.into_owned();
            Some(text).filter(|text| !text.is_empty())
        };
        match event_type {
            "m.room.create" => self.set_create(event),
            "m.room.tombstone" => self.replacement = text("replacement_room"),
            "m.room.name" => self.name = text("name"),
            "m.room.topic" => self.topic = text("topic"),
            "m.room.avatar" => self.avatar_url = text("url"),
            "m.room.canonical_alias" => self.canonical_alias = text("alias"),
            "m.room.history_visibility" => self.history_visibility = text("history_visibility"),
            "m.room.guest_access" => {
                self.guest_can_join = text("guest_access").as_deref() == Some("can_join");
            }
            ENCRYPTION_EVENT => {
                let algorithm = text("algorithm");
                if algorithm.is_some() || !self.keeps_encryption() {
                    self.encryption = algorithm;
                }
            }
            MODE_EVENT if !self.keeps_encryption() => {
                self.encryption_mode =
                    event.and_then(|event| Mode::of_content(event.content().get()));
            }
            POLICY_EVENT => self.policy = event.and_then(designated),
            "m.room.join_rules" => {
                self.join_rule = text("join_rule");
                self.allowed = event.map_or_else(Vec::new, |event| {
                    JoinRulesContent::read(event.content().get()).allow
                });
            }
            _ => {}
        }
    }

    fn set_create(&mut self, event: Option<&Event>) {
        #[derive(serde::Deserialize)]
        struct Content {
            #[serde(default)]
            predecessor: Option<serde_json::Value>,
        }
        let Some(event) = event else { return };
        let create = Create::read(event.rules(), event.sender(), event.content().get());
        self.creators = vec![event.sender().to_string()];
        let others = create.privileged.into_iter();
        self.creators
            .extend(others.filter(|user| user != event.sender().as_str()));
        self.room_type = event.content_string("type").map(|text| text.into_owned());
        self.predecessor = event
            .content_as::<Content>()
            .ok()
            .and_then(|content| Some(content.predecessor?.get("room_id")?.as_str()?.to_owned()));
    }

    /// The membership of a user changed, who is of this server or not.
    pub(crate) fn member(&mut self, before: Membership, after: Membership, ours: bool) {
        if ours {
            self.ours += u64::from(after == Membership::Join);
            let left = u64::from(before == Membership::Join);
            self.ours = self.ours.saturating_sub(left);
        }
        let mut count = |membership, up: bool| {
            let counter = match membership {
                Membership::Join => &mut self.joined,
                Membership::Invite => &mut self.invited,
                _ => return,
            };
            *counter = if up {
                counter.saturating_add(1)
            } else {
                counter.saturating_sub(1)
            };
        };
        count(before, false);
        count(after, true);
    }
}
