//! How users show themselves: <https://spec.matrix.org/v1.19/client-server-api/#profiles>.

mod field;
mod whole;

use axum::routing::get;

use crate::Routes;

pub(crate) fn routes() -> Routes {
    Routes::new().v3("/profile/{user}", get(whole::get)).v3(
        "/profile/{user}/{field}",
        get(field::get).put(field::put).delete(field::delete),
    )
}
