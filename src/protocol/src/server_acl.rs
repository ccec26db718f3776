//! Which servers a room lets take part: `m.room.server_acl`.
//!
//! A room's list may be as large as an event and is asked with each request, so patterns are
//! normalised once. A pattern that asks for more characters than a name has is passed over by its
//! length, and what stands between two stars is looked for from where the one before ended: nothing
//! is gone back to (threat F10).
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#server-access-control-lists-acls-for-rooms>

use std::net::Ipv4Addr;

use serde::Deserialize;
use serde_json::Value;

use crate::id::ServerName;

/// `m.room.server_acl`, read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerAcl {
    allow: Vec<Pattern>,
    deny: Vec<Pattern>,
    deny_ip_literals: bool,
}

#[derive(Default, Deserialize)]
struct Content {
    #[serde(default)]
    allow: Value,
    #[serde(default)]
    deny: Value,
    #[serde(default)]
    allow_ip_literals: Value,
}

impl ServerAcl {
    /// Reads the content of the event. What is not of the right type is as if it weren't there: a
    /// room whose list can't be read lets nobody in.
    pub fn read(content: &str) -> Self {
        let content: Content = serde_json::from_str(content).unwrap_or_default();
        Self {
            allow: patterns(&content.allow),
            deny: patterns(&content.deny),
            deny_ip_literals: content.allow_ip_literals == Value::Bool(false),
        }
    }

    /// Whether a server may take part. Ports and the case of letters don't matter.
    pub fn allows(&self, server: &ServerName) -> bool {
        self.allows_in(server, &mut 0)
    }

    /// [`Self::allows`], counting the characters looked at.
    fn allows_in(&self, server: &ServerName, steps: &mut usize) -> bool {
        let host = host(server.as_str()).to_ascii_lowercase();
        let is_literal = host.starts_with('[') || host.parse::<Ipv4Addr>().is_ok();
        let mut listed = |patterns: &[Pattern]| {
            patterns
                .iter()
                .any(|one| one.matches(host.as_bytes(), steps))
        };
        let shut_out = self.deny_ip_literals && is_literal || listed(&self.deny);
        !shut_out && listed(&self.allow)
    }
}

/// A server's name without its port.
fn host(name: &str) -> &str {
    let end = match name.find(']') {
        Some(end) if name.starts_with('[') => Some(end + 1),
        _ => name.find(':'),
    };
    end.and_then(|end| name.get(..end)).unwrap_or(name)
}

fn patterns(list: &Value) -> Vec<Pattern> {
    let list = list.as_array().into_iter().flatten();
    list.filter_map(Value::as_str).map(Pattern::new).collect()
}

/// Any one character, in a [`Pattern`]'s parts.
const ANY: u8 = 0;

/// A glob: parts in their order, with anything between two of them.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Pattern {
    first: Vec<u8>,
    /// What follows a star each; none where the pattern has no star.
    rest: Vec<Vec<u8>>,
    /// Characters that a name has at least.
    least: usize,
}

impl Pattern {
    fn new(pattern: &str) -> Self {
        let token = |byte: u8| match byte {
            b'?' => ANY,
            // No name has such a byte.
            0 => 0xff,
            byte => byte.to_ascii_lowercase(),
        };
        let mut parts = pattern
            .split('*')
            .map(|part| part.bytes().map(token).collect::<Vec<u8>>());
        let first = parts.next().unwrap_or_default();
        let mut rest: Vec<Vec<u8>> = parts.collect();
        // Two stars are one; only the last part may be empty, for a star at the end.
        let last = rest.pop();
        rest.retain(|part| !part.is_empty());
        rest.extend(last);
        let least = first.len() + rest.iter().map(Vec::len).sum::<usize>();
        Self { first, rest, least }
    }

    fn matches(&self, name: &[u8], steps: &mut usize) -> bool {
        if self.least > name.len() {
            return false;
        }
        let Some((last, middle)) = self.rest.split_last() else {
            return name.len() == self.first.len() && fits(&self.first, name, steps);
        };
        let Some((start, mut left)) = name.split_at_checked(self.first.len()) else {
            return false;
        };
        if !fits(&self.first, start, steps) {
            return false;
        }
        for part in middle {
            let found = left
                .windows(part.len())
                .position(|window| fits(part, window, steps));
            let Some(after) = found.and_then(|at| left.get(at + part.len()..)) else {
                return false;
            };
            left = after;
        }
        let end = left.len().checked_sub(last.len());
        end.and_then(|end| left.get(end..))
            .is_some_and(|end| fits(last, end, steps))
    }
}

/// Whether text of the part's length is what the part says.
fn fits(part: &[u8], text: &[u8], steps: &mut usize) -> bool {
    part.iter().zip(text).all(|(token, byte)| {
        *steps += 1;
        *token == ANY || token == byte
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn allows(acl: &Value, server: &str) -> bool {
        ServerAcl::read(&acl.to_string()).allows(&ServerName::parse(server).unwrap())
    }

    /// F9: globs, case, ports, address literals.
    #[test]
    fn f9_who_is_let_in() {
        let open = |rest: Value| {
            let mut acl = json!({ "allow": ["*"] });
            acl.as_object_mut()
                .unwrap()
                .extend(rest.as_object().unwrap().clone());
            acl
        };
        let denied =
            open(json!({ "deny": ["evil.com", "*.evil.com", "a?c.org", "1.1.1.1", "[::1]"] }));
        for (server, expected) in [
            ("good.com", true),
            ("evil.com", false),
            ("EVIL.com", false),
            ("evil.com:8448", false),
            ("x.EVIL.com:1", false),
            ("notevil.com", true),
            ("abc.org", false),
            ("ac.org", true),
            ("abbc.org", true),
            ("1.1.1.1:8008", false),
            ("[::1]:8008", false),
            ("[::2]", true),
        ] {
            assert_eq!(allows(&denied, server), expected, "{server}");
        }
        let named = open(json!({ "allow_ip_literals": false }));
        for (server, expected) in [("a.b", true), ("1.2.3.4", false), ("[::1]:1", false)] {
            assert_eq!(allows(&named, server), expected, "{server}");
        }
        assert!(allows(
            &open(json!({ "allow_ip_literals": "no" })),
            "1.2.3.4"
        ));
        for nobody in [
            json!({}),
            json!({ "allow": "*" }),
            json!({ "allow": [1, {}] }),
        ] {
            assert!(!allows(&nobody, "a.b"), "{nobody}");
        }
        assert!(!ServerAcl::read("[]").allows(&ServerName::parse("a.b").unwrap()));
    }

    #[test]
    fn stars_stand_for_anything() {
        for (pattern, name, expected) in [
            ("*", "a", true),
            ("**", "a", true),
            ("a*", "abc", true),
            ("a*c", "abc", true),
            ("a*c", "ac", true),
            ("a*c", "acb", false),
            ("*b*", "abc", true),
            ("*b*b*", "abc", false),
            ("a*ab", "ab", false),
            ("*.a.b", "a.b", false),
            ("*a.b", "a.a.b", true),
            ("*?*?*", "a", false),
            ("*?*?*", "ab", true),
            ("*aab*", "aaab", true),
            ("", "a", false),
        ] {
            let acl = json!({ "allow": [pattern] });
            assert_eq!(allows(&acl, name), expected, "{pattern} {name}");
        }
    }

    /// F10 (CVE-2023-45129): a list as large as an event costs a few hundred thousand characters
    /// looked at, well below a millisecond.
    #[test]
    fn f10_a_large_list_is_asked_quickly() {
        let name = format!("{}.com", "a".repeat(200));
        let server = ServerName::parse(name.as_str()).unwrap();
        for (list, most) in [
            (
                json!({ "deny": vec!["*?*?*x"; 6_500], "allow": ["*"] }),
                20_000,
            ),
            (json!({ "deny": ["*?".repeat(32_000)], "allow": ["*"] }), 10),
            (
                json!({ "deny": vec!["*a*a*a*a*b"; 5_000], "allow": ["*"] }),
                30_000,
            ),
            (
                json!({ "deny": vec!["a?a?a?"; 9_000], "allow": ["*"] }),
                60_000,
            ),
        ] {
            let mut steps = 0;
            assert!(ServerAcl::read(&list.to_string()).allows_in(&server, &mut steps));
            assert!(steps < most, "{steps}");
        }
    }
}
