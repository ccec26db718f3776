//! `POST /account/password`: a new password, which ends all other sessions unless asked not to.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3accountpassword>

use axum::extract::State;
use comity_accounts::{Asker, Operation, Stage};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::{Api, ApiError, Json, User, read, uia};

#[derive(Deserialize)]
struct Change {
    new_password: Option<String>,
    logout_devices: Option<bool>,
}

pub(super) async fn post(
    State(api): State<Api>,
    user: User,
    Json(body): Json<Map<String, Value>>,
) -> Result<Json<Map<String, Value>>, ApiError> {
    let change: Change = read(body.clone())?;
    let operation = Operation {
        name: "POST /account/password",
        asker: Asker::User(user.id.as_str()),
        body: &body,
    };
    uia::authorise(&api, operation, &[&[Stage::Password]]).await?;
    let password = change
        .new_password
        .ok_or_else(|| ApiError::missing_param("new_password is missing"))?;
    api.accounts
        .set_password(user.id.as_str(), &password)
        .await?;
    if change.logout_devices.unwrap_or(true) {
        api.accounts
            .logout_all(user.id.as_str(), Some(&user.device))
            .await?;
    }
    Ok(Json(Map::new()))
}
