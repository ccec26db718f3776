//! `GET /event/{eventId}`: one event, of whichever room.
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1eventeventid>

use axum::extract::State;
use comity_protocol::id::OwnedEventId;

use crate::{
    Api, ApiError, Json, Path,
    pdu::{Transaction, pdus},
    request::Origin,
};

pub(super) async fn get(
    State(api): State<Api>,
    Path(event_id): Path<OwnedEventId>,
    Origin(origin): Origin,
) -> Result<Json<Transaction>, ApiError> {
    let event = api.rooms.peer_event(&origin, &event_id).await?;
    Ok(Json(Transaction::of(&api, pdus(&[event])?)))
}
