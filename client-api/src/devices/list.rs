//! `GET /devices`: all of one's devices.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3devices>

use axum::extract::State;
use serde::Serialize;

use super::Device;
use crate::{Api, ApiError, Json, UserOrGuest};

#[derive(Serialize)]
pub(super) struct Answer {
    devices: Vec<Device>,
}

pub(super) async fn get(
    State(api): State<Api>,
    UserOrGuest(user): UserOrGuest,
) -> Result<Json<Answer>, ApiError> {
    let devices = api.accounts.devices(user.id.as_str()).await?;
    let devices = devices.into_iter().map(Device::from).collect();
    Ok(Json(Answer { devices }))
}
