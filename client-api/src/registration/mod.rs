//! New accounts: <https://spec.matrix.org/v1.19/client-server-api/#account-registration>.

mod available;
mod register;
mod shared_secret;
mod token_validity;

use axum::routing::{get, post};

use crate::Routes;

pub(crate) fn routes() -> Routes {
    Routes::new()
        .v3("/register", post(register::post))
        .v3("/register/available", get(available::get))
        .v1(
            "/register/m.login.registration_token/validity",
            get(token_validity::get),
        )
        .at(
            "/_synapse/admin/v1/register",
            get(shared_secret::get).post(shared_secret::post),
        )
}
