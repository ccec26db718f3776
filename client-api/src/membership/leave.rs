//! `POST /rooms/{roomId}/leave`: leaves a room, declines an invite, takes a knock back.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3roomsroomidleave>

use axum::extract::State;
use comity_accounts::Limit;
use comity_protocol::id::OwnedRoomId;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{Api, ApiError, Json, Path, UserOrGuest, notices};

#[derive(Deserialize)]
pub(super) struct Asked {
    reason: Option<String>,
}

pub(super) async fn post(
    State(api): State<Api>,
    UserOrGuest(user): UserOrGuest,
    Path(room_id): Path<OwnedRoomId>,
    Json(asked): Json<Asked>,
) -> Result<Json<Value>, ApiError> {
    api.limit(Limit::Send, &user.id)?;
    notices::may_leave(&api, &user.id, &room_id).await?;
    api.rooms
        .leave(&user.id, &room_id, asked.reason.as_deref())
        .await?;
    Ok(Json(json!({})))
}
