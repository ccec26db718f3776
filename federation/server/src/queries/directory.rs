//! `GET /query/directory`: where one of our aliases leads, and which servers are there.
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1querydirectory>

use axum::extract::State;
use comity_protocol::id::{OwnedRoomAliasId, OwnedRoomId, OwnedServerName};
use serde::{Deserialize, Serialize};

use crate::{Api, ApiError, Json, Query, request::Origin};

#[derive(Deserialize)]
pub(super) struct Asked {
    room_alias: OwnedRoomAliasId,
}

#[derive(Serialize)]
pub(super) struct Answer {
    room_id: OwnedRoomId,
    servers: Vec<OwnedServerName>,
}

pub(super) async fn get(
    State(api): State<Api>,
    Query(Asked { room_alias }): Query<Asked>,
    Origin(_): Origin,
) -> Result<Json<Answer>, ApiError> {
    let found = api.rooms.resolve_own_alias(&room_alias).await?;
    Ok(Json(Answer {
        room_id: found.room_id,
        servers: found.servers,
    }))
}
