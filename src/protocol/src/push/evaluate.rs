//! Judging an event by compiled rules.

use std::{cmp::Ordering, sync::Arc};

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::{
    edit::UserRules,
    glob::{Glob, Steps, fold},
    model::{Action, Condition, Rule, RuleKind},
};

/// What a rule that matched does to the unread counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Verdict {
    /// Counts as a notification.
    pub notify: bool,
    /// Counts as a highlight too; never without `notify`.
    pub highlight: bool,
}

impl Verdict {
    fn of(actions: &[Action]) -> Self {
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

    fn text(&self, property: &Property) -> Option<&'a str> {
        match property {
            Property::Type => Some(self.event_type),
            Property::Sender => Some(self.sender),
            Property::RoomId => Some(self.room_id),
            Property::StateKey => self.state_key,
            Property::Content(path) => self.content(path)?.as_str(),
            Property::Absent(_) => None,
        }
    }

    fn content(&self, path: &[String]) -> Option<&'a Value> {
        let (first, rest) = path.split_first()?;
        let value = self.content.get(first)?;
        rest.iter().try_fold(value, |value, name| value.get(name))
    }

    fn is(&self, property: &Property, expected: &Value) -> bool {
        match property {
            Property::Content(path) => self.content(path) == Some(expected),
            _ => self.text(property).is_some_and(|text| *expected == *text),
        }
    }

    fn array(&self, property: &Property) -> &'a [Value] {
        match property {
            Property::Content(path) => self.content(path).and_then(Value::as_array),
            _ => None,
        }
        .map_or(&[], Vec::as_slice)
    }

    fn required_level(&self, key: &str) -> i64 {
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

/// A property of an event that a condition names.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Property {
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
    /// <https://spec.matrix.org/v1.19/appendices/#dot-separated-property-paths>
    fn parse(key: &str) -> Self {
        let mut path = vec![String::new()];
        let mut chars = key.chars().peekable();
        while let Some(c) = chars.next() {
            let literal = match c {
                '.' => {
                    path.push(String::new());
                    continue;
                }
                '\\' => chars.next_if(|c| matches!(c, '.' | '\\')).unwrap_or('\\'),
                c => c,
            };
            if let Some(name) = path.last_mut() {
                name.push(literal);
            }
        }
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
enum Test {
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
    fn parse(condition: &Condition, user_id: &str) -> Result<Option<Self>, &'static str> {
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
    fn is_personal(&self) -> bool {
        matches!(
            self,
            Self::IsMe(_) | Self::ContainsMe(_) | Self::DisplayName
        )
    }

    /// The answer, if the room alone decides it.
    fn in_room(&self, room_id: &str) -> Option<bool> {
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

    fn holds(&self, event: &EventFacts<'_>, me: Option<&Recipient<'_>>, steps: &mut Steps) -> bool {
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
    fn encode(&self) -> Value {
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

#[derive(Clone, Debug, PartialEq)]
struct CompiledRule {
    tests: Vec<Test>,
    verdict: Verdict,
    /// Whether the user made it.
    own: bool,
}

impl CompiledRule {
    fn new(kind: RuleKind, rule: &Rule, user_id: &str) -> Option<Self> {
        if !rule.enabled {
            return None;
        }
        let named = || Value::from(rule.rule_id.as_str());
        let tests = match kind {
            RuleKind::Override | RuleKind::Underride => {
                let conditions = rule.conditions.iter().flatten();
                // An unknown condition never holds, nor does one that no longer compiles.
                conditions
                    .map(|condition| Test::parse(condition, user_id).ok().flatten())
                    .collect::<Option<_>>()?
            }
            RuleKind::Content => vec![Test::Words(Glob::new(rule.pattern.as_deref()?)?)],
            RuleKind::Room => vec![Test::Is(Property::RoomId, named())],
            RuleKind::Sender => vec![Test::Is(Property::Sender, named())],
        };
        Some(Self {
            tests,
            verdict: Verdict::of(&rule.actions),
            own: !rule.default,
        })
    }

    /// What is left of the rule in this room; `None` if it can't match there.
    fn in_room(self: &Arc<Self>, room_id: &str) -> Option<Arc<Self>> {
        let decided: Vec<_> = self.tests.iter().map(|t| t.in_room(room_id)).collect();
        if decided.contains(&Some(false)) {
            return None;
        }
        if decided.iter().all(Option::is_none) {
            return Some(Arc::clone(self));
        }
        let open = self.tests.iter().zip(decided).filter(|(_, d)| d.is_none());
        Some(Arc::new(Self {
            tests: open.map(|(test, _)| test.clone()).collect(),
            ..**self
        }))
    }

    /// Whether it may treat members with otherwise equal rules apart.
    fn is_personal(&self) -> bool {
        !self.tests.is_empty() && (self.own || self.tests.iter().any(Test::is_personal))
    }

    fn matches(
        &self,
        event: &EventFacts<'_>,
        me: Option<&Recipient<'_>>,
        steps: &mut Steps,
    ) -> bool {
        self.tests.iter().all(|test| test.holds(event, me, steps))
    }
}

/// A user's ruleset, compiled. Holds nothing of the user but what their own rules say, so users without such can share one.
#[derive(Clone, Debug)]
pub struct CompiledRules {
    rules: Vec<Arc<CompiledRule>>,
}

impl CompiledRules {
    /// Compiles the rules of `user_id`.
    pub fn new(rules: &UserRules, user_id: &str) -> Self {
        let ruleset = rules.ruleset(user_id);
        let rules = RuleKind::ALL.into_iter().flat_map(|kind| {
            let rules = ruleset.kind(kind).iter();
            rules.filter_map(move |rule| CompiledRule::new(kind, rule, user_id))
        });
        Self {
            rules: rules.map(Arc::new).collect(),
        }
    }

    /// The rules as they work in one room.
    pub fn in_room(&self, room_id: &str) -> RoomRules {
        let mut rules = Vec::new();
        for rule in self.rules.iter().filter_map(|rule| rule.in_room(room_id)) {
            let last = rule.tests.is_empty();
            rules.push(rule);
            if last {
                break;
            }
        }
        let shared = rules.iter().filter(|rule| !rule.is_personal()).cloned();
        let shared = SharedRules::new(shared.collect());
        RoomRules { rules, shared }
    }
}

/// Names a program of shared rules: equal fingerprints, equal verdicts. May be stored.
pub type Fingerprint = [u8; 16];

/// The part of a user's rules that treats all members alike, in one room.
#[derive(Clone, Debug)]
pub struct SharedRules {
    rules: Vec<Arc<CompiledRule>>,
    fingerprint: Fingerprint,
}

impl SharedRules {
    fn new(mut rules: Vec<Arc<CompiledRule>>) -> Self {
        // What stays silent at the end does the same as no rule.
        while rules
            .pop_if(|rule| rule.verdict == Verdict::default())
            .is_some()
        {}
        let program: Value = rules
            .iter()
            .map(|rule| {
                let tests: Value = rule.tests.iter().map(Test::encode).collect();
                json!([rule.verdict.notify, rule.verdict.highlight, tests])
            })
            .collect();
        let hash = Sha256::digest(program.to_string());
        let mut fingerprint = Fingerprint::default();
        for (byte, hashed) in fingerprint.iter_mut().zip(hash) {
            *byte = hashed;
        }
        Self { rules, fingerprint }
    }

    /// The program's name.
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// What the event is to everybody with these rules but its sender and those whom [`RoomRules::verdict`] treats apart.
    pub fn verdict(&self, event: &EventFacts<'_>) -> Verdict {
        first(&self.rules, event, None)
    }
}

/// Judges an event once for each program: the verdicts, in the order of `programs`.
pub fn classify(event: &EventFacts<'_>, programs: &[&SharedRules]) -> Vec<Verdict> {
    programs
        .iter()
        .map(|shared| shared.verdict(event))
        .collect()
}

/// A user's rules, narrowed to one room.
#[derive(Clone, Debug)]
pub struct RoomRules {
    rules: Vec<Arc<CompiledRule>>,
    shared: SharedRules,
}

impl RoomRules {
    /// The part that is the same for many users.
    pub fn shared(&self) -> &SharedRules {
        &self.shared
    }

    /// Whether rules of the user's own look into events here. If not, their verdict differs from the shared one only for
    /// events that name them ([`EventFacts::named_users`]).
    pub fn watches_every_event(&self) -> bool {
        self.rules.iter().any(|rule| {
            let by_name = |test: &Test| matches!(test, Test::IsMe(_) | Test::ContainsMe(_));
            rule.is_personal() && (rule.own || !rule.tests.iter().any(by_name))
        })
    }

    /// What the event is to this user: the first rule that matches says. Nothing, if it is their own.
    pub fn verdict(&self, event: &EventFacts<'_>, me: &Recipient<'_>) -> Verdict {
        if event.sender == me.user_id {
            return Verdict::default();
        }
        first(&self.rules, event, Some(me))
    }
}

fn first(
    rules: &[Arc<CompiledRule>],
    event: &EventFacts<'_>,
    me: Option<&Recipient<'_>>,
) -> Verdict {
    let mut steps = Steps::default();
    let matching = rules
        .iter()
        .find(|rule| rule.matches(event, me, &mut steps));
    matching.map_or_else(Verdict::default, |rule| rule.verdict)
}

#[cfg(test)]
mod tests {
    use super::{
        super::edit::{NewRule, Position},
        *,
    };

    const QUIET: Verdict = Verdict {
        notify: false,
        highlight: false,
    };
    const NOTIFY: Verdict = Verdict {
        notify: true,
        highlight: false,
    };
    const HIGHLIGHT: Verdict = Verdict {
        notify: true,
        highlight: true,
    };

    const ME: Recipient<'static> = Recipient {
        user_id: "@me:x",
        display_name: Some("Me (2*)"),
    };

    fn rule(rules: &mut UserRules, kind: RuleKind, id: &str, body: Value) {
        let body: NewRule = serde_json::from_value(body).unwrap();
        rules.put(kind, id, body, &Position::default()).unwrap();
    }

    fn condition(condition: Value) -> Value {
        json!({"conditions": [condition], "actions": ["notify", {"set_tweak": "highlight"}]})
    }

    fn facts<'a>(
        event_type: &'a str,
        state_key: Option<&'a str>,
        content: &'a Value,
    ) -> EventFacts<'a> {
        EventFacts {
            event_type,
            sender: "@you:x",
            room_id: "!room:x",
            state_key,
            content: content.as_object().unwrap(),
            joined_members: 3,
            sender_power_level: 0,
            notification_levels: None,
        }
    }

    fn judge(rules: &UserRules, event: &EventFacts<'_>) -> Verdict {
        CompiledRules::new(rules, ME.user_id)
            .in_room(event.room_id)
            .verdict(event, &ME)
    }

    /// What the default rules say of one event each.
    #[test]
    fn the_default_rules_judge_as_the_spec_says() {
        let text = |body: &str| json!({"msgtype": "m.text", "body": body});
        let mention = |user: &str| json!({"msgtype": "m.text", "body": "", "m.mentions": {"user_ids": [user]}});
        let room = json!({"body": "", "m.mentions": {"room": true}});
        let edit = json!({"body": "", "m.relates_to": {"rel_type": "m.replace"}, "m.mentions": {}});
        let rules = UserRules::default();
        for (event_type, state_key, content, expected) in [
            ("m.room.message", None, text("hi me"), NOTIFY),
            (
                "m.room.message",
                None,
                json!({"msgtype": "m.notice"}),
                QUIET,
            ),
            ("m.room.message", None, mention("@me:x"), HIGHLIGHT),
            ("m.room.message", None, mention("@ME:x"), NOTIFY),
            ("m.room.message", None, room.clone(), NOTIFY),
            ("m.room.message", None, edit, QUIET),
            ("m.room.encrypted", None, json!({}), NOTIFY),
            ("m.reaction", None, json!({}), QUIET),
            ("m.call.invite", None, json!({}), NOTIFY),
            (
                "m.room.member",
                Some("@me:x"),
                json!({"membership": "invite"}),
                NOTIFY,
            ),
            (
                "m.room.member",
                Some("@you:x"),
                json!({"membership": "invite"}),
                QUIET,
            ),
            ("m.room.tombstone", Some(""), json!({}), HIGHLIGHT),
            ("m.room.tombstone", None, json!({}), QUIET),
            ("m.room.server_acl", Some(""), json!({}), QUIET),
            ("m.room.topic", Some(""), json!({}), QUIET),
        ] {
            let event = facts(event_type, state_key, &content);
            assert_eq!(judge(&rules, &event), expected, "{event_type} {content}");
            let own = EventFacts {
                sender: ME.user_id,
                ..event
            };
            assert_eq!(judge(&rules, &own), QUIET, "their own {event_type}");
        }
        let mut event = facts("m.room.message", None, &room);
        event.sender_power_level = 50;
        assert_eq!(judge(&rules, &event), HIGHLIGHT);
        let levels = json!({"room": "51"});
        event.notification_levels = levels.as_object();
        assert_eq!(judge(&rules, &event), NOTIFY);
    }

    /// One condition each, as the only rule above the defaults.
    #[test]
    fn conditions_hold_as_the_spec_says() {
        let content = json!({
            "body": "Cake for me (2*)!", "n": 1, "yes": true, "none": null, "a.b": {"c\\d": "deep"},
            "list": ["x", 2, null, {"no": 1}], "object": {},
        });
        let event = facts("m.custom", None, &content);
        let matching = |key: &str, pattern: &str| json!({"kind": "event_match", "key": key, "pattern": pattern});
        let is = |key: &str, value: Value| json!({"kind": "event_property_is", "key": key, "value": value});
        let contains = |key: &str, value: Value| json!({"kind": "event_property_contains", "key": key, "value": value});
        let members = |is: &str| json!({"kind": "room_member_count", "is": is});
        for (tested, expected) in [
            (matching("type", "M.cust?m"), true),
            (matching("type", "custom"), false),
            (matching("content.body", "cake"), true),
            (matching("content.body", "cak"), false),
            (matching("content.n", "*"), false),
            (matching("content.a\\.b.c\\\\d", "d*p"), true),
            (matching("content.a\\.b.c\\d", "d*p"), true),
            (matching("content.absent", "*"), false),
            (matching("state_key", "*"), false),
            (matching("room_id", "!room:*"), true),
            (matching("sender", "@you:x"), true),
            (matching("origin_server_ts", "*"), false),
            (is("content.n", json!(1)), true),
            (is("content.n", json!("1")), false),
            (is("content.yes", json!(true)), true),
            (is("content.none", json!(null)), true),
            (is("content.absent", json!(null)), false),
            (is("sender", json!("@you:x")), true),
            (is("sender", json!("@YOU:x")), false),
            (contains("content.list", json!("x")), true),
            (contains("content.list", json!(2)), true),
            (contains("content.list", json!(null)), true),
            (contains("content.list", json!("y")), false),
            (contains("content.body", json!("cake")), false),
            (json!({"kind": "contains_display_name"}), true),
            (members("3"), true),
            (members("==3"), true),
            (members("<4"), true),
            (members("<3"), false),
            (members("<=3"), true),
            (members(">3"), false),
            (members(">=3"), true),
            (
                json!({"kind": "sender_notification_permission", "key": "room"}),
                false,
            ),
            (json!({"kind": "org.example.new", "x": {}}), false),
        ] {
            let mut rules = UserRules::default();
            rule(
                &mut rules,
                RuleKind::Override,
                "tested",
                condition(tested.clone()),
            );
            let expected = if expected { HIGHLIGHT } else { QUIET };
            assert_eq!(judge(&rules, &event), expected, "{tested}");
        }
        assert!(
            serde_json::from_value::<Condition>(members("three"))
                .is_ok_and(|c| check_condition(&c).is_err())
        );
    }

    #[test]
    fn kinds_are_checked_in_order() {
        let content = json!({"body": "tea"});
        let event = facts("m.room.message", None, &content);
        let mut rules = UserRules::default();
        rule(
            &mut rules,
            RuleKind::Underride,
            "u",
            json!({"actions": [], "conditions": []}),
        );
        assert_eq!(judge(&rules, &event), QUIET);
        rule(
            &mut rules,
            RuleKind::Sender,
            "@you:x",
            json!({"actions": ["notify"]}),
        );
        assert_eq!(judge(&rules, &event), NOTIFY);
        rule(
            &mut rules,
            RuleKind::Room,
            "!room:x",
            json!({"actions": []}),
        );
        assert_eq!(judge(&rules, &event), QUIET);
        let highlight = json!({"actions": ["notify", {"set_tweak": "highlight", "value": true}], "pattern": "tea"});
        rule(&mut rules, RuleKind::Content, "tea", highlight);
        assert_eq!(judge(&rules, &event), HIGHLIGHT);
        rules
            .set_enabled(RuleKind::Override, ".m.rule.master", true)
            .unwrap();
        assert_eq!(judge(&rules, &event), QUIET);
    }

    /// Members muted in whichever way share one program; their other rules don't matter.
    #[test]
    fn equal_rules_have_equal_fingerprints() {
        let plain = UserRules::default();
        let mut by_room = UserRules::default();
        rule(
            &mut by_room,
            RuleKind::Room,
            "!room:x",
            json!({"actions": []}),
        );
        let mut by_override = UserRules::default();
        let muted = json!({
            "actions": ["dont_notify"],
            "conditions": [{"kind": "event_match", "key": "room_id", "pattern": "!room:x"}],
        });
        rule(&mut by_override, RuleKind::Override, "!room:x", muted);
        let mut master = UserRules::default();
        master
            .set_enabled(RuleKind::Override, ".m.rule.master", true)
            .unwrap();
        let mut keyword = UserRules::default();
        rule(
            &mut keyword,
            RuleKind::Content,
            "tea",
            json!({"actions": ["notify"], "pattern": "tea"}),
        );

        let print = |rules: &UserRules, user: &str, room: &str| {
            CompiledRules::new(rules, user)
                .in_room(room)
                .shared()
                .fingerprint()
        };
        let default = print(&plain, "@a:x", "!room:x");
        for (rules, user, room) in [
            (&plain, "@b:x", "!other:x"),
            (&by_room, "@a:x", "!other:x"),
            (&by_override, "@a:x", "!other:x"),
            (&keyword, "@a:x", "!room:x"),
        ] {
            assert_eq!(print(rules, user, room), default);
        }
        let muted = print(&by_override, "@a:x", "!room:x");
        assert_eq!(print(&master, "@c:x", "!room:x"), muted);
        assert_ne!(muted, default);
        assert_ne!(print(&by_room, "@b:x", "!room:x"), default);
    }

    /// The shared verdict is everybody's, but for those the event names and those with rules of their own.
    #[test]
    fn shared_verdicts_stand_for_all_who_are_not_named() {
        let mut keyword = UserRules::default();
        let highlight =
            json!({"actions": ["notify", {"set_tweak": "highlight"}], "pattern": "tea"});
        rule(&mut keyword, RuleKind::Content, "tea", highlight);
        let compile = |rules| CompiledRules::new(rules, ME.user_id).in_room("!room:x");
        let (plain, keyword) = (compile(&UserRules::default()), compile(&keyword));
        assert!(!plain.watches_every_event());
        assert!(keyword.watches_every_event());

        let content = json!({"body": "tea", "m.mentions": {"user_ids": ["@me:x", "@her:x"]}});
        let event = facts("m.room.message", None, &content);
        assert_eq!(event.named_users().collect::<Vec<_>>(), ["@me:x", "@her:x"]);
        assert_eq!(
            classify(&event, &[plain.shared(), keyword.shared()]),
            [NOTIFY, NOTIFY]
        );
        assert_eq!(plain.verdict(&event, &ME), HIGHLIGHT);
        let other = Recipient {
            user_id: "@other:x",
            display_name: None,
        };
        assert_eq!(plain.verdict(&event, &other), NOTIFY);
        assert_eq!(keyword.verdict(&event, &other), HIGHLIGHT);
    }

    /// G6: one event costs a ruleset no more than its budget, however many patterns look into it.
    #[test]
    fn g6_a_ruleset_of_many_patterns_stays_in_budget() {
        let mut rules = UserRules::default();
        for n in 0..400 {
            let pattern = format!("{}b{n}", "a*".repeat(200));
            rule(
                &mut rules,
                RuleKind::Content,
                &n.to_string(),
                json!({"actions": ["notify"], "pattern": pattern}),
            );
        }
        let content = json!({"body": "a".repeat(60_000)});
        let event = facts("m.custom", None, &content);
        assert_eq!(judge(&rules, &event), QUIET);
    }
}
