//! `POST /knock/{roomIdOrAlias}`: asks to be let into a room.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3knockroomidoralias>

use axum::extract::State;
use comity_accounts::Limit;
use comity_protocol::id::OwnedRoomId;
use serde::{Deserialize, Serialize};

use crate::{
    Api, ApiError, Json, Path, Query, User,
    named_room::{named_room, via},
    people,
};

#[derive(Deserialize)]
pub(super) struct Asked {
    reason: Option<String>,
}

#[derive(Serialize)]
pub(super) struct Answer {
    room_id: OwnedRoomId,
}

pub(super) async fn post(
    State(api): State<Api>,
    user: User,
    Path(room): Path<String>,
    Query(query): Query<Vec<(String, String)>>,
    Json(asked): Json<Asked>,
) -> Result<Json<Answer>, ApiError> {
    user.may_act()?;
    api.limit(Limit::Join, &user.id)?;
    let (room_id, servers) = named_room(&api, &room).await?;
    let via = [via(&query), servers].concat();
    let profile = people::profile(&api, &user.id).await?;
    api.rooms
        .knock(&user.id, &room_id, &profile, asked.reason.as_deref(), &via)
        .await?;
    Ok(Json(Answer { room_id }))
}
