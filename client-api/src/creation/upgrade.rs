//! `POST /rooms/{roomId}/upgrade`: replaces a room by one of another version.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3roomsroomidupgrade>

use axum::extract::State;
use comity_accounts::Limit;
use comity_protocol::id::OwnedRoomId;
use serde::{Deserialize, Serialize};

use crate::{Api, ApiError, Json, Path, User, people};

#[derive(Deserialize)]
pub(super) struct Asked {
    new_version: String,
    additional_creators: Option<Vec<String>>,
}

#[derive(Serialize)]
pub(super) struct Answer {
    replacement_room: OwnedRoomId,
}

pub(super) async fn post(
    State(api): State<Api>,
    user: User,
    Path(room_id): Path<OwnedRoomId>,
    Json(asked): Json<Asked>,
) -> Result<Json<Answer>, ApiError> {
    user.may_act()?;
    api.limit(Limit::Join, &user.id)?;
    let profile = people::profile(&api, &user.id).await?;
    let creators = asked.additional_creators.unwrap_or_default();
    let replacement_room = api
        .rooms
        .upgrade(&user.id, &profile, &room_id, &asked.new_version, &creators)
        .await?;
    let succession = &api.succession;
    succession.carry_over(&user.id, &replacement_room).await?;
    Ok(Json(Answer { replacement_room }))
}
