//! Our users' devices and keys: <https://spec.matrix.org/v1.19/server-server-api/#device-management>,
//! <https://spec.matrix.org/v1.19/server-server-api/#end-to-end-encryption>.

mod devices;
mod keys_claim;
mod keys_query;

use axum::routing::{get, post};

use crate::Routes;

pub(crate) fn routes() -> Routes {
    Routes::new()
        .v1("/user/devices/{user}", get(devices::get))
        .v1("/user/keys/claim", post(keys_claim::post))
        .v1("/user/keys/query", post(keys_query::post))
}
