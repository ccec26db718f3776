//! `PUT /send_leave/{roomId}/{eventId}`: a user of the asking server leaves, or declines an invite.
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#put_matrixfederationv2send_leaveroomideventid>

use axum::extract::State;
use comity_protocol::id::{OwnedEventId, OwnedRoomId};
use serde_json::{Value, json, value::RawValue};

use super::send::Membership;
use crate::{Api, ApiError, Json, Path, ask_others, request::Sent};

type Room = (OwnedRoomId, OwnedEventId);

pub(super) async fn v2(
    State(api): State<Api>,
    Path(path): Path<Room>,
    sent: Sent<Box<RawValue>>,
) -> Result<Json<Value>, ApiError> {
    leave(&api, path, sent).await?;
    Ok(Json(json!({})))
}

/// As older servers ask, and are answered: a pair of status and answer.
pub(super) async fn v1(
    State(api): State<Api>,
    Path(path): Path<Room>,
    sent: Sent<Box<RawValue>>,
) -> Result<Json<Value>, ApiError> {
    leave(&api, path, sent).await?;
    Ok(Json(json!([200, {}])))
}

async fn leave(
    api: &Api,
    (room_id, event_id): Room,
    Sent { origin, body }: Sent<Box<RawValue>>,
) -> Result<(), ApiError> {
    let Membership { event, keys } =
        Membership::read(api, &origin, (&room_id, &event_id), &body).await?;
    let left = api.rooms.send_leave(&origin, &room_id, event, &keys).await;
    left.map_err(ask_others)
}
