//! `GET /rooms/{roomId}/event/{eventId}`: one event.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3roomsroomideventeventid>

use axum::extract::State;
use comity_protocol::id::{OwnedEventId, OwnedRoomId};
use serde_json::value::RawValue;

use super::access::access_or_not_found;
use crate::{Api, ApiError, Json, Path, UserOrGuest};

pub(super) async fn get(
    State(api): State<Api>,
    UserOrGuest(user): UserOrGuest,
    Path((room_id, event_id)): Path<(OwnedRoomId, OwnedEventId)>,
) -> Result<Json<Box<RawValue>>, ApiError> {
    let access = access_or_not_found(&api, &user.id, &room_id).await?;
    let found = access.event(&user.id, &event_id).await?;
    Ok(Json(access.render_one(found, &user).await?))
}
