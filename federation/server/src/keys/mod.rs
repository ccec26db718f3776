//! Servers' keys, ours and others': <https://spec.matrix.org/v1.19/server-server-api/#retrieving-server-keys>.

mod server;

use axum::routing::get;

use crate::Routes;

pub(crate) fn routes() -> Routes {
    Routes::new().at("/_matrix/key/v2/server", get(server::get))
}
