//! Signing in and out: <https://spec.matrix.org/v1.19/client-server-api/#legacy-api>.

mod answer;
mod get_token;
mod login;
mod logout;
mod logout_all;
mod refresh;

use axum::routing::{get, post};

use crate::Routes;

pub(crate) use answer::SignedIn;

pub(crate) fn routes() -> Routes {
    Routes::new()
        .v3("/login", get(login::get).post(login::post))
        .v1("/login/get_token", post(get_token::post))
        .v3("/logout", post(logout::post))
        .v3("/logout/all", post(logout_all::post))
        .v3("/refresh", post(refresh::post))
}
