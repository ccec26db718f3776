//! Makes a dictionary for event bodies: `cargo run -p comity-rooms --example body-dictionary -- FILE`.
//!
//! It is trained on events drawn at random, since one trained on people's would hold their sentences.
//! A dictionary in use is never made anew under its number: what is compressed with it needs it for
//! ever. Another one gets the next number (`src/tables/body.rs`).
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)]

#[path = "../tests/samples/mod.rs"]
mod samples;

/// Bytes of a dictionary at the most.
const SIZE: usize = 32 << 10;
const EVENTS: usize = 20_000;

fn main() {
    let file = std::env::args().nth(1).expect("where to write it");
    let events = samples::Samples::new(1).events(EVENTS);
    let dictionary = zstd::dict::from_samples(&events, SIZE).expect("events enough");
    std::fs::write(file, dictionary).expect("the file can be written");
}
