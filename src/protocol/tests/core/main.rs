//! The event core, at its public face: canonical JSON, formats, hashes, signatures, redaction,
//! the client's formats.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod between_servers;
mod canonical;
mod client_formats;
mod format;
mod oracle;
mod properties;
mod signatures;
mod support;
