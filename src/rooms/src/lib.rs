//! The room engine: actors, the event graph, state, timeline.

#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing
    )
)]

pub mod chains;
pub mod num;
pub mod state;
mod varint;
