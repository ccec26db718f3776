//! Builders, the running server as a fixture, and the specification as a test.
//!
//! A test of an API talks through [`Client`]: each answer it sees is held against the specification's OpenAPI
//! and each event in it against its schema ([`spec`]), in one place, so that no test can see a wrong answer and
//! pass. [`User`] does the few things every test needs in one line each:
//!
//! ```ignore
//! let server = Server::start().await;
//! let alice = server.register("alice").await;
//! let room = alice.create_room(json!({"preset": "public_chat"})).await;
//! let event = alice.send(&room, "hi").await;
//! let answer = alice.sync(None).await;
//! ```
//!
//! A failed check panics, as a failed assertion does: this crate is used by tests alone.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a check that fails is a test that fails"
)]

mod client;
mod cost;
pub mod device;
mod federation;
pub mod probe;
mod server;
pub mod spec;
mod user;

pub use client::{Answer, Client, Request, encode};
pub use cost::Cost;
pub use federation::{
    Asked, Fate, Federation, HostilePeer, Passing, Pdu, PeerRoom, PolicyKey, Reply, Wire,
};
pub use server::{Place, SHARED_SECRET, Server, Settings, check, files};
pub use user::{User, password};

/// A picture: PNG, 200 pixels by 100.
pub const PICTURE: &[u8] = include_bytes!("../pictures/red-200x100.png");

/// The number of lanes a test's store opens with: `COMITY_TEST_LANES` (1 or 4), or 1.
///
/// `scripts/test.sh` runs what uses it with both, so that nothing relies on one lane (`docs/architecture.md`, Storage).
#[must_use]
pub fn lanes() -> u32 {
    match std::env::var("COMITY_TEST_LANES") {
        Ok(lanes) => lanes.parse().expect("COMITY_TEST_LANES is a power of two"),
        Err(_) => 1,
    }
}
