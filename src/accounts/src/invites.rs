//! From whom a user takes invites: their list of ignored users, their wish to get none, and a filter by users and servers.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#invite-permission>, and the draft of a filter,
//! <https://github.com/matrix-org/matrix-spec-proposals/pull/4155>

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use comity_protocol::{
    id::UserId,
    push::{Glob, Steps, folded},
};
use comity_storage::Pos;
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::Value;

use crate::{
    AccountError, Accounts,
    tables::{AccountData, UserPart},
};

/// The type that says whether a user takes invites.
const PERMISSION: &str = "m.invite_permission_config";
/// The type of the filter, as long as it is a draft.
const FILTER: &str = "org.matrix.msc4155.invite_permission_config";
/// Bytes of a filter's patterns that have wildcards; more aren't asked. To ask all these for the longest name (255 bytes, which a
/// pattern of two bytes may look through) takes fewer steps than [`Steps::PER_EVENT`].
const MAX_PATTERNS: usize = 16 << 10;
/// What filters that are kept compiled may take in bytes; beyond, all are compiled again.
const KEPT: usize = 64 << 20;
/// What a byte of a compiled pattern takes.
const COMPILED: usize = 64;
/// What a name takes beside its letters.
const NAME: usize = 64;
/// What a filter takes beside its rules.
const ENTRY: usize = 256;

/// What becomes of an invite, the strictest last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum InviteVerdict {
    /// The user is told.
    #[default]
    Allow,
    /// It is kept from the user, and whoever sent it doesn't learn that.
    Ignore,
    /// It is refused.
    Block,
}

/// From whom a user takes invites. Cheap to clone but for the ignored users.
#[derive(Clone, Debug, Default)]
pub struct Invites {
    ignored: BTreeSet<String>,
    blocks_all: bool,
    filter: Arc<Rules>,
}

/// A filter's rules, in the order in which they are asked.
#[derive(Debug, Default)]
struct Rules(Vec<Rule>);

/// Of whoever has one of the names, or matches one of the patterns, this becomes.
#[derive(Debug)]
struct Rule {
    of_servers: bool,
    /// Without wildcards, and folded.
    names: BTreeSet<String>,
    patterns: Vec<Glob>,
    /// There are more than these.
    is_cut: bool,
    verdict: InviteVerdict,
}

/// The filters of users as they were compiled, with the position that wrote them.
#[derive(Default)]
pub(crate) struct Filters(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    filters: HashMap<String, (Pos, Arc<Rules>)>,
    bytes: usize,
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
        let filter = UserPart::new(user_id, FILTER);
        let (ignored, permission, filter) = futures_util::try_join!(
            self.ignored_users(user_id),
            self.account_data(user_id, PERMISSION),
            async { Ok::<_, AccountError>(self.get::<AccountData>(&filter).await?) },
        )?;
        let action = permission
            .as_ref()
            .and_then(|permission| permission.get("default_action"));
        let filters = &self.0.invite_filters;
        let filter = filter.map(|row| {
            filters.get(user_id, row.pos).unwrap_or_else(|| {
                let compiled = Arc::new(compile(&row.value.0));
                filters.put(user_id, row.pos, compiled.clone());
                compiled
            })
        });
        Ok(Invites {
            ignored,
            blocks_all: action.and_then(Value::as_str) == Some("block"),
            filter: filter.unwrap_or_default(),
        })
    }
}

impl Invites {
    /// Whether every invite is shown, whoever sends it.
    pub fn are_open(&self) -> bool {
        self.ignored.is_empty() && !self.blocks_all && self.filter.0.is_empty()
    }

    /// What becomes of an invite by this user. Who blocks all blocks those too whom they ignore: nobody tells by the answer who is.
    pub fn by(&self, sender: &UserId) -> InviteVerdict {
        if self.blocks_all {
            return InviteVerdict::Block;
        }
        if self.ignored.contains(sender.as_str()) {
            return InviteVerdict::Ignore;
        }
        self.filter.verdict(sender)
    }

    /// Whether the user is shown an invite by whoever has this id.
    pub fn shows(&self, sender: &str) -> bool {
        let sender = <&UserId>::try_from(sender);
        sender.map_or(true, |sender| self.by(sender) == InviteVerdict::Allow)
    }
}

impl Rules {
    fn verdict(&self, sender: &UserId) -> InviteVerdict {
        if self.0.is_empty() {
            return InviteVerdict::Allow;
        }
        let user = folded(sender.as_str());
        let host = folded(sender.server_name().host());
        let mut steps = Steps::default();
        // Of those that are cut: they may apply.
        let mut strictest = InviteVerdict::Allow;
        for rule in &self.0 {
            let name = if rule.of_servers { &host } else { &user };
            if rule.applies(name, &mut steps) {
                return strictest.max(rule.verdict);
            }
            if rule.is_cut {
                strictest = strictest.max(rule.verdict);
            }
        }
        strictest
    }

    /// What it takes in memory, more or less.
    fn bytes(&self) -> usize {
        let rules = self.0.iter().map(|rule| {
            let patterns = rule.patterns.iter().map(|pattern| pattern.source().len());
            let names = rule.names.iter().map(|name| name.len() + NAME);
            patterns.sum::<usize>() * COMPILED + names.sum::<usize>()
        });
        rules.sum::<usize>() + ENTRY
    }
}

impl Rule {
    /// Whether it does to a name that is folded.
    fn applies(&self, name: &str, steps: &mut Steps) -> bool {
        let mut patterns = self.patterns.iter();
        self.names.contains(name) || patterns.any(|pattern| pattern.matches(name, steps))
    }
}

impl Filters {
    fn get(&self, user_id: &str, pos: Pos) -> Option<Arc<Rules>> {
        let kept = self.0.lock();
        let (at, rules) = kept.filters.get(user_id)?;
        (*at == pos).then(|| rules.clone())
    }

    fn put(&self, user_id: &str, pos: Pos, rules: Arc<Rules>) {
        let mut kept = self.0.lock();
        if kept.bytes > KEPT {
            *kept = Kept::default();
        }
        kept.bytes += rules.bytes();
        if let Some((_, before)) = kept.filters.insert(user_id.to_owned(), (pos, rules)) {
            kept.bytes = kept.bytes.saturating_sub(before.bytes());
        }
    }
}

/// The rules of a filter.
fn compile(filter: &str) -> Rules {
    let Ok(filter) = serde_json::from_str::<Filter>(filter) else {
        return Rules::default();
    };
    if filter.enabled == Some(false) {
        return Rules::default();
    }
    let mut left = MAX_PATTERNS;
    let mut rule = |of_servers, wanted: Vec<String>, verdict| {
        let (patterns, names): (Vec<String>, Vec<String>) =
            wanted.into_iter().partition(|one| one.contains(['*', '?']));
        let all = patterns.len();
        let asked = patterns.into_iter().map_while(|one| {
            left = left.checked_sub(one.len())?;
            Some(one)
        });
        let asked: Vec<String> = asked.collect();
        Rule {
            of_servers,
            names: names.iter().map(|one| folded(one)).collect(),
            is_cut: asked.len() < all,
            // A pattern longer than any name matches none.
            patterns: asked.iter().filter_map(|one| Glob::new(one)).collect(),
            verdict,
        }
    };
    let rules = [
        rule(false, filter.allowed_users, InviteVerdict::Allow),
        rule(false, filter.ignored_users, InviteVerdict::Ignore),
        rule(false, filter.blocked_users, InviteVerdict::Block),
        rule(true, filter.allowed_servers, InviteVerdict::Allow),
        rule(true, filter.ignored_servers, InviteVerdict::Ignore),
        rule(true, filter.blocked_servers, InviteVerdict::Block),
    ];
    let asks = |rule: &Rule| !rule.names.is_empty() || !rule.patterns.is_empty() || rule.is_cut;
    Rules(rules.into_iter().filter(asks).collect())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn filtered(filter: &Value) -> Invites {
        Invites {
            filter: Arc::new(compile(&filter.to_string())),
            ..Invites::default()
        }
    }

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
            let invites = filtered(&filter);
            let sender = UserId::parse("@a:b.org:8448").unwrap();
            assert_eq!(invites.by(&sender), expected, "{filter}");
        }
    }

    /// Threat G8: of patterns so many are asked; a rule with more than these may apply, and the strictest of those that may does, so that no
    /// filter is so long that it lets in whom it is to keep out. Names without wildcards don't count.
    #[test]
    fn g8_a_filter_that_is_too_long_keeps_out() {
        use InviteVerdict::{Allow, Block, Ignore};
        let long: Vec<String> = (0..2_000).map(|n| format!("*{n:09}")).collect();
        let named: Vec<String> = (0..9_000).map(|n| format!("@n{n}:b.org")).collect();
        for (filter, expected) in [
            (json!({ "allowed_users": long }), Allow),
            (
                json!({ "allowed_users": long, "ignored_servers": ["c.org"] }),
                Allow,
            ),
            (
                json!({ "ignored_users": long, "blocked_servers": ["c.org"] }),
                Ignore,
            ),
            (
                json!({ "ignored_users": long, "blocked_servers": ["b.org"] }),
                Block,
            ),
            (
                json!({ "blocked_users": long, "allowed_servers": ["*"] }),
                Block,
            ),
            (
                json!({ "ignored_users": long, "allowed_servers": ["*"] }),
                Ignore,
            ),
            (
                json!({ "allowed_users": ["@a:*"], "blocked_users": long }),
                Allow,
            ),
            (
                json!({ "ignored_users": ["@a:*"], "blocked_users": long }),
                Ignore,
            ),
            (json!({ "blocked_users": named }), Allow),
            (
                json!({ "blocked_users": named, "blocked_servers": ["B.*"] }),
                Block,
            ),
        ] {
            let sender = UserId::parse("@a:b.org").unwrap();
            assert_eq!(filtered(&filter).by(&sender), expected);
        }
        let sender = UserId::parse("@N8999:b.org").unwrap();
        assert_eq!(
            filtered(&json!({ "blocked_users": named })).by(&sender),
            Block
        );
    }

    /// Threat G8: nobody's name is so long that patterns aren't asked for it any more.
    #[test]
    fn g8_the_longest_name_is_asked_for() {
        let mut patterns = vec!["*!".to_owned(); MAX_PATTERNS / 2 - 4];
        patterns.push("*a:b.org".to_owned());
        let sender = format!("@{}:b.org", "a".repeat(248));
        let sender = UserId::parse(sender).unwrap();
        let invites = filtered(&json!({ "blocked_users": patterns }));
        assert!(!invites.filter.0.iter().any(|rule| rule.is_cut));
        assert_eq!(invites.by(&sender), InviteVerdict::Block);
    }

    /// What is kept compiled is bounded, and what was written since isn't answered by it.
    #[test]
    fn a_filter_is_compiled_once() {
        let filters = Filters::default();
        let compiled = Arc::new(compile(r#"{"blocked_users":["*"]}"#));
        filters.put("@a:b", 7, compiled.clone());
        let kept = filters.get("@a:b", 7).unwrap();
        assert!(Arc::ptr_eq(&kept, &compiled));
        assert!(filters.get("@a:b", 8).is_none() && filters.get("@c:b", 7).is_none());
        filters.0.lock().bytes = KEPT + 1;
        filters.put("@c:b", 7, compiled);
        assert!(filters.get("@a:b", 7).is_none());
    }

    /// Threat G8: short names and empty filters count for what they take.
    #[test]
    fn g8_a_filter_counts_for_what_it_takes() {
        let names: Vec<String> = (0..100).map(|n| n.to_string()).collect();
        let filter = json!({ "blocked_users": names }).to_string();
        assert!(compile(&filter).bytes() >= 100 * NAME);
        assert!(Rules::default().bytes() >= ENTRY);
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
