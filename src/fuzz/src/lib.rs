//! What each decoder promises of any bytes at all: it ends, it doesn't panic, and what it accepts means one thing.
//!
//! A decoder is whatever reads what others wrote: clients, other servers, our own disk after damage. Each has a target here, a
//! function of bytes that asserts. `tests/corpus.rs` runs all of them in CI over the examples in `corpus/` and thousands
//! of alterations by seed, with the stable compiler; `libfuzzer/` runs the same functions for as long as one likes:
//!
//! ```text
//! cargo +nightly fuzz run --fuzz-dir src/fuzz/libfuzzer event src/fuzz/corpus/event
//! ```
//!
//! What it finds becomes a file of the corpus.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a promise that is broken is a target that fails"
)]

mod logs;
mod media;
mod protocol;
mod rows;
mod servers;
mod tokens;
mod uploads;

pub use logs::{RECORDS, reads};
pub use rows::{parts, tables};

/// A target: its name, and what it asserts of some bytes.
pub type Target = (&'static str, fn(&[u8]));

/// Every target, by name.
pub const TARGETS: [Target; 23] = [
    ("access_token", tokens::access_token),
    ("auth_contents", servers::auth_contents),
    ("authorization", protocol::authorization),
    ("canonical", protocol::canonical),
    ("content_disposition", media::content_disposition),
    ("debt", logs::debt),
    ("event", protocol::event),
    ("filter", tokens::filter),
    ("identifiers", protocol::identifiers),
    ("key_object", uploads::key_object),
    ("keys", protocol::keys),
    ("metadata", media::metadata),
    ("multipart", media::multipart),
    ("mxc", media::mxc),
    ("page", media::page),
    ("push_glob", protocol::push_glob),
    ("push_rules", protocol::push_rules),
    ("range", media::range),
    ("record", logs::record),
    ("row", rows::row),
    ("server_acl", servers::server_acl),
    ("server_keys", servers::server_keys),
    ("sync_token", tokens::sync_token),
];

/// Runs the target of that name.
///
/// # Panics
/// If a promise is broken, or no target has the name.
pub fn run(name: &str, bytes: &[u8]) {
    let (_, target) = TARGETS.iter().find(|target| target.0 == name).unwrap();
    target(bytes);
}

/// The bytes as text, as far as they are some: most decoders take no others.
fn text(bytes: &[u8]) -> &str {
    match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(end) => std::str::from_utf8(&bytes[..end.valid_up_to()]).unwrap(),
    }
}
