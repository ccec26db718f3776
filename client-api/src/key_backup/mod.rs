//! Backups of room keys: <https://spec.matrix.org/v1.19/client-server-api/#server-side-key-backups>.

mod keys;
mod portions;
mod room;
mod session;
mod version;
mod versions;

use axum::routing::{get, post};
use serde::Deserialize;

use crate::Routes;

pub(crate) fn routes() -> Routes {
    Routes::new()
        .v3(
            "/room_keys/version",
            post(versions::post).get(versions::get),
        )
        .v3(
            "/room_keys/version/{version}",
            get(version::get).put(version::put).delete(version::delete),
        )
        .v3(
            "/room_keys/keys",
            get(keys::get).put(keys::put).delete(keys::delete),
        )
        .v3(
            "/room_keys/keys/{room}",
            get(room::get).put(room::put).delete(room::delete),
        )
        .v3(
            "/room_keys/keys/{room}/{session}",
            get(session::get).put(session::put).delete(session::delete),
        )
}

/// Which backup, in the query.
#[derive(Deserialize)]
struct Of {
    version: String,
}
