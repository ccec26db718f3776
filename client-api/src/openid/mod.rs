//! Showing others who one is: <https://spec.matrix.org/v1.19/client-server-api/#openid>.

mod request_token;

use axum::routing::post;

use crate::Routes;

pub(crate) fn routes() -> Routes {
    Routes::new().v3(
        "/user/{user}/openid/request_token",
        post(request_token::post),
    )
}
