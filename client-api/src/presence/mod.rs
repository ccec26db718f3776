//! Who is there: <https://spec.matrix.org/v1.19/client-server-api/#presence>.

mod status;

use axum::routing::get;

use crate::Routes;

pub(crate) fn routes() -> Routes {
    Routes::new().v3("/presence/{user}/status", get(status::get).put(status::put))
}
