//! Redaction: an event without what a redaction takes away.
//!
//! The same cut is used three ways: what is left of an event after it was redacted, what its
//! signatures and its reference hash cover, and what we keep of an event whose content hash is
//! wrong. It works on canonical text and keeps spans of it, so that what survives is byte for byte
//! what came in.
//!
//! See <https://spec.matrix.org/v1.19/client-server-api/#redactions>.

use crate::canonical::members;
use crate::room_version::{KeptContent, RedactionRules};

/// The redacted form of an event, in canonical JSON.
///
/// `canonical` is the event's canonical JSON; `event_type` its type.
pub fn redact(rules: &RedactionRules, event_type: &str, canonical: &str) -> String {
    redact_without(rules, event_type, canonical, &[])
}

/// As [`redact`], also without the event's own `dropped` keys.
pub(crate) fn redact_without(
    rules: &RedactionRules,
    event_type: &str,
    canonical: &str,
    dropped: &[&str],
) -> String {
    let mut out = String::with_capacity(canonical.len());
    out.push('{');
    for (key, value) in members(canonical) {
        if !rules.event.contains(&key) || dropped.contains(&key) {
            continue;
        }
        if key == "content" {
            push_key(&mut out, key);
            push_content(&mut out, rules, event_type, value);
        } else {
            push_member(&mut out, key, value);
        }
    }
    out.push('}');
    out
}

/// The redacted form of an event's `content`, in canonical JSON.
///
/// For events in formats that carry more than the signed one, such as the client's.
pub fn redact_content(rules: &RedactionRules, event_type: &str, content: &str) -> String {
    let mut out = String::with_capacity(content.len());
    push_content(&mut out, rules, event_type, content);
    out
}

fn push_content(out: &mut String, rules: &RedactionRules, event_type: &str, content: &str) {
    let kept = match rules.content_of(event_type) {
        KeptContent::All => return out.push_str(content),
        KeptContent::Keys(keys) => keys,
    };
    let nested = rules.third_party_invite_signed && event_type == "m.room.member";
    out.push('{');
    for (key, value) in members(content) {
        if kept.contains(&key) {
            push_member(out, key, value);
        } else if nested && key == "third_party_invite" && value.starts_with('{') {
            push_key(out, key);
            out.push('{');
            if let Some(signed) = members(value).get("signed") {
                push_member(out, "signed", signed);
            }
            out.push('}');
        }
    }
    out.push('}');
}

/// Writes a key into an object that is open at the end of `out`, after a comma if it needs one.
pub(crate) fn push_key(out: &mut String, key: &str) {
    if !out.ends_with('{') {
        out.push(',');
    }
    out.push('"');
    out.push_str(key);
    out.push_str("\":");
}

/// As [`push_key`], with the value.
pub(crate) fn push_member(out: &mut String, key: &str, value: &str) {
    push_key(out, key);
    out.push_str(value);
}
