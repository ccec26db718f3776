//! Requests to other servers, and the keys by which they are known.
//!
//! ```text
//! Peers ── signs, backs off ──▶ Transport ─┬─ Outbound   discovery, TLS, no private addresses
//!   ▲                                      └─ a wire within one process, in tests
//! Keyring ── what other servers' keys are, asked for once and kept
//! ```
//!
//! [`Peers`] has a method for each endpoint of other servers that we call; [`Keyring`] finds the keys
//! that check what they send. Nothing above this crate knows how a server is reached, and nothing
//! beside [`Outbound`] opens a connection.

#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing
    )
)]

mod backoff;
mod keyring;
mod outbound;
pub mod peers;
mod per_server;
pub mod tables;
mod transport;

pub use backoff::BackOff;
pub use keyring::{Keyring, Keys, OwnKeys};
pub use outbound::{Outbound, OutboundConfig, OutboundError, is_public};
pub use peers::{PeerError, Peers, Refusal};
pub use per_server::PerServer;
pub use transport::{Limits, Streamed, Transport, TransportError, Web};
