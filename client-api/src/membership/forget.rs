//! `POST /rooms/{roomId}/forget`: no longer shows a room one has left.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3roomsroomidforget>

use axum::extract::State;
use comity_accounts::Limit;
use comity_protocol::id::OwnedRoomId;
use serde_json::{Value, json};

use crate::{Api, ApiError, Json, Path, User};

pub(super) async fn post(
    State(api): State<Api>,
    user: User,
    Path(room_id): Path<OwnedRoomId>,
) -> Result<Json<Value>, ApiError> {
    api.limit(Limit::AccountChange, &user.id)?;
    api.rooms.forget(&user.id, &room_id).await?;
    Ok(Json(json!({})))
}
