//! `GET /rooms/{roomId}/aliases`: a room's aliases on this server.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3roomsroomidaliases>

use axum::extract::State;
use comity_protocol::id::{OwnedRoomAliasId, OwnedRoomId};
use serde::Serialize;

use crate::{Api, ApiError, Json, Path, User};

#[derive(Serialize)]
pub(super) struct Answer {
    aliases: Vec<OwnedRoomAliasId>,
}

pub(super) async fn get(
    State(api): State<Api>,
    user: User,
    Path(room_id): Path<OwnedRoomId>,
) -> Result<Json<Answer>, ApiError> {
    let aliases = api.rooms.aliases(&user.id, &room_id).await?;
    Ok(Json(Answer { aliases }))
}
