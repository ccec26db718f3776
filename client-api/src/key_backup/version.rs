//! `GET`, `PUT` and `DELETE /room_keys/version/{version}`: one backup.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3room_keysversionversion>
//! <https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3room_keysversionversion>
//! <https://spec.matrix.org/v1.19/client-server-api/#delete_matrixclientv3room_keysversionversion>

use axum::extract::State;
use comity_accounts::Limit;
use comity_key_backup::Info;
use serde::Deserialize;
use serde_json::{Map, Value, value::RawValue};

use crate::{Api, ApiError, Json, Path, User};

pub(super) async fn get(
    State(api): State<Api>,
    user: User,
    Path(version): Path<String>,
) -> Result<Json<Info>, ApiError> {
    Ok(Json(api.key_backup.info(&user.id, Some(&version)).await?))
}

#[derive(Deserialize)]
pub(super) struct Update {
    algorithm: String,
    auth_data: Box<RawValue>,
    version: Option<String>,
}

pub(super) async fn put(
    State(api): State<Api>,
    user: User,
    Path(version): Path<String>,
    Json(update): Json<Update>,
) -> Result<Json<Map<String, Value>>, ApiError> {
    if update.version.is_some_and(|named| named != version) {
        return Err(ApiError::invalid_param(
            "The body names another version than the path",
        ));
    }
    api.limit(Limit::AccountChange, &user.id)?;
    api.key_backup
        .update(&user.id, &version, &update.algorithm, &update.auth_data)
        .await?;
    Ok(Json(Map::new()))
}

pub(super) async fn delete(
    State(api): State<Api>,
    user: User,
    Path(version): Path<String>,
) -> Result<Json<Map<String, Value>>, ApiError> {
    api.limit(Limit::AccountChange, &user.id)?;
    api.key_backup.delete(&user.id, &version).await?;
    Ok(Json(Map::new()))
}
