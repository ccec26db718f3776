//! `GET /profile/{userId}`: all of a user's profile, for everybody.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3profileuserid>

use axum::extract::State;
use comity_protocol::id::OwnedUserId;
use serde_json::{Map, Value};

use super::profile_of;
use crate::{Address, Api, ApiError, Json, Path};

pub(super) async fn get(
    State(api): State<Api>,
    address: Address,
    Path(user): Path<OwnedUserId>,
) -> Result<Json<Map<String, Value>>, ApiError> {
    Ok(Json(profile_of(&api, &address, &user, None).await?))
}
