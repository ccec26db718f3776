//! One's account: <https://spec.matrix.org/v1.19/client-server-api/#account-management>.

mod whoami;

use axum::routing::get;

use crate::Routes;

pub(crate) fn routes() -> Routes {
    Routes::new().v3("/account/whoami", get(whoami::get))
}
