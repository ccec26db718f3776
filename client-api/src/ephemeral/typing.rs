//! `PUT /rooms/{roomId}/typing/{userId}`: says that one types, or no longer does.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3roomsroomidtypinguserid>

use std::time::Duration;

use axum::extract::State;
use comity_accounts::Limit;
use comity_protocol::{
    auth::Membership,
    id::{OwnedRoomId, OwnedUserId},
};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{Api, ApiError, Json, Path, User};

/// How long, where the client doesn't say, in milliseconds.
const USUALLY: u64 = 30_000;

#[derive(Deserialize)]
pub(super) struct Asked {
    typing: bool,
    timeout: Option<u64>,
}

pub(super) async fn put(
    State(api): State<Api>,
    user: User,
    Path((room_id, typist)): Path<(OwnedRoomId, OwnedUserId)>,
    Json(asked): Json<Asked>,
) -> Result<Json<Value>, ApiError> {
    user.must_be(&typist)?;
    user.may_act()?;
    api.limit(Limit::InPassing, &user.id)?;
    let member = api.rooms.member(&user.id, &room_id).await?;
    if member.is_none_or(|row| row.value.membership() != Membership::Join) {
        return Err(ApiError::forbidden("You are not in this room"));
    }
    let timeout = asked.typing.then(|| asked.timeout.unwrap_or(USUALLY));
    let timeout = timeout.map(Duration::from_millis);
    api.rooms.typing().set(&room_id, &user.id, timeout);
    Ok(Json(json!({})))
}
