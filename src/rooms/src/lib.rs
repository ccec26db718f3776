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
mod change;
mod error;
mod event;
mod live;
pub mod log;
pub mod num;
mod rooms;
pub mod state;
pub mod tables;
mod varint;
mod view;

pub use change::{Change, Intent, Placed, Transaction};
pub use error::RoomError;
pub use rooms::{Config, Rooms};
pub use view::{Found, RoomView, Span, Standing, Viewer};
