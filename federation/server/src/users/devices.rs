//! `GET /user/devices/{userId}`: the devices of one of our users for which messages can be encrypted.
//!
//! The specification lists devices with their identity keys. A device without any is left out: to others it is none, and
//! what its owner calls it is nobody's business.
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1userdevicesuserid>

use axum::extract::State;
use comity_protocol::id::OwnedUserId;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::{Api, ApiError, Json, Path, request::Origin};

#[derive(Serialize)]
pub(super) struct Answer {
    user_id: OwnedUserId,
    stream_id: u64,
    devices: Vec<Map<String, Value>>,
}

pub(super) async fn get(
    State(api): State<Api>,
    Path(user_id): Path<OwnedUserId>,
    Origin(_): Origin,
) -> Result<Json<Answer>, ApiError> {
    let user = api.accounts.user(user_id.as_str()).await?;
    if user.is_none_or(|user| user.deactivated) {
        return Err(ApiError::not_found("There is no such user"));
    }
    Ok(Json(Answer {
        user_id,
        stream_id: 0,
        devices: Vec::new(),
    }))
}
