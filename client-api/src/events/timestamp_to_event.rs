//! `GET /rooms/{roomId}/timestamp_to_event`: the event next to a time.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1roomsroomidtimestamp_to_event>

use axum::extract::State;
use comity_accounts::Limit;
use comity_protocol::id::{OwnedEventId, OwnedRoomId};
use serde::{Deserialize, Serialize};

use super::{Access, Direction};
use crate::{Api, ApiError, Json, Path, Query, User};

#[derive(Deserialize)]
pub(super) struct When {
    ts: i64,
    dir: Direction,
}

#[derive(Serialize)]
pub(super) struct Answer {
    event_id: OwnedEventId,
    origin_server_ts: i64,
}

pub(super) async fn get(
    State(api): State<Api>,
    user: User,
    Path(room_id): Path<OwnedRoomId>,
    Query(when): Query<When>,
) -> Result<Json<Answer>, ApiError> {
    api.limit(Limit::LookUp, &user.id)?;
    let access = Access::of(&api, &user.id, &room_id).await?;
    let backwards = when.dir == Direction::Backwards;
    let found = api
        .rooms
        .jump(&access.view, &user.id, when.ts, backwards)
        .await?;
    let (event_id, origin_server_ts) =
        found.ok_or_else(|| ApiError::not_found("There is no event in that direction"))?;
    Ok(Json(Answer {
        event_id,
        origin_server_ts,
    }))
}
