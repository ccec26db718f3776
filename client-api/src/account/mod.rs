//! One's account: <https://spec.matrix.org/v1.19/client-server-api/#account-management>.

mod deactivate;
mod leaving;
mod password;
mod whoami;

use axum::routing::{get, post};

use crate::Routes;

pub(crate) use leaving::Leaving;

pub(crate) fn routes() -> Routes {
    Routes::new()
        .v3("/account/deactivate", post(deactivate::post))
        .v3("/account/password", post(password::post))
        .v3("/account/whoami", get(whoami::get))
}
