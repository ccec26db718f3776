//! What the rules make of events.

use super::{
    super::{
        condition::check_condition,
        edit::{NewRule, Position},
        model::Condition,
    },
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
    let mention =
        |user: &str| json!({"msgtype": "m.text", "body": "", "m.mentions": {"user_ids": [user]}});
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
    let matching =
        |key: &str, pattern: &str| json!({"kind": "event_match", "key": key, "pattern": pattern});
    let is =
        |key: &str, value: Value| json!({"kind": "event_property_is", "key": key, "value": value});
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
    let highlight =
        json!({"actions": ["notify", {"set_tweak": "highlight", "value": true}], "pattern": "tea"});
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
    let highlight = json!({"actions": ["notify", {"set_tweak": "highlight"}], "pattern": "tea"});
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
