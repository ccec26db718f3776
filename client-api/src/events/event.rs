//! `GET /rooms/{roomId}/event/{eventId}` and the older `GET /events/{eventId}`: one event.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3roomsroomideventeventid>
//! <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3eventseventid>

use axum::extract::State;
use comity_protocol::id::{OwnedEventId, OwnedRoomId};
use http::StatusCode;
use serde_json::value::RawValue;

use super::access::{access_or_not_found, no_event};
use crate::{Api, ApiError, Json, Path, User, UserOrGuest};

pub(super) async fn get(
    State(api): State<Api>,
    UserOrGuest(user): UserOrGuest,
    Path((room_id, event_id)): Path<(OwnedRoomId, OwnedEventId)>,
) -> Result<Json<Box<RawValue>>, ApiError> {
    let access = access_or_not_found(&api, &user.id, &room_id).await?;
    let found = access.event(&user.id, &event_id).await?;
    Ok(Json(access.render_one(found, &user).await?))
}

/// Without a room: the first one in which the user may see an event of that id.
pub(super) async fn get_anywhere(
    State(api): State<Api>,
    user: User,
    Path(event_id): Path<OwnedEventId>,
) -> Result<Json<Box<RawValue>>, ApiError> {
    for room_id in api.rooms.rooms_with_event(&event_id).await? {
        let seen = async {
            let access = access_or_not_found(&api, &user.id, &room_id).await?;
            let found = access.event(&user.id, &event_id).await?;
            access.render_one(found, &user).await
        };
        match seen.await {
            Ok(event) => return Ok(Json(event)),
            Err(error) if error.is(StatusCode::NOT_FOUND) => {}
            Err(error) => return Err(error),
        }
    }
    Err(no_event())
}
