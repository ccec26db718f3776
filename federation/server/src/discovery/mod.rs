//! What this server is and where: <https://spec.matrix.org/v1.19/server-server-api/#server-discovery>.

mod version;
mod well_known;

use axum::routing::get;

use crate::Routes;

pub(crate) fn routes() -> Routes {
    Routes::new()
        .at("/.well-known/matrix/server", get(well_known::get))
        .v1("/version", get(version::get))
}
