//! One's account: <https://spec.matrix.org/v1.19/client-server-api/#account-management>.

mod leaving;
mod whoami;

use axum::routing::get;

use crate::Routes;

pub(crate) use leaving::Leaving;

pub(crate) fn routes() -> Routes {
    Routes::new().v3("/account/whoami", get(whoami::get))
}
