//! Finding users: <https://spec.matrix.org/v1.19/client-server-api/#user-directory>.

mod search;

use axum::routing::post;

use crate::Routes;

pub(crate) fn routes() -> Routes {
    Routes::new().v3("/user_directory/search", post(search::post))
}
