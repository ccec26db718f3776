//! The authorisation rules and state resolution against oracles, and on the graphs that broke
//! others.
//!
//! The oracle for the rules and for resolution v2 and v2.1 is `ruma-state-res`; for v1, which it
//! lacks, a second implementation read straight off the spec's text ([`naive_v1`]). Where ruma and
//! the text differ, the text holds here, and the stories keep clear of it:
//! - without `m.room.join_rules`, the join rule is `invite`, as in Synapse; ruma refuses joins;
//! - levels beyond ±(2^53 − 1) in old versions are read, and floats too; ruma refuses them;
//! - `"++5"` is no level; ruma reads 5;
//! - `m.federate` other than `false`, a `creator` that is no user id, a `state_key` that is no user
//!   id: ruma refuses what the text does not mention;
//! - malformed `notifications` before version 6, where no rule reads them: ruma refuses them.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod auth_events;
mod auth_table;
mod drawn;
mod event;
mod hostile;
mod msc4297;
mod naive_v1;
mod oracle;
mod stories;
mod story;
mod world;
