//! What users do in rooms of other servers, by the client API of two servers and against peers that
//! mean harm.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod answers;
mod handed;
mod hostile;
mod invites;
mod joins;
mod lookups;
mod pair;
mod partial;
mod policy;
