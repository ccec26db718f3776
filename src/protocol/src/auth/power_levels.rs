//! Power levels: what `m.room.power_levels` says, and who may do what by it.

use std::collections::BTreeMap;

use serde_json::{Map, Number, Value};

use super::Create;
use super::content::read_object;
use crate::id::UserId;
use crate::room_version::RoomVersionRules;

/// A user's power. Room creators stand above every number from room version 12.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum UserLevel {
    /// A number given by the power levels or their defaults.
    Level(i64),
    /// A creator's.
    Infinite,
}

impl UserLevel {
    /// Whether this suffices where `required` is asked for.
    pub fn reaches(self, required: i64) -> bool {
        self >= Self::Level(required)
    }
}

/// The single numbers of `m.room.power_levels`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LevelField {
    /// `users_default`
    UsersDefault,
    /// `events_default`
    EventsDefault,
    /// `state_default`
    StateDefault,
    /// `ban`
    Ban,
    /// `redact`
    Redact,
    /// `kick`
    Kick,
    /// `invite`
    Invite,
}

impl LevelField {
    /// All of them, in the order the rules name them.
    pub const ALL: [Self; 7] = [
        Self::UsersDefault,
        Self::EventsDefault,
        Self::StateDefault,
        Self::Ban,
        Self::Redact,
        Self::Kick,
        Self::Invite,
    ];

    /// Its name in the content.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::UsersDefault => "users_default",
            Self::EventsDefault => "events_default",
            Self::StateDefault => "state_default",
            Self::Ban => "ban",
            Self::Redact => "redact",
            Self::Kick => "kick",
            Self::Invite => "invite",
        }
    }

    /// What holds while the content doesn't say
    /// ([spec](https://spec.matrix.org/v1.19/client-server-api/#mroompower_levels)).
    pub fn default_level(self) -> i64 {
        match self {
            Self::UsersDefault | Self::EventsDefault | Self::Invite => 0,
            Self::StateDefault | Self::Ban | Self::Redact | Self::Kick => 50,
        }
    }
}

/// How a room version lets levels be written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Format {
    /// Integers, strings of digits, and floats, which are cut at the point.
    Lax,
    /// Integers and strings of digits.
    Strings,
    /// Integers only.
    Integers,
}

impl Format {
    fn of(rules: &RoomVersionRules) -> Self {
        match (rules.integer_power_levels, rules.strict_canonical_json) {
            (true, _) => Self::Integers,
            (false, true) => Self::Strings,
            (false, false) => Self::Lax,
        }
    }
}

/// A `m.room.power_levels` content that can't be read by its room version's rules.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` in m.room.power_levels is not what the room version allows")]
pub struct UnreadableLevels(pub &'static str);

/// The content of `m.room.power_levels`, its numbers read as the room version reads them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PowerLevelsContent {
    /// The single numbers that are given.
    pub fields: BTreeMap<LevelField, i64>,
    /// `events`: by event type.
    pub events: BTreeMap<String, i64>,
    /// `notifications`: by kind.
    pub notifications: BTreeMap<String, i64>,
    /// `users`: by user id.
    pub users: BTreeMap<String, i64>,
}

impl PowerLevelsContent {
    /// Reads a content under a room version's rules.
    ///
    /// Stricter than the letter of versions 1–9 in one thing: a number there that is neither an
    /// integer nor a well-formed string can't be compared, so it is refused in `events` and the
    /// single fields too, not only in `users`. `notifications` counts only where rules read it.
    ///
    /// # Errors
    /// The first property that isn't what the version allows.
    pub fn read(rules: &RoomVersionRules, content: &str) -> Result<Self, UnreadableLevels> {
        let format = Format::of(rules);
        let content = &read_object(content).ok_or(UnreadableLevels("content"))?;
        let mut fields = BTreeMap::new();
        for field in LevelField::ALL {
            if let Some(value) = content.get(field.as_str()) {
                fields.insert(
                    field,
                    read_level(format, value).ok_or(UnreadableLevels(field.as_str()))?,
                );
            }
        }
        let users = read_levels(format, content, "users")?;
        if users
            .keys()
            .any(|user| <&UserId>::try_from(user.as_str()).is_err())
        {
            return Err(UnreadableLevels("users"));
        }
        let notifications = match read_levels(format, content, "notifications") {
            Err(unreadable) if rules.limit_notification_levels => return Err(unreadable),
            other => other.unwrap_or_default(),
        };
        Ok(Self {
            fields,
            events: read_levels(format, content, "events")?,
            notifications,
            users,
        })
    }

    /// A single number, or its default.
    pub fn field(&self, field: LevelField) -> i64 {
        self.fields
            .get(&field)
            .copied()
            .unwrap_or_else(|| field.default_level())
    }
}

fn read_levels(
    format: Format,
    content: &Map<String, Value>,
    property: &'static str,
) -> Result<BTreeMap<String, i64>, UnreadableLevels> {
    let Some(value) = content.get(property) else {
        return Ok(BTreeMap::new());
    };
    let object = value.as_object().ok_or(UnreadableLevels(property))?;
    object
        .iter()
        .map(|(key, value)| Some((key.clone(), read_level(format, value)?)))
        .collect::<Option<_>>()
        .ok_or(UnreadableLevels(property))
}

fn read_level(format: Format, value: &Value) -> Option<i64> {
    match value {
        Value::Number(number) => read_number(format, number),
        Value::String(text) if format != Format::Integers => read_text(text),
        _ => None,
    }
}

/// A number, held at the ends of `i64`; a float loses what is behind its point.
fn read_number(format: Format, number: &Number) -> Option<i64> {
    if let Some(level) = number.as_i64() {
        return Some(level);
    }
    if number.is_u64() {
        return Some(i64::MAX);
    }
    // `as` cuts towards zero and holds at the ends, which is what the spec asks for.
    #[allow(clippy::cast_possible_truncation)]
    (format == Format::Lax).then(|| number.as_f64().map(|float| float as i64))?
}

/// Digits with an optional sign and white space around
/// ([spec](https://spec.matrix.org/v1.19/rooms/v9/#mroompower_levels-events-accept-values-as-strings)).
fn read_text(text: &str) -> Option<i64> {
    let text = text.trim();
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let held = if negative { i64::MIN } else { i64::MAX };
    let magnitude = digits
        .parse::<i64>()
        .map(|level| if negative { -level } else { level });
    Some(magnitude.unwrap_or(held))
}

/// Who may do what in a room: its power levels seen together with its creators.
#[derive(Clone, Copy, Debug)]
pub struct PowerLevels<'a> {
    create: Option<&'a Create>,
    content: Option<&'a PowerLevelsContent>,
}

impl<'a> PowerLevels<'a> {
    /// The levels of a room with that create event and, if there is one, that power levels event.
    pub fn new(create: Option<&'a Create>, content: Option<&'a PowerLevelsContent>) -> Self {
        Self { create, content }
    }

    /// A user's level. Without a power levels event the creator has 100, everybody else 0.
    pub fn user(self, user: &str) -> UserLevel {
        if self
            .create
            .is_some_and(|create| create.privileged.contains(user))
        {
            return UserLevel::Infinite;
        }
        UserLevel::Level(match self.content {
            Some(content) => content
                .users
                .get(user)
                .copied()
                .unwrap_or_else(|| content.field(LevelField::UsersDefault)),
            None if self.create.and_then(|create| create.creator.as_deref()) == Some(user) => 100,
            None => LevelField::UsersDefault.default_level(),
        })
    }

    /// A single number of the content or its default, the *ban level* for instance.
    pub fn field(&self, field: LevelField) -> i64 {
        self.content
            .map_or_else(|| field.default_level(), |content| content.field(field))
    }

    /// The [required power level](https://spec.matrix.org/v1.19/server-server-api/#definitions)
    /// to send an event of a type, as a state event or not.
    pub fn to_send(self, event_type: &str, is_state: bool) -> i64 {
        let listed = self
            .content
            .and_then(|content| content.events.get(event_type))
            .copied();
        listed.unwrap_or_else(|| {
            self.field(if is_state {
                LevelField::StateDefault
            } else {
                LevelField::EventsDefault
            })
        })
    }

    /// The level required to trigger a notification of that kind (`room`); 50 if unspecified.
    pub fn notification(self, kind: &str) -> i64 {
        self.content
            .and_then(|content| content.notifications.get(kind))
            .copied()
            .unwrap_or(50)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::room_version::RoomVersion;

    /// Threat D4: what counts as a number, version by version.
    #[test]
    fn d4_levels_are_read_as_the_version_reads_them() {
        // JSON, and its value in versions 1–5, 6–9 and from 10.
        let table = [
            ("50", Some(50), Some(50), Some(50)),
            ("-1", Some(-1), Some(-1), Some(-1)),
            ("\"50\"", Some(50), Some(50), None),
            ("\" +00050 \"", Some(50), Some(50), None),
            ("\"-100\"", Some(-100), Some(-100), None),
            ("\"- 100\"", None, None, None),
            ("\"+-5\"", None, None, None),
            ("\"++5\"", None, None, None),
            ("\"\"", None, None, None),
            ("\"5.0\"", None, None, None),
            ("\"1e2\"", None, None, None),
            ("\"0x10\"", None, None, None),
            ("\"1_000\"", None, None, None),
            ("50.57", Some(50), None, None),
            ("-50.57", Some(-50), None, None),
            ("5.114698E4", Some(51146), None, None),
            ("1e300", Some(i64::MAX), None, None),
            ("99999999999999999999", Some(i64::MAX), None, None),
            (
                "\"99999999999999999999\"",
                Some(i64::MAX),
                Some(i64::MAX),
                None,
            ),
            (
                "\"-99999999999999999999\"",
                Some(i64::MIN),
                Some(i64::MIN),
                None,
            ),
            ("1e400", None, None, None),
            ("true", None, None, None),
            ("null", None, None, None),
            ("[50]", None, None, None),
            ("{}", None, None, None),
        ];
        for (json, lax, strings, integers) in &table {
            for version in RoomVersion::ALL {
                let expected = match version.as_str().parse::<u8>().unwrap() {
                    ..=5 => lax,
                    6..=9 => strings,
                    _ => integers,
                };
                for property in ["ban", "users", "events"] {
                    let content = match property {
                        "ban" => format!(r#"{{"ban":{json}}}"#),
                        property => format!(r#"{{"{property}":{{"@a:b":{json}}}}}"#),
                    };
                    let read = PowerLevelsContent::read(version.rules(), &content).ok();
                    let level = read.and_then(|content| match property {
                        "ban" => content.fields.get(&LevelField::Ban).copied(),
                        "users" => content.users.get("@a:b").copied(),
                        _ => content.events.get("@a:b").copied(),
                    });
                    assert_eq!(level, *expected, "{property} {json} in {version}");
                }
            }
        }
    }

    /// `notifications` is read where the rules compare it, and can't spoil an event elsewhere.
    #[test]
    fn notifications_count_from_version_6() {
        for version in RoomVersion::ALL {
            let rules = version.rules();
            let read = PowerLevelsContent::read(rules, r#"{"notifications":{"room":[]}}"#);
            assert_eq!(read.is_err(), rules.limit_notification_levels, "{version}");
        }
    }

    #[test]
    fn users_are_user_ids() {
        let rules = RoomVersion::V12.rules();
        assert!(PowerLevelsContent::read(rules, r#"{"users":{"@a:b":1}}"#).is_ok());
        for content in [
            r#"{"users":{"a":1}}"#,
            r#"{"users":{"@a":1}}"#,
            r#"{"users":[]}"#,
            "[]",
            "",
        ] {
            assert!(
                PowerLevelsContent::read(rules, content).is_err(),
                "{content}"
            );
        }
    }

    #[test]
    fn creators_stand_above_all_levels_from_version_12() {
        let sender = <&UserId>::try_from("@a:b").unwrap();
        let content = r#"{"creator":"@a:b","additional_creators":["@c:d"]}"#;
        for version in RoomVersion::ALL {
            let rules = version.rules();
            let create = Create::read(rules, sender, content);
            let no_levels = PowerLevels::new(Some(&create), None);
            let given = PowerLevelsContent::read(rules, r#"{"users_default":7}"#).unwrap();
            let given = PowerLevels::new(Some(&create), Some(&given));
            let levels = [
                no_levels.user("@a:b"),
                no_levels.user("@c:d"),
                given.user("@c:d"),
            ];
            let expected = if version == RoomVersion::V12 {
                [UserLevel::Infinite; 3]
            } else {
                [100, 0, 7].map(UserLevel::Level)
            };
            assert_eq!(levels, expected, "{version}");
        }
        assert!(UserLevel::Infinite.reaches(i64::MAX));
    }
}
