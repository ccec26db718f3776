//! The two hashes of an event, computed over spans of its canonical text.
//!
//! See <https://spec.matrix.org/v1.19/server-server-api/#signing-events>.

use sha2::{Digest, Sha256};

use crate::canonical::members;
use crate::redact::redact_without;
use crate::room_version::RoomVersionRules;

/// SHA-256 of the whole event without `unsigned`, `signatures` and `hashes`.
pub(crate) fn content_hash(canonical: &str) -> [u8; 32] {
    let mut hasher = Sha256::new();
    let mut before = "{\"";
    for (key, value) in members(canonical) {
        if matches!(key, "unsigned" | "signatures" | "hashes") {
            continue;
        }
        for part in [before, key, "\":", value] {
            hasher.update(part);
        }
        before = ",\"";
    }
    // An object without members has had no brace yet.
    hasher.update(if before == "{\"" { "{}" } else { "}" });
    hasher.finalize().into()
}

/// SHA-256 of the redacted event without `signatures` and `unsigned`.
pub(crate) fn reference_hash(
    rules: &RoomVersionRules,
    event_type: &str,
    canonical: &str,
) -> [u8; 32] {
    let covered = redact_without(
        &rules.redaction,
        event_type,
        canonical,
        &["signatures", "unsigned"],
    );
    Sha256::digest(covered).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The second event of <https://spec.matrix.org/v1.19/appendices/#event-signing>.
    #[test]
    fn spec_vector_content_hash() {
        let event = concat!(
            r#"{"content":{"body":"Here is the message content"},"event_id":"$0:domain","#,
            r#""hashes":{"sha256":"any"},"origin":"domain","origin_server_ts":1000000,"#,
            r#""room_id":"!r:domain","sender":"@u:domain","signatures":{"a":{}},"#,
            r#""type":"m.room.message","unsigned":{"age_ts":1000000}}"#,
        );
        let hash = crate::unpadded::encode(&content_hash(event));
        assert_eq!(hash, "onLKD1bGljeBWQhWZ1kaP9SorVmRQNdN5aM2JYU2n/g");
    }

    #[test]
    fn an_object_without_members() {
        let empty: [u8; 32] = Sha256::digest("{}").into();
        assert_eq!(content_hash("{}"), empty);
        assert_eq!(content_hash(r#"{"unsigned":{}}"#), empty);
    }
}
