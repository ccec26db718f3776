//! The answer's shape.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3sync>

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use serde_json::value::RawValue;

/// What changed.
#[derive(Debug, Default, Serialize)]
pub struct Answer {
    /// Where this answer ends.
    pub next_batch: String,
    /// Rooms.
    #[serde(skip_serializing_if = "Sections::is_empty")]
    pub rooms: Sections,
    /// The user's own account data.
    #[serde(skip_serializing_if = "Events::is_empty")]
    pub account_data: Events,
    /// Presence of those who share a room.
    #[serde(skip_serializing_if = "Events::is_empty")]
    pub presence: Events,
    /// Users whose keys have changed, or matter no more; of what is told since an earlier answer.
    #[serde(skip_serializing_if = "DeviceLists::is_empty")]
    pub device_lists: DeviceLists,
    /// One-time keys that the device has left, by algorithm.
    pub device_one_time_keys_count: BTreeMap<String, u32>,
    /// Algorithms whose fallback key of the device's has not been given away.
    pub device_unused_fallback_key_types: Vec<String>,
    /// Those two have changed since the last answer.
    #[serde(skip)]
    pub keys_left_changed: bool,
    /// Messages to the device.
    #[serde(skip_serializing_if = "Events::is_empty")]
    pub to_device: Events,
}

/// Users, in the order of their ids, whose device lists a client may follow.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize)]
pub struct DeviceLists {
    /// Those whose keys have changed, or with whom the user shares a room now.
    pub changed: Vec<String>,
    /// Those with whom the user shares no room any more.
    pub left: Vec<String>,
}

/// Rooms by how the user stands to them.
#[derive(Debug, Default, Serialize)]
pub struct Sections {
    /// Joined.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub join: BTreeMap<String, Joined>,
    /// Invited to.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub invite: BTreeMap<String, Invited>,
    /// Left, or banned from.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub leave: BTreeMap<String, Left>,
    /// Knocked at.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub knock: BTreeMap<String, Knocked>,
}

/// A room's part of an answer.
pub(crate) enum Section {
    Join(Joined),
    Invite(Invited),
    Leave(Left),
    Knock(Knocked),
}

/// A list of events.
#[derive(Debug, Default, Serialize)]
pub struct Events {
    /// The events.
    pub events: Vec<Box<RawValue>>,
}

/// A joined room.
#[derive(Debug, Default, Serialize)]
pub struct Joined {
    /// Who is there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub summary: Option<Summary>,
    /// What happened.
    pub timeline: Timeline,
    /// State.
    #[serde(flatten)]
    pub state: State,
    /// Typing and receipts.
    pub ephemeral: Events,
    /// The user's account data of the room.
    pub account_data: Events,
    /// Counts of the room, or of its main timeline.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unread_notifications: Option<Counts>,
    /// Counts by thread.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unread_thread_notifications: Option<BTreeMap<String, Counts>>,
    /// Whether somebody types, where that is told.
    #[serde(skip)]
    pub typing: Option<bool>,
    /// Users who have come since the last answer; told by their presence, not here.
    #[serde(skip)]
    pub newcomers: Vec<String>,
}

/// State, before the timeline or after it.
#[derive(Debug, Serialize)]
pub enum State {
    /// Between the last answer and the timeline's start.
    #[serde(rename = "state")]
    Before(Events),
    /// Between the last answer and the timeline's end.
    #[serde(rename = "state_after")]
    After(Events),
}

impl Default for State {
    fn default() -> Self {
        Self::Before(Events::default())
    }
}

impl State {
    fn is_empty(&self) -> bool {
        let (Self::Before(events) | Self::After(events)) = self;
        events.is_empty()
    }
}

/// Unread counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// What notifies.
    pub notification_count: u32,
    /// What highlights.
    pub highlight_count: u32,
}

/// A stretch of a room's order.
#[derive(Debug, Default, Serialize)]
pub struct Timeline {
    /// The events, oldest first.
    pub events: Vec<Box<RawValue>>,
    /// Whether events between the last answer and these are left out.
    pub limited: bool,
    /// Where to read on, backwards.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prev_batch: Option<String>,
}

/// What a client names and draws a room by.
#[derive(Debug, Default, Serialize)]
pub struct Summary {
    /// Members to name it by where it has no name.
    #[serde(rename = "m.heroes", skip_serializing_if = "Option::is_none")]
    pub heroes: Option<Vec<String>>,
    /// How many are joined.
    #[serde(rename = "m.joined_member_count")]
    pub joined: u64,
    /// How many are invited.
    #[serde(rename = "m.invited_member_count")]
    pub invited: u64,
}

/// An invite.
#[derive(Debug, Serialize)]
pub struct Invited {
    /// What the invited may know.
    pub invite_state: Events,
}

/// A knock.
#[derive(Debug, Serialize)]
pub struct Knocked {
    /// What who knocked may know.
    pub knock_state: Events,
}

/// A room left.
#[derive(Debug, Default, Serialize)]
pub struct Left {
    /// What happened until then.
    pub timeline: Timeline,
    /// State.
    #[serde(flatten)]
    pub state: State,
    /// The user's account data of the room.
    pub account_data: Events,
}

impl DeviceLists {
    pub(crate) fn of(changed: BTreeSet<String>, left: BTreeSet<String>) -> Self {
        Self {
            changed: changed.into_iter().collect(),
            left: left.into_iter().collect(),
        }
    }

    /// Whether it names nobody.
    pub fn is_empty(&self) -> bool {
        self.changed.is_empty() && self.left.is_empty()
    }
}

impl Events {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
    }
}

impl Sections {
    pub(crate) fn put(&mut self, room_id: String, section: Section) {
        match section {
            Section::Join(joined) => _ = self.join.insert(room_id, joined),
            Section::Invite(invited) => _ = self.invite.insert(room_id, invited),
            Section::Leave(left) => _ = self.leave.insert(room_id, left),
            Section::Knock(knocked) => _ = self.knock.insert(room_id, knocked),
        }
    }

    /// Whether there is no room.
    pub fn is_empty(&self) -> bool {
        self.join.is_empty()
            && self.invite.is_empty()
            && self.leave.is_empty()
            && self.knock.is_empty()
    }
}

impl Joined {
    /// Whether it says anything.
    pub fn is_empty(&self) -> bool {
        self.timeline.events.is_empty()
            && !self.timeline.limited
            && self.state.is_empty()
            && self.ephemeral.is_empty()
            && self.account_data.is_empty()
            && self.summary.is_none()
    }
}

impl Answer {
    /// Whether it says anything.
    pub fn is_empty(&self) -> bool {
        self.rooms.is_empty()
            && self.account_data.is_empty()
            && self.presence.is_empty()
            && self.device_lists.is_empty()
            && !self.keys_left_changed
            && self.to_device.is_empty()
    }
}
