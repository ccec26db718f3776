//! What users may make of their rules, and where rules go.

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

/// The list of the spec's "Predefined rules", in its order; those of drafts stand among them.
#[test]
fn the_default_rules_are_the_specs() {
    let rules = UserRules::default();
    let specified = |kind| {
        let mut ids = ids(&rules, kind);
        ids.retain(|id| !id.starts_with(".org.matrix."));
        ids
    };
    assert_eq!(
        specified(RuleKind::Override),
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
        specified(RuleKind::Underride),
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
        serde_json::to_value(ruleset.get(RuleKind::Override, ".m.rule.is_user_mention")).unwrap(),
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
