//! `GET /timestamp_to_event/{roomId}`: the event next to a time.
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1timestamp_to_eventroomid>

use axum::extract::State;
use comity_protocol::id::{OwnedEventId, OwnedRoomId};
use serde::{Deserialize, Serialize};

use crate::{Api, ApiError, Json, Path, Query, request::Origin};

#[derive(Deserialize)]
pub(super) struct Asked {
    ts: i64,
    dir: Direction,
}

#[derive(Deserialize, PartialEq)]
enum Direction {
    #[serde(rename = "f")]
    Forwards,
    #[serde(rename = "b")]
    Backwards,
}

#[derive(Serialize)]
pub(super) struct Answer {
    event_id: OwnedEventId,
    origin_server_ts: i64,
}

pub(super) async fn get(
    State(api): State<Api>,
    Path(room_id): Path<OwnedRoomId>,
    Query(asked): Query<Asked>,
    Origin(origin): Origin,
) -> Result<Json<Answer>, ApiError> {
    let view = api.rooms.peer_view(&origin, &room_id).await?;
    let event = view
        .near(asked.ts, asked.dir == Direction::Backwards)
        .await?
        .ok_or_else(|| ApiError::not_found("There is no event on that side of the time"))?;
    Ok(Json(Answer {
        event_id: event.event_id().to_owned(),
        origin_server_ts: event.origin_server_ts(),
    }))
}
