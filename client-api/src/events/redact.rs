//! `PUT /rooms/{roomId}/redact/{eventId}/{txnId}`: takes an event's content back.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3roomsroomidredacteventidtxnid>

use axum::extract::State;
use comity_protocol::id::{OwnedEventId, OwnedRoomId};
use comity_rooms::Intent;
use serde_json::{Map, Value};

use super::send::{Answer, send, transaction};
use crate::{Api, ApiError, Json, Path, User};

pub(super) async fn put(
    State(api): State<Api>,
    user: User,
    Path((room_id, event_id, txn_id)): Path<(OwnedRoomId, OwnedEventId, String)>,
    Json(mut content): Json<Map<String, Value>>,
) -> Result<Json<Answer>, ApiError> {
    if let Err(suspended) = user.may_act() {
        // The one thing that suspended users may do in a room is to take back what they said.
        let found = api.rooms.view(&room_id).await?.event(&event_id).await?;
        if found.is_none_or(|found| found.event.sender() != user.id) {
            return Err(suspended);
        }
    }
    if !content.get("reason").is_none_or(Value::is_string) {
        return Err(ApiError::bad_json("reason is not a string"));
    }
    content.remove("redacts");
    let transaction = transaction(&user, format!("redact/{event_id}"), txn_id);
    let intent = Intent {
        redacts: Some(event_id),
        ..Intent::message(&user.id, "m.room.redaction", &content)
    };
    send(&api, &user, &room_id, intent, Some(&transaction)).await
}
