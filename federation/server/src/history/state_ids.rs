//! `GET /state_ids/{roomId}`: the state before an event by its events' ids.
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1state_idsroomid>

use axum::extract::State;
use comity_protocol::id::{OwnedEventId, OwnedRoomId};
use serde::Serialize;

use super::At;
use crate::{Api, ApiError, Json, Path, Query, request::Origin};

#[derive(Serialize)]
pub(super) struct Answer {
    auth_chain_ids: Vec<OwnedEventId>,
    pdu_ids: Vec<OwnedEventId>,
}

pub(super) async fn get(
    State(api): State<Api>,
    Path(room_id): Path<OwnedRoomId>,
    Query(At { event_id }): Query<At>,
    Origin(origin): Origin,
) -> Result<Json<Answer>, ApiError> {
    let about = [event_id.clone()];
    let view = api.rooms.peer_view_about(&origin, &room_id, &about);
    let view = view.await?;
    let state = view.state_before(&event_id).await?;
    Ok(Json(Answer {
        auth_chain_ids: view.ids(&state.auth_chain).await?,
        pdu_ids: view.ids(&state.state).await?,
    }))
}
