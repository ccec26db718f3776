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
mod tests;
