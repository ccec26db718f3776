//! Filters: which rooms, which events, how many.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#filtering>

use comity_protocol::{event::Event, id::UserId};
use comity_rooms::{Found, RelatedBy, RoomError, RoomView};
use serde::Deserialize;

/// Events a timeline has when the filter doesn't say.
pub const DEFAULT_LIMIT: usize = 10;
/// Events a timeline or page has at the most, whatever the filter says (threat G8).
pub const MAX_LIMIT: usize = 1_000;
/// Entries of a list in a filter at the most.
const MAX_ENTRIES: usize = 1_000;

/// A whole filter, as `/sync` takes it.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Filter {
    /// Of each room's events only these fields ([`crate::fields`]).
    pub event_fields: Option<Vec<String>>,
    /// `federation` is refused where it isn't served; otherwise `client`.
    #[serde(default)]
    pub event_format: EventFormat,
    /// Presence events.
    #[serde(default)]
    pub presence: EventFilter,
    /// The user's own account data.
    #[serde(default)]
    pub account_data: EventFilter,
    /// Rooms.
    #[serde(default)]
    pub room: RoomFilter,
}

/// In which shape events are wanted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EventFormat {
    /// As clients know them.
    #[default]
    Client,
    /// As servers exchange them.
    Federation,
}

/// Which rooms, and what of them.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct RoomFilter {
    /// Only these.
    pub rooms: Option<Vec<String>>,
    /// Not these.
    #[serde(default)]
    pub not_rooms: Vec<String>,
    /// Rooms left, too.
    #[serde(default)]
    pub include_leave: bool,
    /// State.
    #[serde(default)]
    pub state: EventFilter,
    /// Timeline.
    #[serde(default)]
    pub timeline: EventFilter,
    /// Typing and receipts.
    #[serde(default)]
    pub ephemeral: EventFilter,
    /// Account data of rooms.
    #[serde(default)]
    pub account_data: EventFilter,
}

/// Which events.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct EventFilter {
    /// How many at the most.
    pub limit: Option<u64>,
    /// Only these types; `*` stands for anything.
    pub types: Option<Vec<String>>,
    /// Not these types.
    #[serde(default)]
    pub not_types: Vec<String>,
    /// Only from these.
    pub senders: Option<Vec<String>>,
    /// Not from these.
    #[serde(default)]
    pub not_senders: Vec<String>,
    /// Only in these rooms.
    pub rooms: Option<Vec<String>>,
    /// Not in these rooms.
    #[serde(default)]
    pub not_rooms: Vec<String>,
    /// Only with, or only without, a `url` in the content.
    pub contains_url: Option<bool>,
    /// Only the members who matter.
    #[serde(default)]
    pub lazy_load_members: bool,
    /// Those again who were sent before.
    #[serde(default)]
    pub include_redundant_members: bool,
    /// Counts of threads apart from their room's.
    #[serde(default)]
    pub unread_thread_notifications: bool,
    /// Only events that others relate to in one of these ways (MSC3440).
    pub related_by_rel_types: Option<Vec<String>>,
    /// Only events to which one of these relates (MSC3440).
    pub related_by_senders: Option<Vec<String>>,
    /// Only events that relate to others in one of these ways (MSC3874, a draft).
    #[serde(rename = "org.matrix.msc3874.rel_types")]
    pub rel_types: Option<Vec<String>>,
    /// Not events that relate to others in one of these ways (MSC3874, a draft).
    #[serde(rename = "org.matrix.msc3874.not_rel_types", default)]
    pub not_rel_types: Vec<String>,
}

/// The filter can't be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadFilter(pub &'static str);

impl Filter {
    /// Reads a filter from JSON.
    ///
    /// # Errors
    /// It is malformed; the text is for the client.
    pub fn parse(json: &str) -> Result<Self, BadFilter> {
        let filter: Self =
            serde_json::from_str(json).map_err(|_| BadFilter("the filter is malformed"))?;
        filter.check()?;
        Ok(filter)
    }

    fn check(&self) -> Result<(), BadFilter> {
        let room = &self.room;
        let filters = [
            &self.presence,
            &self.account_data,
            &room.state,
            &room.timeline,
            &room.ephemeral,
            &room.account_data,
        ];
        let lists = filters.into_iter().flat_map(EventFilter::lists);
        let rooms = [
            room.rooms.as_ref(),
            Some(&room.not_rooms),
            self.event_fields.as_ref(),
        ];
        for list in lists.chain(rooms.into_iter().flatten()) {
            if list.len() > MAX_ENTRIES {
                return Err(BadFilter("a list in the filter is too long"));
            }
        }
        let users = filters
            .into_iter()
            .flat_map(|filter| filter.senders.iter().chain(&filter.related_by_senders))
            .flatten()
            .chain(filters.into_iter().flat_map(|filter| &filter.not_senders));
        if users
            .into_iter()
            .any(|user| <&comity_protocol::id::UserId>::try_from(user.as_str()).is_err())
        {
            return Err(BadFilter("a sender in the filter is no user id"));
        }
        let of_filters = filters
            .into_iter()
            .flat_map(|filter| filter.rooms.iter().flatten().chain(&filter.not_rooms));
        let mut rooms = of_filters
            .chain(room.rooms.iter().flatten())
            .chain(&room.not_rooms);
        if rooms.any(|room| <&comity_protocol::id::RoomId>::try_from(room.as_str()).is_err()) {
            return Err(BadFilter("a room in the filter is no room id"));
        }
        Ok(())
    }
}

impl RoomFilter {
    /// Whether the room is wanted at all.
    pub fn wants(&self, room_id: &str) -> bool {
        wants(self.rooms.as_ref(), &self.not_rooms, room_id)
    }
}

impl EventFilter {
    /// Reads an event filter from JSON, as `/messages` and `/context` take it.
    ///
    /// # Errors
    /// It is malformed; the text is for the client.
    pub fn parse(json: &str) -> Result<Self, BadFilter> {
        let timeline: Self =
            serde_json::from_str(json).map_err(|_| BadFilter("the filter is malformed"))?;
        let filter = Filter {
            room: RoomFilter {
                timeline,
                ..RoomFilter::default()
            },
            ..Filter::default()
        };
        filter.check()?;
        Ok(filter.room.timeline)
    }

    fn lists(&self) -> impl Iterator<Item = &Vec<String>> {
        [
            self.types.as_ref(),
            self.senders.as_ref(),
            self.rooms.as_ref(),
            self.related_by_rel_types.as_ref(),
            self.related_by_senders.as_ref(),
            self.rel_types.as_ref(),
        ]
        .into_iter()
        .flatten()
        .chain([
            &self.not_types,
            &self.not_senders,
            &self.not_rooms,
            &self.not_rel_types,
        ])
    }

    /// How many events, within bounds.
    pub fn limit(&self) -> usize {
        let limit = self.limit.map_or(DEFAULT_LIMIT, |limit| {
            usize::try_from(limit).unwrap_or(MAX_LIMIT)
        });
        limit.min(MAX_LIMIT)
    }

    /// Whether events of the room pass.
    pub fn wants_room(&self, room_id: &str) -> bool {
        wants(self.rooms.as_ref(), &self.not_rooms, room_id)
    }

    /// Whether events of the type pass.
    pub fn wants_type(&self, event_type: &str) -> bool {
        let matches = |pattern: &String| type_matches(pattern, event_type);
        !self.not_types.iter().any(matches)
            && self
                .types
                .as_ref()
                .is_none_or(|types| types.iter().any(matches))
    }

    /// Whether events from the sender pass.
    pub fn wants_sender(&self, sender: &str) -> bool {
        wants(self.senders.as_ref(), &self.not_senders, sender)
    }

    /// Of each event of a room whether it passes, what relates to it included, as far as the user sees
    /// that.
    ///
    /// # Errors
    /// The store can't be read.
    pub async fn passes(
        &self,
        view: &RoomView,
        found: &[Found],
        user: &UserId,
    ) -> Result<Vec<bool>, RoomError> {
        if !self.wants_room(view.room_id().as_str()) {
            return Ok(vec![false; found.len()]);
        }
        let wants = |one: &Found| self.wants(&one.event) && self.wants_relation(one);
        let mut passes: Vec<bool> = found.iter().map(wants).collect();
        let by = RelatedBy {
            rel_types: self.related_by_rel_types.as_deref(),
            senders: self.related_by_senders.as_deref(),
        };
        if by.rel_types.is_some() || by.senders.is_some() {
            let asked: Vec<_> = found
                .iter()
                .zip(&passes)
                .filter(|(_, passes)| **passes)
                .map(|(one, _)| one.num)
                .collect();
            let mut related = view.are_related(&asked, by, user).await?.into_iter();
            for passes in passes.iter_mut().filter(|passes| **passes) {
                *passes = related.next().unwrap_or_default();
            }
        }
        Ok(passes)
    }

    /// Whether events pass that relate to others as this one does.
    fn wants_relation(&self, found: &Found) -> bool {
        if self.rel_types.is_none() && self.not_rel_types.is_empty() {
            return true;
        }
        match rel_type(found) {
            Some(rel_type) => wants(self.rel_types.as_ref(), &self.not_rel_types, &rel_type),
            None => self.rel_types.is_none(),
        }
    }

    /// Whether the event passes, its room and relations aside.
    pub fn wants(&self, event: &Event) -> bool {
        self.wants_type(event.event_type())
            && self.wants_sender(event.sender().as_str())
            && self.contains_url.is_none_or(|url| {
                event
                    .content_member("url")
                    .is_some_and(|v| v.starts_with('"'))
                    == url
            })
    }
}

/// In which way an event relates to another; one that was redacted doesn't.
pub fn rel_type(found: &Found) -> Option<String> {
    #[derive(Deserialize)]
    struct Content {
        #[serde(rename = "m.relates_to")]
        relates_to: RelatesTo,
    }
    #[derive(Deserialize)]
    struct RelatesTo {
        rel_type: String,
    }
    if found.status.redacted_by.is_some() {
        return None;
    }
    let content: Content = found.event.content_as().ok()?;
    Some(content.relates_to.rel_type)
}

fn wants(only: Option<&Vec<String>>, not: &[String], name: &str) -> bool {
    !not.iter().any(|other| other == name)
        && only.is_none_or(|only| only.iter().any(|other| other == name))
}

/// `*` stands for any run of characters. Linear in the text for each star, as both are short.
fn type_matches(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(rest) = parts.next().and_then(|first| text.strip_prefix(first)) else {
        return false;
    };
    let mut rest = rest;
    let mut last = None;
    for part in parts {
        if let Some(middle) = last.replace(part) {
            match rest.find(middle) {
                Some(at) => rest = rest.get(at + middle.len()..).unwrap_or_default(),
                None => return false,
            }
        }
    }
    last.map_or(rest.is_empty(), |end| rest.ends_with(end))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Client-server API, Filtering: `*` in types.
    #[test]
    fn types_match_with_stars() {
        for (pattern, text, matches) in [
            ("m.room.message", "m.room.message", true),
            ("m.room.message", "m.room.messages", false),
            ("m.room.*", "m.room.name", true),
            ("*", "anything", true),
            ("*.name", "m.room.name", true),
            ("m.*.name", "m.room.name", true),
            ("m.*.name", "m.room.topic", false),
            ("m.*r*m", "m.rm", true),
            ("a*a", "a", false),
        ] {
            assert_eq!(type_matches(pattern, text), matches, "{pattern} {text}");
        }
    }

    /// Threat G8: a limit beyond all sense is cut, a malformed filter refused.
    #[test]
    fn limits_are_clamped() {
        let filter = Filter::parse(r#"{"room":{"timeline":{"limit":1000000000000}}}"#).unwrap();
        assert_eq!(filter.room.timeline.limit(), MAX_LIMIT);
        for bad in [
            r#"{"room":[]}"#,
            r#"{"presence":{"senders":["nobody"]}}"#,
            r#"{"room":{"rooms":["not a room"]}}"#,
            "x",
        ] {
            assert!(Filter::parse(bad).is_err(), "{bad}");
        }
    }
}
