//! What this server is and can: <https://spec.matrix.org/v1.19/client-server-api/#server-discovery>.

mod capabilities;
mod policy_server;
mod support;
mod versions;
mod well_known;

use axum::routing::get;

use crate::Routes;

pub(crate) fn routes() -> Routes {
    Routes::new()
        .at("/.well-known/matrix/client", get(well_known::get))
        .at("/.well-known/matrix/policy_server", get(policy_server::get))
        .at("/.well-known/matrix/support", get(support::get))
        .at("/_matrix/client/versions", get(versions::get))
        .v3("/capabilities", get(capabilities::get))
}
