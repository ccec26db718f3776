//! Rulesets, compiled: judging an event, for many users at once where their rules are the same.

use std::sync::Arc;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{
    condition::{Property, Test},
    edit::UserRules,
    facts::{EventFacts, Recipient, Verdict},
    glob::{Glob, Steps},
    model::{Rule, RuleKind},
};

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
mod tests;
