//! Events that come from outside, over the memory engine, by the threats they carry.
#![recursion_limit = "256"]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)]

mod converge;
mod earlier;
mod hostile;
mod joining;
mod partial;
mod peers;
mod remote;
mod undone;
mod ways;
