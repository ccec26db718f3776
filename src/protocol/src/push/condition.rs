//! Conditions of push rules, compiled: what they ask of an event.

use std::cmp::Ordering;

use serde_json::{Value, json};

use super::{
    facts::{EventFacts, Recipient},
    glob::{Glob, Steps, fold},
    model::Condition,
};

/// The names in a dot-separated path to a property; of the escapes, those of dots and backslashes count.
///
/// <https://spec.matrix.org/v1.19/appendices/#dot-separated-property-paths>
pub fn property_path(path: &str) -> Vec<String> {
    let mut names = vec![String::new()];
    let mut chars = path.chars().peekable();
    while let Some(c) = chars.next() {
        let literal = match c {
            '.' => {
                names.push(String::new());
                continue;
            }
            '\\' => chars.next_if(|c| matches!(c, '.' | '\\')).unwrap_or('\\'),
            c => c,
        };
        if let Some(name) = names.last_mut() {
            name.push(literal);
        }
    }
    names
}

/// A property of an event that a condition names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Property {
    Type,
    Sender,
    RoomId,
    StateKey,
    /// The path below `content`.
    Content(Vec<String>),
    /// Anything else: no event has it, as far as rules are concerned. Kept for the fingerprint.
    Absent(Vec<String>),
}

impl Property {
    fn parse(key: &str) -> Self {
        let mut path = property_path(key);
        let names: Vec<&str> = path.iter().map(String::as_str).collect();
        match names.as_slice() {
            ["type"] => Self::Type,
            ["sender"] => Self::Sender,
            ["room_id"] => Self::RoomId,
            ["state_key"] => Self::StateKey,
            ["content", _, ..] => Self::Content(path.split_off(1)),
            _ => Self::Absent(path),
        }
    }

    fn body() -> Self {
        Self::Content(vec!["body".to_owned()])
    }

    fn name(&self) -> Value {
        match self {
            Self::Type => "type".into(),
            Self::Sender => "sender".into(),
            Self::RoomId => "room_id".into(),
            Self::StateKey => "state_key".into(),
            Self::Content(path) => json!({ "content": path }),
            Self::Absent(path) => json!({ "absent": path }),
        }
    }
}

/// A compiled condition.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Test {
    /// The whole value matches.
    Match(Property, Glob),
    /// Some words of `content.body` match.
    Words(Glob),
    Is(Property, Value),
    Contains(Property, Value),
    /// The value is the recipient's own user id.
    IsMe(Property),
    /// The array holds the recipient's own user id.
    ContainsMe(Property),
    DisplayName,
    Members(Vec<Ordering>, u64),
    Permission(String),
}

impl Test {
    /// Compiles a condition; `None` if its kind is unknown, so that it never matches.
    pub(super) fn parse(
        condition: &Condition,
        user_id: &str,
    ) -> Result<Option<Self>, &'static str> {
        let property = || {
            let key = condition.text("key").ok_or("a condition lacks its key")?;
            Ok::<_, &'static str>(Property::parse(key))
        };
        let value = || match condition.0.get("value") {
            Some(Value::Array(_) | Value::Object(_)) | None => {
                Err("a condition's value is no scalar")
            }
            Some(Value::Number(number)) if number.is_f64() => Err("a condition's value is a float"),
            Some(value) => Ok(value.clone()),
        };
        let test = match condition.text("kind").ok_or("a condition lacks its kind")? {
            "event_match" => {
                let pattern = condition.text("pattern");
                let pattern = pattern.ok_or("a condition lacks its pattern")?;
                let property = property()?;
                let glob = || Glob::new(pattern).ok_or("the pattern is too long");
                if property == Property::body() {
                    Self::Words(glob()?)
                } else if pattern == user_id {
                    Self::IsMe(property)
                } else {
                    Self::Match(property, glob()?)
                }
            }
            "event_property_is" => match value()? {
                value if value == *user_id => Self::IsMe(property()?),
                value => Self::Is(property()?, value),
            },
            "event_property_contains" => match value()? {
                value if value == *user_id => Self::ContainsMe(property()?),
                value => Self::Contains(property()?, value),
            },
            "contains_display_name" => Self::DisplayName,
            "room_member_count" => {
                let is = condition.text("is").ok_or("a condition lacks its count")?;
                Self::members(is).ok_or("a condition's count is no number")?
            }
            "sender_notification_permission" => {
                let key = condition.text("key").ok_or("a condition lacks its key")?;
                Self::Permission(key.to_owned())
            }
            _ => return Ok(None),
        };
        Ok(Some(test))
    }

    fn members(is: &str) -> Option<Self> {
        use Ordering::{Equal, Greater, Less};
        let operators: [(&str, &[Ordering]); 5] = [
            ("==", &[Equal]),
            ("<=", &[Less, Equal]),
            (">=", &[Greater, Equal]),
            ("<", &[Less]),
            (">", &[Greater]),
        ];
        let (allowed, count) = operators
            .iter()
            .find_map(|(operator, allowed)| Some((*allowed, is.strip_prefix(operator)?)))
            .unwrap_or((&[Equal], is));
        Some(Self::Members(allowed.to_vec(), count.parse().ok()?))
    }

    /// Whether the answer depends on who is asking.
    pub(super) fn is_personal(&self) -> bool {
        matches!(
            self,
            Self::IsMe(_) | Self::ContainsMe(_) | Self::DisplayName
        )
    }

    /// The answer, if the room alone decides it.
    pub(super) fn in_room(&self, room_id: &str) -> Option<bool> {
        match self {
            Self::Match(Property::RoomId, glob) => {
                Some(glob.matches(room_id, &mut Steps::default()))
            }
            Self::Is(Property::RoomId, expected) => Some(*expected == *room_id),
            Self::Match(Property::Absent(_), _)
            | Self::Is(Property::Absent(_), _)
            | Self::Contains(Property::Absent(_), _)
            | Self::IsMe(Property::Absent(_))
            | Self::ContainsMe(Property::Absent(_)) => Some(false),
            _ => None,
        }
    }

    pub(super) fn holds(
        &self,
        event: &EventFacts<'_>,
        me: Option<&Recipient<'_>>,
        steps: &mut Steps,
    ) -> bool {
        match self {
            Self::Match(property, glob) => event
                .text(property)
                .is_some_and(|text| glob.matches(text, steps)),
            Self::Words(glob) => {
                let body = event.content.get("body").and_then(Value::as_str);
                body.is_some_and(|body| glob.matches_words(body, steps))
            }
            Self::Is(property, expected) => event.is(property, expected),
            Self::Contains(property, expected) => event.array(property).contains(expected),
            Self::IsMe(property) => match (event.text(property), me) {
                (Some(text), Some(me)) => text.chars().map(fold).eq(me.user_id.chars().map(fold)),
                _ => false,
            },
            Self::ContainsMe(property) => {
                let users = event.array(property);
                me.is_some_and(|me| users.iter().any(|user| *user == *me.user_id))
            }
            Self::DisplayName => {
                let body = event.content.get("body").and_then(Value::as_str);
                let name = me.and_then(|me| me.display_name);
                match (
                    body,
                    name.filter(|name| !name.is_empty()).and_then(Glob::literal),
                ) {
                    (Some(body), Some(name)) => name.matches_words(body, steps),
                    _ => false,
                }
            }
            Self::Members(allowed, count) => allowed.contains(&event.joined_members.cmp(count)),
            Self::Permission(key) => event.sender_power_level >= event.required_level(key),
        }
    }

    /// What the fingerprint sees; fixed for good, because fingerprints are stored.
    pub(super) fn encode(&self) -> Value {
        match self {
            Self::Match(property, glob) => json!(["match", property.name(), glob.source()]),
            Self::Words(glob) => json!(["words", glob.source()]),
            Self::Is(property, value) => json!(["is", property.name(), value]),
            Self::Contains(property, value) => json!(["contains", property.name(), value]),
            Self::IsMe(property) => json!(["is_me", property.name()]),
            Self::ContainsMe(property) => json!(["contains_me", property.name()]),
            Self::DisplayName => json!(["display_name"]),
            Self::Members(allowed, count) => {
                let allowed: Vec<i8> = allowed.iter().map(|o| *o as i8).collect();
                json!(["members", allowed, count])
            }
            Self::Permission(key) => json!(["permission", key]),
        }
    }
}

/// Checks a condition that a client sent: known kinds must have their parameters, unknown ones are let be.
pub(super) fn check_condition(condition: &Condition) -> Result<(), &'static str> {
    Test::parse(condition, "").map(|_| ())
}
