//! The client-server API: one file an endpoint.
//!
//! A folder is a group of the specification (`account`, `session`, `rooms`, …). Its `mod.rs` is a table: a line a path, naming the
//! functions that answer it. Each path has a file of its own, named after it, that holds everything about it: the link into the
//! specification, what is asked and answered as structs, and one function a method. To add one:
//!
//! ```ignore
//! // rooms/joined.rs
//! //! `GET /joined_rooms`: the rooms a user is in.
//! //!
//! //! <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3joined_rooms>
//!
//! #[derive(Serialize)]
//! pub(super) struct Answer {
//!     joined_rooms: Vec<OwnedRoomId>,
//! }
//!
//! pub(super) async fn get(State(api): State<Api>, UserOrGuest(user): UserOrGuest) -> Result<Json<Answer>, ApiError> {
//!     let joined_rooms = api.rooms.rooms_with(&user.id, Membership::Join).await?;
//!     Ok(Json(Answer { joined_rooms }))
//! }
//!
//! // rooms/mod.rs
//! mod joined;
//! // … in routes():
//!     .v3("/joined_rooms", get(joined::get))
//! ```
//!
//! A handler's parameters say what it takes, in this order: [`State<Api>`](axum::extract::State); who may ask ([`User`],
//! [`UserOrGuest`], an option of it, or nobody: a public endpoint); [`Path`] with typed ids; [`Query`]; [`Json`] last, where an absent body is `{}`.
//! What they refuse has the specification's error code already. A handler fails with [`ApiError`]: those of [`comity_accounts`] and
//! [`comity_rooms`] turn into one by `?`, others are made by its constructors. A handler holds no rules of its own: what may be
//! done, and in which order it is written, belongs to the capability below.
//!
//! Tests stand in `tests/`, a file a group, and talk through `comity_testkit::Server`, which holds every answer against the
//! specification.

#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing
    )
)]

mod account;
mod account_data;
mod admin;
mod api;
mod creation;
mod dehydrated_device;
mod devices;
mod directory;
mod discovery;
mod ephemeral;
mod events;
mod key_backup;
mod keys;
mod media;
mod membership;
mod named_room;
mod notices;
mod openid;
mod people;
mod presence;
mod profile;
mod push;
mod registration;
mod reports;
mod request;
mod routes;
mod session;
mod spaces;
mod sync;
mod to_device;
mod uia;
mod user_directory;

pub use api::{Api, Capabilities, Settings, Support};
pub use comity_web::ApiError;
pub use routes::router;

pub(crate) use comity_web::{Json, Path, Query, read};
pub(crate) use request::{Address, SigningOut, User, UserOrGuest};
pub(crate) use routes::Routes;
