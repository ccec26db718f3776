//! `GET /make_leave/{roomId}/{userId}`: the event by which a user of the asking server leaves, or declines an invite.
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1make_leaveroomiduserid>

use axum::extract::State;
use comity_protocol::{
    auth::Membership,
    id::{OwnedRoomId, OwnedUserId},
};

use super::make::Answer;
use crate::{Api, ApiError, Json, Path, ask_others, request::Origin};

pub(super) async fn get(
    State(api): State<Api>,
    Path((room_id, user)): Path<(OwnedRoomId, OwnedUserId)>,
    Origin(origin): Origin,
) -> Result<Json<Answer>, ApiError> {
    let template = api
        .rooms
        .template(&origin, &room_id, &user, Membership::Leave, None)
        .await
        .map_err(ask_others)?;
    Answer::of(&api, &template).map(Json)
}
