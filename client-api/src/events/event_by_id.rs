//! `GET /events/{eventId}`, deprecated: an event without its room; of the rooms that have one of that id, the first in which the
//! user may see it.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3eventseventid>

use axum::extract::State;
use comity_protocol::id::OwnedEventId;
use http::StatusCode;
use serde_json::value::RawValue;

use super::access::{access_or_not_found, no_event};
use crate::{Api, ApiError, Json, Path, User};

pub(super) async fn get(
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
