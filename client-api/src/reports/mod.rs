//! Telling the administrators: <https://spec.matrix.org/v1.19/client-server-api/#reporting-content>.

mod event;
mod room;
mod user;

use axum::routing::post;
use comity_accounts::{Limit, Report, Reported};
use serde::Deserialize;

use crate::{Api, ApiError, Routes, User};

pub(crate) fn routes() -> Routes {
    Routes::new()
        .v3("/rooms/{room}/report", post(room::post))
        .v3("/rooms/{room}/report/{event}", post(event::post))
        .v3("/users/{user}/report", post(user::post))
}

#[derive(Deserialize)]
struct Asked {
    #[serde(default)]
    reason: String,
}

/// Takes one report from what a user may make.
fn limit(api: &Api, user: &User) -> Result<(), ApiError> {
    api.limit(Limit::Report, &user.id)
}

async fn keep(api: &Api, by: &User, about: Reported, reason: String) -> Result<(), ApiError> {
    let reporter = by.id.to_string();
    let report = Report {
        reporter,
        about,
        reason,
    };
    Ok(api.accounts.report(&report).await?)
}
