//! `GET /state/{roomId}`: the state before an event, and what it rests on.
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1stateroomid>

use axum::{extract::State, response::Response};
use comity_protocol::id::OwnedRoomId;

use super::At;
use crate::{
    Api, ApiError, Path, Query,
    portions::{Part, answer},
    request::Origin,
};

pub(super) async fn get(
    State(api): State<Api>,
    Path(room_id): Path<OwnedRoomId>,
    Query(At { event_id }): Query<At>,
    Origin(origin): Origin,
) -> Result<Response, ApiError> {
    let about = [event_id.clone()];
    let view = api.rooms.peer_view_about(&origin, &room_id, &about);
    let view = view.await?;
    let state = view.state_before(&event_id).await?;
    let parts = vec![
        Part::text(r#"{"auth_chain":["#),
        Part::Events(state.auth_chain),
        Part::text(r#"],"pdus":["#),
        Part::Events(state.state),
        Part::text("]}"),
    ];
    Ok(answer(view, parts))
}
