//! What a user made of their rules, and every way to change it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{
    condition,
    defaults::{MASTER, defaults},
    glob::MAX_GLOB_BYTES,
    model::{Action, Condition, Rule, RuleKind, Ruleset},
};

/// Most rules a user may make.
pub const MAX_RULES: usize = 10_000;
/// Most bytes all of a user's patterns may have together: what compiling them may cost in memory.
pub const MAX_PATTERN_BYTES: usize = 256 * 1024;
const MAX_ID_BYTES: usize = 512;
const MAX_CONDITIONS: usize = 64;
const MAX_ACTIONS: usize = 64;

/// Why an edit was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RuleError {
    /// There is no such rule.
    #[error("The push rule was not found.")]
    NotFound,
    /// Ids that start with a dot are the server's.
    #[error("Rule ids that start with '.' belong to the server.")]
    ServerDefault,
    /// The id has characters that may not be in it, is empty, or is too long.
    #[error("The rule id is empty, too long, or has '/' or '\\' in it.")]
    InvalidId,
    /// `before` or `after` names no rule of the user's own.
    #[error("before/after rule not found: {0}")]
    RelativeNotFound(String),
    /// The rule's body can't be used.
    #[error("Invalid push rule: {0}")]
    Invalid(&'static str),
    /// The user has as many rules, or patterns, as they may have.
    #[error("Too many push rules.")]
    TooMany,
}

impl RuleError {
    /// The HTTP status and error code for a client.
    pub fn errcode(&self) -> (u16, &'static str) {
        match self {
            Self::NotFound => (404, "M_NOT_FOUND"),
            Self::ServerDefault | Self::InvalidId => (400, "M_INVALID_PARAM"),
            Self::RelativeNotFound(_) => (400, "M_UNKNOWN"),
            Self::Invalid(_) => (400, "M_BAD_JSON"),
            Self::TooMany => (400, "M_TOO_LARGE"),
        }
    }
}

/// Where a rule goes among the user's own of its kind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// Make it next more important than this rule. Counts more than `after`.
    pub before: Option<String>,
    /// Make it next less important than this rule.
    pub after: Option<String>,
}

/// The body of a request to make or change a rule.
#[derive(Clone, Debug, Deserialize)]
pub struct NewRule {
    /// What happens when it matches.
    pub actions: Vec<serde_json::Value>,
    /// Override and underride rules only.
    #[serde(default)]
    pub conditions: Vec<Condition>,
    /// Content rules only, and needed there.
    #[serde(default)]
    pub pattern: Option<String>,
}

/// What is stored of a user's push rules; an absent row is the default value.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct UserRules {
    own: Ruleset,
    #[serde(default)]
    changed: BTreeMap<RuleKind, BTreeMap<String, Change>>,
}

/// What a user changed in a server-default rule.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Change {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    enabled: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    actions: Option<Vec<Action>>,
}

impl UserRules {
    /// The whole ruleset as `user_id` sees it: master rule, own rules, server defaults.
    pub fn ruleset(&self, user_id: &str) -> Ruleset {
        let mut ruleset = defaults(user_id);
        for kind in RuleKind::ALL {
            let rules = ruleset.kind_mut(kind);
            for rule in rules.iter_mut() {
                let change = self.changed.get(&kind).and_then(|c| c.get(&rule.rule_id));
                if let Some(change) = change {
                    rule.enabled = change.enabled.unwrap_or(rule.enabled);
                    rule.actions = change.actions.as_ref().unwrap_or(&rule.actions).clone();
                }
            }
            let master = rules.iter().take_while(|r| r.rule_id == MASTER).count();
            rules.splice(master..master, self.own.kind(kind).iter().cloned());
        }
        ruleset
    }

    /// Makes a rule, enabled and the most important of its kind unless `position` says otherwise, or changes one: its
    /// conditions, pattern and actions, and its place if `position` says so.
    pub fn put(
        &mut self,
        kind: RuleKind,
        rule_id: &str,
        new: NewRule,
        position: &Position,
    ) -> Result<(), RuleError> {
        check_id(rule_id)?;
        let mut rule = checked_rule(kind, rule_id, new)?;
        let rules = self.own.kind(kind);
        let old = rules.iter().position(|r| r.rule_id == rule_id);
        let place = |id: &String| match rules.iter().position(|r| r.rule_id == *id) {
            Some(at) if id != rule_id => Ok(at),
            _ => Err(RuleError::RelativeNotFound(id.clone())),
        };
        let at = match (&position.before, &position.after) {
            (Some(before), _) => Some(place(before)?),
            (None, Some(after)) => Some(place(after)? + 1),
            (None, None) => None,
        };
        let replaced = old.and_then(|old| rules.get(old));
        if replaced.is_none() && self.count() >= MAX_RULES {
            return Err(RuleError::TooMany);
        }
        let freed = replaced.map_or(0, pattern_bytes);
        if self.pattern_bytes() - freed + pattern_bytes(&rule) > MAX_PATTERN_BYTES {
            return Err(RuleError::TooMany);
        }
        let rules = self.own.kind_mut(kind);
        let at = match old {
            None => at.unwrap_or(0),
            Some(old) => {
                rule.enabled = rules.remove(old).enabled;
                match at {
                    None => old,
                    // The removal moved what came after it one place up.
                    Some(at) => at - usize::from(old < at),
                }
            }
        };
        rules.insert(at, rule);
        Ok(())
    }

    /// Removes a rule of the user's own.
    pub fn delete(&mut self, kind: RuleKind, rule_id: &str) -> Result<(), RuleError> {
        if rule_id.starts_with('.') && defaults("").get(kind, rule_id).is_some() {
            return Err(RuleError::ServerDefault);
        }
        let rules = self.own.kind_mut(kind);
        let at = rules.iter().position(|rule| rule.rule_id == rule_id);
        rules.remove(at.ok_or(RuleError::NotFound)?);
        Ok(())
    }

    /// Enables or disables a rule, the user's own or the server's.
    pub fn set_enabled(
        &mut self,
        kind: RuleKind,
        rule_id: &str,
        enabled: bool,
    ) -> Result<(), RuleError> {
        match self.find(kind, rule_id)? {
            Found::Own(rule) => rule.enabled = enabled,
            Found::Default(change) => change.enabled = Some(enabled),
        }
        Ok(())
    }

    /// Replaces the actions of a rule, the user's own or the server's.
    pub fn set_actions(
        &mut self,
        kind: RuleKind,
        rule_id: &str,
        actions: &[serde_json::Value],
    ) -> Result<(), RuleError> {
        let actions = checked_actions(actions)?;
        match self.find(kind, rule_id)? {
            Found::Own(rule) => rule.actions = actions,
            Found::Default(change) => change.actions = Some(actions),
        }
        Ok(())
    }

    /// Gives the rules that name `old_room` a twin for `new_room`, as when a room is upgraded.
    ///
    /// <https://spec.matrix.org/v1.19/client-server-api/#room-upgrades>
    pub fn copy_room(&mut self, old_room: &str, new_room: &str) {
        for kind in [RuleKind::Override, RuleKind::Room, RuleKind::Underride] {
            let rules = self.own.kind(kind).iter().enumerate();
            let twins: Vec<(usize, Rule)> = rules
                .filter_map(|(at, rule)| Some((at, twin(rule, kind, old_room, new_room)?)))
                .collect();
            // From the end, so that the places before stay.
            for (at, twin) in twins.into_iter().rev() {
                if self.own.get(kind, &twin.rule_id).is_none() && self.count() < MAX_RULES {
                    self.own.kind_mut(kind).insert(at, twin);
                }
            }
        }
    }

    fn find(&mut self, kind: RuleKind, rule_id: &str) -> Result<Found<'_>, RuleError> {
        if defaults("").get(kind, rule_id).is_some() {
            let changes = self.changed.entry(kind).or_default();
            return Ok(Found::Default(
                changes.entry(rule_id.to_owned()).or_default(),
            ));
        }
        let rules = self.own.kind_mut(kind);
        rules
            .iter_mut()
            .find(|rule| rule.rule_id == rule_id)
            .map(Found::Own)
            .ok_or(RuleError::NotFound)
    }

    fn rules(&self) -> impl Iterator<Item = &Rule> {
        RuleKind::ALL.into_iter().flat_map(|k| self.own.kind(k))
    }

    fn count(&self) -> usize {
        self.rules().count()
    }

    fn pattern_bytes(&self) -> usize {
        self.rules().map(pattern_bytes).sum()
    }
}

enum Found<'a> {
    Own(&'a mut Rule),
    Default(&'a mut Change),
}

fn pattern_bytes(rule: &Rule) -> usize {
    let conditions = rule.conditions.iter().flatten();
    let patterns = conditions.filter_map(|condition| condition.text("pattern"));
    patterns.chain(rule.pattern.as_deref()).map(str::len).sum()
}

fn check_id(rule_id: &str) -> Result<(), RuleError> {
    if rule_id.starts_with('.') {
        return Err(RuleError::ServerDefault);
    }
    if rule_id.is_empty() || rule_id.len() > MAX_ID_BYTES || rule_id.contains(['/', '\\']) {
        return Err(RuleError::InvalidId);
    }
    Ok(())
}

fn checked_actions(actions: &[serde_json::Value]) -> Result<Vec<Action>, RuleError> {
    if actions.len() > MAX_ACTIONS {
        return Err(RuleError::Invalid("too many actions"));
    }
    Action::parse_all(actions).ok_or(RuleError::Invalid("unknown action"))
}

fn checked_rule(kind: RuleKind, rule_id: &str, new: NewRule) -> Result<Rule, RuleError> {
    let actions = checked_actions(&new.actions)?;
    let mut rule = Rule {
        rule_id: rule_id.to_owned(),
        default: false,
        enabled: true,
        actions,
        conditions: None,
        pattern: None,
    };
    match kind {
        RuleKind::Override | RuleKind::Underride => {
            if new.conditions.len() > MAX_CONDITIONS {
                return Err(RuleError::Invalid("too many conditions"));
            }
            for condition in &new.conditions {
                condition::check_condition(condition).map_err(RuleError::Invalid)?;
            }
            rule.conditions = Some(new.conditions);
        }
        RuleKind::Content => {
            let pattern = new.pattern.ok_or(RuleError::Invalid("missing pattern"))?;
            if pattern.len() > MAX_GLOB_BYTES {
                return Err(RuleError::Invalid("the pattern is too long"));
            }
            rule.pattern = Some(pattern);
        }
        RuleKind::Room | RuleKind::Sender => {}
    }
    Ok(rule)
}

/// What a rule about a room is about another; `None` for one that isn't about the room. Clients mute a
/// room by an override rule that has its id as its own.
fn twin(rule: &Rule, kind: RuleKind, old_room: &str, new_room: &str) -> Option<Rule> {
    let mut twin = rule.clone();
    if kind == RuleKind::Room {
        new_room.clone_into(&mut twin.rule_id);
        return (rule.rule_id == old_room).then_some(twin);
    }
    let mut found = false;
    for condition in twin.conditions.iter_mut().flatten() {
        let about = condition.text("key") == Some("room_id");
        for property in ["pattern", "value"] {
            if about && condition.text(property) == Some(old_room) {
                condition.0.insert(property.to_owned(), new_room.into());
                found = true;
            }
        }
    }
    twin.rule_id = if rule.rule_id.contains(old_room) {
        rule.rule_id.replace(old_room, new_room)
    } else {
        format!("{}.{new_room}", rule.rule_id)
    };
    found.then_some(twin)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn new(body: serde_json::Value) -> NewRule {
        serde_json::from_value(body).unwrap()
    }

    fn keyword(pattern: &str) -> NewRule {
        new(json!({"pattern": pattern, "actions": ["notify"]}))
    }

    fn put(rules: &mut UserRules, id: &str, before: Option<&str>, after: Option<&str>) {
        let position = Position {
            before: before.map(str::to_owned),
            after: after.map(str::to_owned),
        };
        rules
            .put(RuleKind::Content, id, keyword(id), &position)
            .unwrap();
    }

    fn ids(rules: &UserRules, kind: RuleKind) -> Vec<String> {
        let ruleset = rules.ruleset("@a:x");
        ruleset
            .kind(kind)
            .iter()
            .map(|r| r.rule_id.clone())
            .collect()
    }

    /// The list of the spec's "Predefined rules", in its order.
    #[test]
    fn the_default_rules_are_the_specs() {
        let rules = UserRules::default();
        assert_eq!(
            ids(&rules, RuleKind::Override),
            [
                ".m.rule.master",
                ".m.rule.suppress_notices",
                ".m.rule.invite_for_me",
                ".m.rule.member_event",
                ".m.rule.is_user_mention",
                ".m.rule.is_room_mention",
                ".m.rule.tombstone",
                ".m.rule.reaction",
                ".m.rule.room.server_acl",
                ".m.rule.suppress_edits",
            ]
        );
        assert_eq!(
            ids(&rules, RuleKind::Underride),
            [
                ".m.rule.call",
                ".m.rule.encrypted_room_one_to_one",
                ".m.rule.room_one_to_one",
                ".m.rule.message",
                ".m.rule.encrypted",
            ]
        );
        let ruleset = rules.ruleset("@a:x");
        assert_eq!(
            serde_json::to_value(ruleset.get(RuleKind::Override, ".m.rule.is_user_mention"))
                .unwrap(),
            json!({
                "rule_id": ".m.rule.is_user_mention", "default": true, "enabled": true,
                "conditions": [{
                    "kind": "event_property_contains",
                    "key": "content.m\\.mentions.user_ids",
                    "value": "@a:x",
                }],
                "actions": ["notify", {"set_tweak": "sound", "value": "default"}, {"set_tweak": "highlight"}],
            })
        );
    }

    #[test]
    fn rules_go_where_before_and_after_say() {
        let mut rules = UserRules::default();
        for id in ["c", "b", "a"] {
            put(&mut rules, id, None, None);
        }
        assert_eq!(ids(&rules, RuleKind::Content), ["a", "b", "c"]);
        put(&mut rules, "d", Some("b"), None);
        assert_eq!(ids(&rules, RuleKind::Content), ["a", "d", "b", "c"]);
        put(&mut rules, "a", None, Some("b"));
        assert_eq!(ids(&rules, RuleKind::Content), ["d", "b", "a", "c"]);
        put(&mut rules, "c", Some("d"), Some("a"));
        assert_eq!(ids(&rules, RuleKind::Content), ["c", "d", "b", "a"]);
        put(&mut rules, "d", None, None);
        assert_eq!(ids(&rules, RuleKind::Content), ["c", "d", "b", "a"]);
        put(&mut rules, "d", None, Some("a"));
        assert_eq!(ids(&rules, RuleKind::Content), ["c", "b", "a", "d"]);
    }

    /// The master rule stays before the user's own, all other defaults come after.
    #[test]
    fn own_rules_come_between_master_and_defaults() {
        let mut rules = UserRules::default();
        let body = json!({"actions": [], "conditions": []});
        rules
            .put(RuleKind::Override, "mine", new(body), &Position::default())
            .unwrap();
        assert_eq!(ids(&rules, RuleKind::Override)[..2], [MASTER, "mine"]);
    }

    #[test]
    fn what_is_refused_and_how() {
        let mut rules = UserRules::default();
        put(&mut rules, "mine", None, None);
        let beside = |id: &str| Position {
            before: Some(id.to_owned()),
            after: None,
        };
        let here = Position::default();
        let long = "x".repeat(MAX_GLOB_BYTES + 1);
        let cases = [
            (
                RuleKind::Content,
                ".x",
                keyword("x"),
                here.clone(),
                400,
                "M_INVALID_PARAM",
            ),
            (
                RuleKind::Content,
                "a/b",
                keyword("x"),
                here.clone(),
                400,
                "M_INVALID_PARAM",
            ),
            (
                RuleKind::Content,
                "a\\b",
                keyword("x"),
                here.clone(),
                400,
                "M_INVALID_PARAM",
            ),
            (
                RuleKind::Content,
                "x",
                keyword("x"),
                beside("nobody"),
                400,
                "M_UNKNOWN",
            ),
            (
                RuleKind::Content,
                "mine",
                keyword("x"),
                beside("mine"),
                400,
                "M_UNKNOWN",
            ),
            (
                RuleKind::Override,
                "x",
                keyword("x"),
                beside(".m.rule.call"),
                400,
                "M_UNKNOWN",
            ),
            (
                RuleKind::Content,
                "x",
                new(json!({"actions": []})),
                here.clone(),
                400,
                "M_BAD_JSON",
            ),
            (
                RuleKind::Content,
                "x",
                keyword(&long),
                here.clone(),
                400,
                "M_BAD_JSON",
            ),
            (
                RuleKind::Room,
                "!x",
                new(json!({"actions": ["explode"]})),
                here.clone(),
                400,
                "M_BAD_JSON",
            ),
            (
                RuleKind::Override,
                "x",
                new(json!({"actions": [], "conditions": [{"kind": "event_match", "key": "type"}]})),
                here.clone(),
                400,
                "M_BAD_JSON",
            ),
        ];
        let before = rules.clone();
        for (kind, id, body, position, status, errcode) in cases {
            let error = rules.put(kind, id, body, &position).unwrap_err();
            assert_eq!(error.errcode(), (status, errcode), "{id}");
        }
        assert_eq!(rules, before);
        assert_eq!(
            rules.delete(RuleKind::Content, "x"),
            Err(RuleError::NotFound)
        );
        assert_eq!(
            rules.delete(RuleKind::Override, MASTER),
            Err(RuleError::ServerDefault)
        );
        assert_eq!(
            rules.set_enabled(RuleKind::Room, "x", true),
            Err(RuleError::NotFound)
        );
        assert_eq!(
            rules.set_actions(RuleKind::Room, "x", &[]),
            Err(RuleError::NotFound)
        );
    }

    /// G6: no more than 10,000 rules, and no more patterns than can be held compiled.
    #[test]
    fn g6_rules_and_patterns_are_bounded() {
        let mut rules = UserRules::default();
        rules.own.room = (0..MAX_RULES)
            .map(|n| {
                checked_rule(
                    RuleKind::Room,
                    &format!("!{n}"),
                    new(json!({"actions": []})),
                )
                .unwrap()
            })
            .collect();
        let here = Position::default();
        let muted = || new(json!({"actions": []}));
        assert_eq!(
            rules.put(RuleKind::Room, "!n", muted(), &here),
            Err(RuleError::TooMany)
        );
        assert_eq!(rules.put(RuleKind::Room, "!7", muted(), &here), Ok(()));

        let mut rules = UserRules::default();
        let pattern = "x".repeat(MAX_GLOB_BYTES);
        for n in 0..MAX_PATTERN_BYTES / MAX_GLOB_BYTES {
            rules
                .put(RuleKind::Content, &n.to_string(), keyword(&pattern), &here)
                .unwrap();
        }
        assert_eq!(
            rules.put(RuleKind::Content, "n", keyword("x"), &here),
            Err(RuleError::TooMany)
        );
        assert_eq!(
            rules.put(RuleKind::Content, "7", keyword(&pattern), &here),
            Ok(())
        );
    }

    #[test]
    fn defaults_can_be_changed_and_survive_storage() {
        let mut rules = UserRules::default();
        rules.set_enabled(RuleKind::Override, MASTER, true).unwrap();
        let actions = [
            json!("notify"),
            json!("dont_notify"),
            json!({"set_tweak": "x", "value": [1]}),
        ];
        rules
            .set_actions(RuleKind::Underride, ".m.rule.call", &actions)
            .unwrap();
        put(&mut rules, "mine", None, None);
        rules.set_enabled(RuleKind::Content, "mine", false).unwrap();
        put(&mut rules, "mine", None, None);

        let stored = serde_json::to_string(&rules).unwrap();
        let rules: UserRules = serde_json::from_str(&stored).unwrap();
        let ruleset = rules.ruleset("@a:x");
        assert!(ruleset.get(RuleKind::Override, MASTER).unwrap().enabled);
        let call = ruleset.get(RuleKind::Underride, ".m.rule.call").unwrap();
        assert_eq!(
            serde_json::to_value(&call.actions).unwrap(),
            json!(["notify", "dont_notify", {"set_tweak": "x", "value": [1]}])
        );
        assert!(!ruleset.get(RuleKind::Content, "mine").unwrap().enabled);
    }

    #[test]
    fn an_upgraded_room_keeps_its_rule() {
        let mut rules = UserRules::default();
        let here = Position::default();
        rules
            .put(RuleKind::Room, "!old", new(json!({"actions": []})), &here)
            .unwrap();
        rules.copy_room("!old", "!new");
        rules.copy_room("!other", "!newer");
        assert_eq!(ids(&rules, RuleKind::Room), ["!new", "!old"]);
    }
}
