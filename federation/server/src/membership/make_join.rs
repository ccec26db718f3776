//! `GET /make_join/{roomId}/{userId}`: the event by which a user of the asking server joins.
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1make_joinroomiduserid>

use axum::extract::State;
use comity_protocol::{
    auth::Membership,
    id::{OwnedRoomId, OwnedUserId},
};

use super::make::{Answer, versions};
use crate::{Api, ApiError, Json, Path, Query, ask_others, request::Origin};

pub(super) async fn get(
    State(api): State<Api>,
    Path((room_id, user)): Path<(OwnedRoomId, OwnedUserId)>,
    Query(asked): Query<Vec<(String, String)>>,
    Origin(origin): Origin,
) -> Result<Json<Answer>, ApiError> {
    let versions = versions(asked);
    let template = api
        .rooms
        .template(&origin, &room_id, &user, Membership::Join, Some(&versions))
        .await
        .map_err(ask_others)?;
    Answer::of(&api, &template).map(Json)
}
