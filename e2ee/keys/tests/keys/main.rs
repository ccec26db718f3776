//! Keys of devices at the API, with real keys.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)]

mod cross_signing;
mod dehydrated;
mod federation;
mod lists;
mod one_time;
mod uploads;
