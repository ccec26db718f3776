//! `GET /user/devices/{userId}`: the devices of one of our users for which messages can be encrypted.
//!
//! The specification lists devices with their identity keys. A device without any is left out: to others it is none.
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1userdevicesuserid>

use axum::extract::State;
use comity_protocol::id::OwnedUserId;
use serde::Serialize;
use serde_json::value::RawValue;

use crate::{Api, ApiError, Json, Path, request::Origin};

#[derive(Serialize)]
pub(super) struct Answer {
    user_id: OwnedUserId,
    stream_id: u64,
    devices: Vec<Device>,
    #[serde(skip_serializing_if = "Option::is_none")]
    master_key: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    self_signing_key: Option<Box<RawValue>>,
}

#[derive(Serialize)]
struct Device {
    device_id: String,
    keys: Box<RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    device_display_name: Option<String>,
}

pub(super) async fn get(
    State(api): State<Api>,
    Path(user_id): Path<OwnedUserId>,
    Origin(_): Origin,
) -> Result<Json<Answer>, ApiError> {
    // Of users of other servers another one speaks (threat E6).
    let list = if user_id.server_name() == api.rooms.server_name() {
        api.device_keys.devices(user_id.as_str()).await?
    } else {
        None
    };
    let list = list.ok_or_else(|| ApiError::not_found("There is no such user"))?;
    let devices = list.devices.into_iter();
    let devices = devices.map(|(device_id, keys, device_display_name)| Device {
        device_id,
        keys,
        device_display_name,
    });
    Ok(Json(Answer {
        user_id,
        stream_id: list.stream_id,
        devices: devices.collect(),
        master_key: list.master_key,
        self_signing_key: list.self_signing_key,
    }))
}
