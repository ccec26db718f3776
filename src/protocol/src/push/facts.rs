//! What push rules see of an event, whose rules they are, and what they make of it.

use serde_json::{Map, Value};

use super::{condition::Property, model::Action};

/// What a rule that matched does to the unread counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Verdict {
    /// Counts as a notification.
    pub notify: bool,
    /// Counts as a highlight too; never without `notify`.
    pub highlight: bool,
}

impl Verdict {
    pub(super) fn of(actions: &[Action]) -> Self {
        let notify = actions.contains(&Action::NOTIFY);
        Self {
            notify,
            highlight: notify && actions.iter().any(Action::highlights),
        }
    }
}

/// What rules may ask about an event and its room, besides who is asking.
#[derive(Clone, Copy, Debug)]
pub struct EventFacts<'a> {
    /// `type`.
    pub event_type: &'a str,
    /// `sender`.
    pub sender: &'a str,
    /// `room_id`.
    pub room_id: &'a str,
    /// `state_key`, of a state event.
    pub state_key: Option<&'a str>,
    /// `content`.
    pub content: &'a Map<String, Value>,
    /// How many have joined the room.
    pub joined_members: u64,
    /// The sender's power level; `i64::MAX` for a creator of a version 12 room.
    pub sender_power_level: i64,
    /// `notifications` of the room's power levels, if there.
    pub notification_levels: Option<&'a Map<String, Value>>,
}

impl<'a> EventFacts<'a> {
    /// The users the default rules may treat apart: the intended mentions, and the state key. May repeat itself.
    pub fn named_users(&self) -> impl Iterator<Item = &'a str> {
        let mentions = self.content.get("m.mentions");
        let users = mentions.and_then(|m| m.get("user_ids")?.as_array());
        let users = users.into_iter().flatten().filter_map(Value::as_str);
        users.chain(self.state_key)
    }

    pub(super) fn text(&self, property: &Property) -> Option<&'a str> {
        match property {
            Property::Type => Some(self.event_type),
            Property::Sender => Some(self.sender),
            Property::RoomId => Some(self.room_id),
            Property::StateKey => self.state_key,
            Property::Content(path) => self.content(path)?.as_str(),
            Property::Absent(_) => None,
        }
    }

    pub(super) fn content(&self, path: &[String]) -> Option<&'a Value> {
        let (first, rest) = path.split_first()?;
        let value = self.content.get(first)?;
        rest.iter().try_fold(value, |value, name| value.get(name))
    }

    pub(super) fn is(&self, property: &Property, expected: &Value) -> bool {
        match property {
            Property::Content(path) => self.content(path) == Some(expected),
            _ => self.text(property).is_some_and(|text| *expected == *text),
        }
    }

    pub(super) fn array(&self, property: &Property) -> &'a [Value] {
        match property {
            Property::Content(path) => self.content(path).and_then(Value::as_array),
            _ => None,
        }
        .map_or(&[], Vec::as_slice)
    }

    pub(super) fn required_level(&self, key: &str) -> i64 {
        match self.notification_levels.and_then(|levels| levels.get(key)) {
            Some(Value::Number(level)) => level.as_i64(),
            // Room versions before 10 allow strings.
            Some(Value::String(level)) => level.trim().parse().ok(),
            _ => None,
        }
        .unwrap_or(50)
    }
}

/// Whose rules are being evaluated.
#[derive(Clone, Copy, Debug)]
pub struct Recipient<'a> {
    /// Their user id.
    pub user_id: &'a str,
    /// Their display name in the room.
    pub display_name: Option<&'a str>,
}
