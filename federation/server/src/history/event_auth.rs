//! `GET /event_auth/{roomId}/{eventId}`: what an event rests on.
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1event_authroomideventid>

use axum::{extract::State, response::Response};
use comity_protocol::id::{OwnedEventId, OwnedRoomId};

use crate::{
    Api, ApiError, Path,
    portions::{Part, answer},
    request::Origin,
};

pub(super) async fn get(
    State(api): State<Api>,
    Path((room_id, event_id)): Path<(OwnedRoomId, OwnedEventId)>,
    Origin(origin): Origin,
) -> Result<Response, ApiError> {
    let about = [event_id.clone()];
    let view = api.rooms.peer_view_about(&origin, &room_id, &about);
    let view = view.await?;
    let chain = view.event_auth(&event_id).await?;
    let parts = vec![
        Part::text(r#"{"auth_chain":["#),
        Part::Events(chain),
        Part::text("]}"),
    ];
    Ok(answer(view, parts))
}
