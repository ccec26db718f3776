//! The server-server API: what other servers may ask, one file an endpoint.
//!
//! A folder is a group of the specification (`discovery`, `keys`, `queries`, …). Its `mod.rs` is a table: a line a path, naming the
//! function that answers it. Each path has a file of its own, named after it, with the link into the specification, what is
//! asked and answered as structs, and one function a method; the client API's [`comity_web`] reads and refuses here as well.
//!
//! A handler's parameters say what it takes, in this order: [`State<Api>`](axum::extract::State);
//! [`Path`](comity_web::Path) with typed ids; [`Query`](comity_web::Query); who asks last, for the signature covers the body. Rules belong to
//! the capabilities below.
//!
//! Tests stand in `tests/`, a file a group, and talk through `comity_testkit`, which holds every answer against the specification.

#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing
    )
)]

mod api;
mod directory;
mod discovery;
mod history;
mod keys;
mod media;
mod membership;
mod openid;
mod pdu;
mod portions;
mod queries;
mod request;
mod routes;
mod transactions;
mod users;

use comity_rooms::RoomError;

pub use api::{Api, Capabilities, Settings};
pub use routes::router;
pub use transactions::MAX_TRANSACTION;

pub(crate) use comity_web::{ApiError, Json, Path, Query};
pub(crate) use routes::Routes;

/// What another server is told and a client isn't. A room that isn't here may be elsewhere, and who can't be let in by
/// us may be by others: whoever asks goes on to the next server.
pub(crate) fn ask_others(error: RoomError) -> ApiError {
    let text = error.to_string();
    match error {
        RoomError::UnknownRoom => ApiError::not_found("There is no such room here"),
        RoomError::UnableToAuthoriseJoin => ApiError::bad("M_UNABLE_TO_AUTHORISE_JOIN", text),
        RoomError::UnableToGrantJoin => ApiError::bad("M_UNABLE_TO_GRANT_JOIN", text),
        error => error.into(),
    }
}
