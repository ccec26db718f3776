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
