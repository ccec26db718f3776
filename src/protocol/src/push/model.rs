//! The parts a ruleset is made of, in the shape clients see.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The five kinds of rule, in the order in which they are checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RuleKind {
    /// The user's highest priority.
    Override,
    /// A pattern in `content.body`.
    Content,
    /// All events of the room that `rule_id` names.
    Room,
    /// All events of the sender that `rule_id` names.
    Sender,
    /// As override, after all others.
    Underride,
}

impl RuleKind {
    /// All kinds, in the order in which they are checked.
    pub const ALL: [Self; 5] = [
        Self::Override,
        Self::Content,
        Self::Room,
        Self::Sender,
        Self::Underride,
    ];

    /// The kind as it stands in the API's paths; `None` for any other word.
    pub fn parse(kind: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|k| k.as_str() == kind)
    }

    /// The name in the API's paths.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Override => "override",
            Self::Content => "content",
            Self::Room => "room",
            Self::Sender => "sender",
            Self::Underride => "underride",
        }
    }
}

/// What a matching rule does: `notify`, or setting a tweak. What else a client sends is kept out by [`Action::parse_all`].
///
/// The historical `dont_notify` and `coalesce` do nothing, as the spec asks; they are only given back to the client that set them.
///
/// <https://spec.matrix.org/v1.19/client-server-api/#actions>
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Action {
    /// `"notify"`.
    Notify(Notify),
    /// `{"set_tweak": …, "value": …}`.
    SetTweak {
        /// The tweak's name, say `sound`.
        set_tweak: String,
        /// Its value, if one is given.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        value: Option<Value>,
    },
    /// `"dont_notify"` or `"coalesce"`.
    Historical(Historical),
}

/// A word that was an action once, and means nothing now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Historical {
    /// Meant not to notify, which a rule without `notify` does anyway.
    DontNotify,
    /// Meant to notify once for many.
    Coalesce,
}

/// The word `notify`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Notify {
    /// The only value.
    #[serde(rename = "notify")]
    Notify,
}

impl Action {
    /// The action `notify`.
    pub const NOTIFY: Self = Self::Notify(Notify::Notify);

    /// Sets `tweak` to `value`.
    pub fn tweak(tweak: &str, value: Option<Value>) -> Self {
        Self::SetTweak {
            set_tweak: tweak.to_owned(),
            value,
        }
    }

    /// Reads a client's list of actions; `None` if one is none the spec knows.
    pub fn parse_all(actions: &[Value]) -> Option<Vec<Self>> {
        actions
            .iter()
            .map(|action| Self::deserialize(action).ok())
            .collect()
    }

    /// Whether this is a `highlight` tweak that isn't `false`.
    pub(super) fn highlights(&self) -> bool {
        match self {
            Self::Notify(_) | Self::Historical(_) => false,
            Self::SetTweak { set_tweak, value } => {
                set_tweak == "highlight" && *value != Some(Value::Bool(false))
            }
        }
    }
}

/// A condition as it was sent, so that what only clients understand survives.
///
/// <https://spec.matrix.org/v1.19/client-server-api/#conditions-1>
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Condition(pub(super) Map<String, Value>);

impl Condition {
    /// A condition of this kind with these parameters.
    pub(super) fn new<const N: usize>(kind: &str, parameters: [(&str, Value); N]) -> Self {
        let kind = ("kind".to_owned(), Value::from(kind));
        let parameters = parameters.map(|(key, value)| (key.to_owned(), value));
        Self([kind].into_iter().chain(parameters).collect())
    }

    /// The parameter `name`, if it is a string.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).and_then(Value::as_str)
    }
}

/// One rule, as clients see it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rule {
    /// Unique within its kind.
    pub rule_id: String,
    /// Whether the server made it.
    pub default: bool,
    /// A rule that isn't enabled never matches.
    pub enabled: bool,
    /// What happens when it matches.
    pub actions: Vec<Action>,
    /// Override and underride rules: what must all hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conditions: Option<Vec<Condition>>,
    /// Content rules: the glob that must occur in `content.body`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pattern: Option<String>,
}

/// All rules of a user, by kind, highest priority first: the `global` of `m.push_rules`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Ruleset {
    /// Override rules.
    #[serde(rename = "override", default)]
    pub override_: Vec<Rule>,
    /// Content rules.
    #[serde(default)]
    pub content: Vec<Rule>,
    /// Room rules.
    #[serde(default)]
    pub room: Vec<Rule>,
    /// Sender rules.
    #[serde(default)]
    pub sender: Vec<Rule>,
    /// Underride rules.
    #[serde(default)]
    pub underride: Vec<Rule>,
}

impl Ruleset {
    /// The rules of one kind, highest priority first.
    pub fn kind(&self, kind: RuleKind) -> &[Rule] {
        match kind {
            RuleKind::Override => &self.override_,
            RuleKind::Content => &self.content,
            RuleKind::Room => &self.room,
            RuleKind::Sender => &self.sender,
            RuleKind::Underride => &self.underride,
        }
    }

    pub(super) fn kind_mut(&mut self, kind: RuleKind) -> &mut Vec<Rule> {
        match kind {
            RuleKind::Override => &mut self.override_,
            RuleKind::Content => &mut self.content,
            RuleKind::Room => &mut self.room,
            RuleKind::Sender => &mut self.sender,
            RuleKind::Underride => &mut self.underride,
        }
    }

    /// One rule.
    pub fn get(&self, kind: RuleKind, rule_id: &str) -> Option<&Rule> {
        self.kind(kind).iter().find(|rule| rule.rule_id == rule_id)
    }
}
