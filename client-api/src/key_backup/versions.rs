//! `POST` and `GET /room_keys/version`: makes a backup, and describes the newest.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3room_keysversion>
//! <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3room_keysversion>

use axum::extract::State;
use comity_accounts::Limit;
use comity_key_backup::Info;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{Api, ApiError, Json, User};

#[derive(Deserialize)]
pub(super) struct New {
    algorithm: String,
    auth_data: Box<RawValue>,
}

#[derive(Serialize)]
pub(super) struct Made {
    version: String,
}

pub(super) async fn post(
    State(api): State<Api>,
    user: User,
    Json(new): Json<New>,
) -> Result<Json<Made>, ApiError> {
    api.limit(Limit::AccountChange, &user.id)?;
    let backups = &api.key_backup;
    let version = backups
        .create(&user.id, &new.algorithm, &new.auth_data)
        .await?;
    Ok(Json(Made { version }))
}

pub(super) async fn get(State(api): State<Api>, user: User) -> Result<Json<Info>, ApiError> {
    Ok(Json(api.key_backup.info(&user.id, None).await?))
}
