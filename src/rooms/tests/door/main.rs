//! Events that come from outside, over the memory engine, by the threats they carry.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)]

mod converge;
mod hostile;
mod peers;
mod remote;
mod ways;
