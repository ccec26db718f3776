//! `GET`, `PUT` and `DELETE /devices/{deviceId}`: one device, its name, its end.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3devicesdeviceid>
//! <https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3devicesdeviceid>
//! <https://spec.matrix.org/v1.19/client-server-api/#delete_matrixclientv3devicesdeviceid>

use axum::extract::State;
use comity_accounts::{Asker, Limit, Operation, Stage};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::Device;
use crate::{Api, ApiError, Json, Path, User, UserOrGuest, uia};

pub(super) async fn get(
    State(api): State<Api>,
    UserOrGuest(user): UserOrGuest,
    Path(device_id): Path<String>,
) -> Result<Json<Device>, ApiError> {
    let device = api.accounts.device(user.id.as_str(), &device_id).await?;
    Ok(Json(device.into()))
}

#[derive(Deserialize)]
pub(super) struct Update {
    /// Absent: the name stays as it is.
    display_name: Option<String>,
}

pub(super) async fn put(
    State(api): State<Api>,
    UserOrGuest(user): UserOrGuest,
    Path(device_id): Path<String>,
    Json(update): Json<Update>,
) -> Result<Json<Map<String, Value>>, ApiError> {
    api.limit(Limit::AccountChange, &user.id)?;
    let owner = user.id.as_str();
    match update.display_name {
        Some(_) => {
            api.accounts
                .rename_device(owner, &device_id, update.display_name)
                .await?;
        }
        None => drop(api.accounts.device(owner, &device_id).await?),
    }
    Ok(Json(Map::new()))
}

pub(super) async fn delete(
    State(api): State<Api>,
    user: User,
    Path(device_id): Path<String>,
    Json(body): Json<Map<String, Value>>,
) -> Result<Json<Map<String, Value>>, ApiError> {
    let operation = Operation {
        name: &format!("DELETE /devices/{device_id}"),
        asker: Asker::User(user.id.as_str()),
        body: &body,
    };
    uia::authorise(&api, operation, &[&[Stage::Password]]).await?;
    api.accounts
        .delete_devices(user.id.as_str(), &[device_id])
        .await?;
    Ok(Json(Map::new()))
}
