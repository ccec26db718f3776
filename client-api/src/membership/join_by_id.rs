//! `POST /rooms/{roomId}/join`: joins a room by its id.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3roomsroomidjoin>

use axum::extract::State;
use comity_protocol::id::OwnedRoomId;
use serde_json::{Map, Value};

use super::join::{Answer, enter};
use crate::{Api, ApiError, Json, Path, UserOrGuest};

pub(super) async fn post(
    State(api): State<Api>,
    UserOrGuest(user): UserOrGuest,
    Path(room_id): Path<OwnedRoomId>,
    Json(asked): Json<Map<String, Value>>,
) -> Result<Json<Answer>, ApiError> {
    enter(&api, &user, room_id, Vec::new(), asked).await
}
