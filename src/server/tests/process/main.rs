//! The binary as it runs: its log, its files, its limits and its end.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]
#![allow(
    clippy::disallowed_methods,
    reason = "these tests are what stands outside of the server: its clients, its operator, its clock"
)]

mod bucket;
mod commands;
mod crowd;
mod engines;
mod log;
mod pictures;
mod postgres;
mod restored;
mod secrets;
mod server;
