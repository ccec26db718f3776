//! Servers' keys, ours and others': <https://spec.matrix.org/v1.19/server-server-api/#retrieving-server-keys>.

mod query;
mod server;

use axum::routing::{get, post};

use crate::Routes;

pub(crate) fn routes() -> Routes {
    Routes::new()
        .at("/_matrix/key/v2/query", post(query::post))
        .at("/_matrix/key/v2/query/{server}", get(query::get))
        .at("/_matrix/key/v2/server", get(server::get))
}
