//! `PUT /send_knock/{roomId}/{eventId}`: a user of the asking server knocks.
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#put_matrixfederationv1send_knockroomideventid>

use axum::extract::State;
use comity_protocol::id::{OwnedEventId, OwnedRoomId};
use serde::Serialize;
use serde_json::value::RawValue;

use super::send::Membership;
use crate::{Api, ApiError, Json, Path, ask_others, pdu::pdus, request::Sent};

#[derive(Serialize)]
pub(super) struct Answer {
    knock_room_state: Vec<Box<RawValue>>,
}

pub(super) async fn put(
    State(api): State<Api>,
    Path((room_id, event_id)): Path<(OwnedRoomId, OwnedEventId)>,
    Sent { origin, body }: Sent<Box<RawValue>>,
) -> Result<Json<Answer>, ApiError> {
    let Membership { event, keys } =
        Membership::read(&api, &origin, (&room_id, &event_id), &body).await?;
    let knocked = api.rooms.send_knock(&origin, &room_id, event, &keys).await;
    Ok(Json(Answer {
        knock_room_state: pdus(&knocked.map_err(ask_others)?)?,
    }))
}
