//! `GET /joined_rooms`: the rooms one is in.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3joined_rooms>

use axum::extract::State;
use comity_protocol::{auth::Membership, id::OwnedRoomId};
use serde::Serialize;

use crate::{Api, ApiError, Json, User};

#[derive(Serialize)]
pub(super) struct Answer {
    joined_rooms: Vec<OwnedRoomId>,
}

pub(super) async fn get(State(api): State<Api>, user: User) -> Result<Json<Answer>, ApiError> {
    let joined_rooms = api.rooms.rooms_with(&user.id, Membership::Join).await?;
    Ok(Json(Answer { joined_rooms }))
}
