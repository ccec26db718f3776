//! From whom a user takes invites: their list of ignored users, their wish to get none, and a filter by users and servers.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#invite-permission>, and the draft of a filter,
//! <https://github.com/matrix-org/matrix-spec-proposals/pull/4155>

use std::collections::BTreeSet;

use comity_protocol::{
    id::UserId,
    push::{Glob, Steps},
};
use serde::Deserialize;
use serde_json::Value;

use crate::{AccountError, Accounts};

/// The type that says whether a user takes invites.
const PERMISSION: &str = "m.invite_permission_config";
/// The type of the filter, as long as it is a draft.
const FILTER: &str = "org.matrix.msc4155.invite_permission_config";

/// What becomes of an invite.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InviteVerdict {
    /// The user is told.
    Allow,
    /// It is kept from the user, and whoever sent it doesn't learn that.
    Ignore,
    /// It is refused.
    Block,
}

/// From whom a user takes invites.
#[derive(Clone, Debug, Default)]
pub struct Invites {
    ignored: BTreeSet<String>,
    blocks_all: bool,
    rules: Vec<Rule>,
}

/// Of whoever matches one of the patterns this becomes.
#[derive(Clone, Debug)]
struct Rule {
    of_servers: bool,
    patterns: Vec<Glob>,
    verdict: InviteVerdict,
}

/// The draft's filter; one that isn't of this shape is none.
#[derive(Deserialize)]
struct Filter {
    enabled: Option<bool>,
    #[serde(default)]
    allowed_users: Vec<String>,
    #[serde(default)]
    ignored_users: Vec<String>,
    #[serde(default)]
    blocked_users: Vec<String>,
    #[serde(default)]
    allowed_servers: Vec<String>,
    #[serde(default)]
    ignored_servers: Vec<String>,
    #[serde(default)]
    blocked_servers: Vec<String>,
}

impl Accounts {
    /// From whom a user takes invites.
    ///
    /// # Errors
    /// The store's.
    pub async fn invites(&self, user_id: &str) -> Result<Invites, AccountError> {
        let (ignored, permission, filter) = futures_util::try_join!(
            self.ignored_users(user_id),
            self.account_data(user_id, PERMISSION),
            self.account_data(user_id, FILTER),
        )?;
        let action = permission
            .as_ref()
            .and_then(|permission| permission.get("default_action"));
        Ok(Invites {
            ignored,
            blocks_all: action.and_then(Value::as_str) == Some("block"),
            rules: filter.map_or_else(Vec::new, rules),
        })
    }
}

impl Invites {
    /// Whether every invite is shown, whoever sends it.
    pub fn are_open(&self) -> bool {
        self.ignored.is_empty() && !self.blocks_all && self.rules.is_empty()
    }

    /// What becomes of an invite by this user. Who blocks all blocks those too whom they ignore: nobody tells by the answer who is.
    pub fn by(&self, sender: &UserId) -> InviteVerdict {
        if self.blocks_all {
            return InviteVerdict::Block;
        }
        if self.ignored.contains(sender.as_str()) {
            return InviteVerdict::Ignore;
        }
        let host = sender.server_name().host();
        let mut steps = Steps::default();
        let applies = |rule: &&Rule| {
            let name = if rule.of_servers {
                host
            } else {
                sender.as_str()
            };
            let mut patterns = rule.patterns.iter();
            patterns.any(|pattern| pattern.matches(name, &mut steps))
        };
        self.rules
            .iter()
            .find(applies)
            .map_or(InviteVerdict::Allow, |rule| rule.verdict)
    }
}

/// A filter's rules, in the order in which they are asked.
fn rules(filter: Value) -> Vec<Rule> {
    let Ok(filter) = serde_json::from_value::<Filter>(filter) else {
        return Vec::new();
    };
    if filter.enabled == Some(false) {
        return Vec::new();
    }
    let rule = |of_servers, patterns: Vec<String>, verdict| Rule {
        of_servers,
        // A pattern longer than any name matches none.
        patterns: patterns.iter().filter_map(|one| Glob::new(one)).collect(),
        verdict,
    };
    let rules = [
        rule(false, filter.allowed_users, InviteVerdict::Allow),
        rule(false, filter.ignored_users, InviteVerdict::Ignore),
        rule(false, filter.blocked_users, InviteVerdict::Block),
        rule(true, filter.allowed_servers, InviteVerdict::Allow),
        rule(true, filter.ignored_servers, InviteVerdict::Ignore),
        rule(true, filter.blocked_servers, InviteVerdict::Block),
    ];
    let rules = rules.into_iter();
    rules.filter(|rule| !rule.patterns.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// MSC4155: users come before servers, and of either who is allowed, then ignored, then blocked; ports don't count.
    #[test]
    fn the_first_rule_that_matches_decides() {
        use InviteVerdict::{Allow, Block, Ignore};
        let server = |verdict: &str| json!({ format!("{verdict}_servers"): ["*.org"] });
        for (filter, expected) in [
            (json!({}), Allow),
            (json!({ "blocked_users": ["@a:b.org:8448"] }), Block),
            (json!({ "ignored_users": ["@?:b.*"] }), Ignore),
            (json!({ "blocked_users": ["@?:b.org"] }), Allow),
            (json!({ "blocked_users": ["@b:*"] }), Allow),
            (server("blocked"), Block),
            (server("ignored"), Ignore),
            (server("allowed"), Allow),
            (json!({ "blocked_servers": ["b.org:8448"] }), Allow),
            (
                json!({ "allowed_users": ["@a:*"], "blocked_servers": ["*"] }),
                Allow,
            ),
            (
                json!({ "blocked_users": ["@a:*"], "allowed_servers": ["*"] }),
                Block,
            ),
            (
                json!({ "ignored_users": ["*"], "blocked_users": ["*"] }),
                Ignore,
            ),
            (
                json!({ "allowed_users": ["*"], "ignored_users": ["*"] }),
                Allow,
            ),
            (
                json!({ "ignored_servers": ["*"], "blocked_servers": ["*"] }),
                Ignore,
            ),
            (json!({ "enabled": false, "blocked_servers": ["*"] }), Allow),
            (json!({ "enabled": true, "blocked_servers": ["*"] }), Block),
            (
                json!({ "allowed_users": null, "blocked_servers": ["*"] }),
                Allow,
            ),
            (json!({ "blocked_servers": ["*", 1] }), Allow),
        ] {
            let invites = Invites {
                rules: rules(filter.clone()),
                ..Invites::default()
            };
            let sender = UserId::parse("@a:b.org:8448").unwrap();
            assert_eq!(invites.by(&sender), expected, "{filter}");
        }
    }

    /// Client-server API, Invite permission: who blocks all blocks whom they ignore, too; otherwise that one doesn't learn of it.
    #[test]
    fn who_is_ignored_is_blocked_with_the_others() {
        let mallory = UserId::parse("@mallory:b.org").unwrap();
        let mut invites = Invites {
            ignored: BTreeSet::from([mallory.to_string()]),
            ..Invites::default()
        };
        assert_eq!(invites.by(&mallory), InviteVerdict::Ignore);
        invites.blocks_all = true;
        assert_eq!(invites.by(&mallory), InviteVerdict::Block);
    }
}
