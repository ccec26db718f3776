//! What the APIs share: JSON bodies, parameters of path and query, the standard error, how rooms look from outside.
//!
//! Users and servers are refused in the same words and read by the same parsers, so a rule about bodies stands once. Nothing here
//! knows who asks.

#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing
    )
)]

mod body;
pub mod content;
mod directory;
mod error;
mod path;
mod query;
mod routes;
mod summary;

pub use body::{Json, bytes, parse, read};
pub use content::ThumbnailRequest;
pub use directory::{DirectoryRequest, Filter, PublicRooms};
pub use error::ApiError;
pub use path::Path;
pub use query::Query;
pub use routes::join;
pub use summary::{PublicRoom, RoomSummary, SpaceRoom};
