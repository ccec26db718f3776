//! Matrix's rules as pure functions: identifiers, events, room versions, authorisation, state resolution.
#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing
    )
)]

pub mod auth;
pub mod canonical;
pub mod client_event;
pub mod event;
pub mod id;
pub mod push;
pub mod redact;
pub mod room_version;
pub mod server_acl;
pub mod sign;
pub mod state_res;
pub mod unpadded;
pub mod visibility;
