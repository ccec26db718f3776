//! What another server sends, from its request to what our users see of it.

// The whole server is awaited through many layers.
#![recursion_limit = "256"]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod edus;
mod encryption;
mod graph;
mod messages;
mod missing;
mod policy;
mod send;
mod sliding;
mod waiting;
mod ways;
mod world;
