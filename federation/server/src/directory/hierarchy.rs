//! `GET /hierarchy/{roomId}`: a space and its children, for a server that asks for its users.
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1hierarchyroomid>

use axum::extract::State;
use comity_protocol::id::OwnedRoomId;
use comity_web::{RoomSummary, SpaceRoom};
use serde::{Deserialize, Serialize};

use crate::{Api, ApiError, Json, Path, Query, ask_others, request::Origin};

#[derive(Deserialize)]
pub(super) struct Asked {
    #[serde(default)]
    suggested_only: bool,
}

#[derive(Serialize)]
pub(super) struct Answer {
    room: SpaceRoom,
    children: Vec<RoomSummary>,
    inaccessible_children: Vec<String>,
}

pub(super) async fn get(
    State(api): State<Api>,
    Path(room_id): Path<OwnedRoomId>,
    Query(Asked { suggested_only }): Query<Asked>,
    Origin(origin): Origin,
) -> Result<Json<Answer>, ApiError> {
    let space = api
        .rooms
        .peer_hierarchy(&origin, &room_id, suggested_only)
        .await
        .map_err(ask_others)?;
    Ok(Json(Answer {
        room: space.room.into(),
        children: space.children.into_iter().map(RoomSummary::from).collect(),
        inaccessible_children: space.inaccessible,
    }))
}
