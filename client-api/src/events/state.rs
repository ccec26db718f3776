//! `GET /rooms/{roomId}/state`: the current state, or that at one's leave.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3roomsroomidstate>

use axum::extract::State;
use comity_protocol::id::OwnedRoomId;
use serde_json::value::RawValue;

use super::Access;
use crate::{Api, ApiError, Json, Path, UserOrGuest};

pub(super) async fn get(
    State(api): State<Api>,
    UserOrGuest(user): UserOrGuest,
    Path(room_id): Path<OwnedRoomId>,
) -> Result<Json<Vec<Box<RawValue>>>, ApiError> {
    let access = Access::of_whole(&api, &user.id, &room_id).await?;
    let state = access.state(None).await?;
    Ok(Json(access.render(&state, &user).await?))
}
