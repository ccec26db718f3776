//! `POST /rooms/{roomId}/report`: reports a room, which one need not be in.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3roomsroomidreport>

use axum::extract::State;
use comity_accounts::Reported;
use comity_protocol::id::OwnedRoomId;
use comity_rooms::RoomError;
use serde_json::{Map, Value};

use super::{Asked, keep, limit};
use crate::{Api, ApiError, Json, Path, User};

pub(super) async fn post(
    State(api): State<Api>,
    user: User,
    Path(room): Path<OwnedRoomId>,
    Json(Asked { reason }): Json<Asked>,
) -> Result<Json<Map<String, Value>>, ApiError> {
    limit(&api, &user)?;
    match api.rooms.summary(&room).await {
        Ok(_) => keep(&api, &user, Reported::Room(room.to_string()), reason).await?,
        // The same answer: whether a room exists is not told (threat E5).
        Err(RoomError::UnknownRoom) => {}
        Err(error) => return Err(error.into()),
    }
    Ok(Json(Map::new()))
}
