//! Whom an OpenID token shows: <https://spec.matrix.org/v1.19/server-server-api/#openid>.

mod userinfo;

use axum::routing::get;

use crate::Routes;

pub(crate) fn routes() -> Routes {
    Routes::new().v1("/openid/userinfo", get(userinfo::get))
}
