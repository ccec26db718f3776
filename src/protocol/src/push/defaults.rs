//! The server-default rules.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#predefined-rules>

use serde_json::{Value, json};

use super::model::{Action, Condition, Rule, Ruleset};

/// The rule that, once enabled, turns all notifications off. It comes before even the user's own rules.
pub(super) const MASTER: &str = ".m.rule.master";

/// The default rules for `user_id`, highest priority first: the specification's, and those for polls, accepted but not yet in it
/// (<https://github.com/matrix-org/matrix-spec-proposals/blob/main/proposals/3930-polls-notifications.md>).
pub(super) fn defaults(user_id: &str) -> Ruleset {
    let is_type = |event_type: &str| event_match("type", event_type);
    let empty_key = || event_match("state_key", "");
    let notify = || vec![Action::NOTIFY];
    let sound = |sound: &str| vec![Action::NOTIFY, Action::tweak("sound", Some(sound.into()))];
    let highlight = || vec![Action::NOTIFY, Action::tweak("highlight", None)];
    let one_to_one = || Condition::new("room_member_count", [("is", "2".into())]);

    let mut master = rule(MASTER, vec![], vec![]);
    master.enabled = false;
    let mut mention = sound("default");
    mention.push(Action::tweak("highlight", None));

    Ruleset {
        override_: vec![
            master,
            rule(
                ".m.rule.suppress_notices",
                vec![event_match("content.msgtype", "m.notice")],
                vec![],
            ),
            rule(
                ".m.rule.invite_for_me",
                vec![
                    is_type("m.room.member"),
                    event_match("content.membership", "invite"),
                    event_match("state_key", user_id),
                ],
                sound("default"),
            ),
            rule(
                ".m.rule.member_event",
                vec![is_type("m.room.member")],
                vec![],
            ),
            rule(
                ".m.rule.is_user_mention",
                vec![property(
                    "event_property_contains",
                    "content.m\\.mentions.user_ids",
                    user_id.into(),
                )],
                mention,
            ),
            rule(
                ".m.rule.is_room_mention",
                vec![
                    property(
                        "event_property_is",
                        "content.m\\.mentions.room",
                        json!(true),
                    ),
                    Condition::new("sender_notification_permission", [("key", "room".into())]),
                ],
                highlight(),
            ),
            rule(
                ".m.rule.tombstone",
                vec![is_type("m.room.tombstone"), empty_key()],
                highlight(),
            ),
            rule(".m.rule.reaction", vec![is_type("m.reaction")], vec![]),
            rule(
                ".m.rule.room.server_acl",
                vec![is_type("m.room.server_acl"), empty_key()],
                vec![],
            ),
            rule(
                ".org.matrix.msc3930.rule.poll_response",
                vec![is_type("org.matrix.msc3381.poll.response")],
                vec![],
            ),
            rule(
                ".m.rule.suppress_edits",
                vec![property(
                    "event_property_is",
                    "content.m\\.relates_to.rel_type",
                    "m.replace".into(),
                )],
                vec![],
            ),
        ],
        underride: vec![
            rule(
                ".m.rule.call",
                vec![is_type("m.call.invite")],
                sound("ring"),
            ),
            rule(
                ".m.rule.encrypted_room_one_to_one",
                vec![one_to_one(), is_type("m.room.encrypted")],
                sound("default"),
            ),
            rule(
                ".m.rule.room_one_to_one",
                vec![one_to_one(), is_type("m.room.message")],
                sound("default"),
            ),
            rule(".m.rule.message", vec![is_type("m.room.message")], notify()),
            rule(
                ".m.rule.encrypted",
                vec![is_type("m.room.encrypted")],
                notify(),
            ),
            rule(
                ".org.matrix.msc3930.rule.poll_start_one_to_one",
                vec![one_to_one(), is_type("org.matrix.msc3381.poll.start")],
                sound("default"),
            ),
            rule(
                ".org.matrix.msc3930.rule.poll_start",
                vec![is_type("org.matrix.msc3381.poll.start")],
                notify(),
            ),
            rule(
                ".org.matrix.msc3930.rule.poll_end_one_to_one",
                vec![one_to_one(), is_type("org.matrix.msc3381.poll.end")],
                sound("default"),
            ),
            rule(
                ".org.matrix.msc3930.rule.poll_end",
                vec![is_type("org.matrix.msc3381.poll.end")],
                notify(),
            ),
        ],
        ..Ruleset::default()
    }
}

fn rule(rule_id: &str, conditions: Vec<Condition>, actions: Vec<Action>) -> Rule {
    Rule {
        rule_id: rule_id.to_owned(),
        default: true,
        enabled: true,
        actions,
        conditions: Some(conditions),
        pattern: None,
    }
}

fn event_match(key: &str, pattern: &str) -> Condition {
    Condition::new(
        "event_match",
        [("key", key.into()), ("pattern", pattern.into())],
    )
}

fn property(kind: &str, key: &str, value: Value) -> Condition {
    Condition::new(kind, [("key", key.into()), ("value", value)])
}
