//! The `comity` binary's inside: command line, configuration, the way in for requests, and the composition of all
//! capabilities into one server. Only this crate knows every other, and which engine keeps the rows.

#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing
    )
)]

pub mod cli;
pub mod config;
pub mod house;
pub mod http;
pub mod keys;
pub mod log;
pub mod operator;
pub mod store;
