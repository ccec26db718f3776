//! `POST /rooms/{roomId}/report/{eventId}`: reports an event of a room one is in.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3roomsroomidreporteventid>

use axum::extract::State;
use comity_accounts::Reported;
use comity_protocol::{
    auth::Membership,
    id::{EventId, OwnedEventId, OwnedRoomId, RoomId},
};
use comity_rooms::RoomError;
use serde_json::{Map, Value};

use super::{Asked, keep, limit};
use crate::{Api, ApiError, Json, Path, User};

pub(super) async fn post(
    State(api): State<Api>,
    user: User,
    Path((room, event)): Path<(OwnedRoomId, OwnedEventId)>,
    Json(Asked { reason }): Json<Asked>,
) -> Result<Json<Map<String, Value>>, ApiError> {
    limit(&api, &user)?;
    if !may_see(&api, &user, &room, &event).await? {
        return Err(ApiError::not_found(
            "There is no such event, or you are not in its room",
        ));
    }
    let about = Reported::Event {
        room_id: room.to_string(),
        event_id: event.to_string(),
    };
    keep(&api, &user, about, reason).await?;
    Ok(Json(Map::new()))
}

async fn may_see(
    api: &Api,
    user: &User,
    room: &RoomId,
    event: &EventId,
) -> Result<bool, RoomError> {
    let room = match api.rooms.view(room).await {
        Err(RoomError::UnknownRoom) => return Ok(false),
        room => room?,
    };
    if room.membership(&user.id).await? != Membership::Join {
        return Ok(false);
    }
    let found = room.event(event).await?.into_iter().collect();
    Ok(!room.only_visible(found, &user.id).await?.is_empty())
}
