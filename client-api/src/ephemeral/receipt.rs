//! `POST /rooms/{roomId}/receipt/{receiptType}/{eventId}`: says how far one has read.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3roomsroomidreceiptreceipttypeeventid>

use axum::extract::State;
use comity_accounts::Limit;
use comity_protocol::id::OwnedRoomId;
use comity_rooms::ReceiptKind;
use serde::Deserialize;
use serde_json::{Value, json};

use super::marker;
use crate::{Api, ApiError, Json, Path, User};

#[derive(Deserialize)]
pub(super) struct Asked {
    /// A value of any kind, since one of a wrong kind has an error of its own.
    thread_id: Option<Value>,
}

pub(super) async fn post(
    State(api): State<Api>,
    user: User,
    Path((room_id, kind, event_id)): Path<(OwnedRoomId, String, String)>,
    Json(Asked { thread_id }): Json<Asked>,
) -> Result<Json<Value>, ApiError> {
    api.limit(Limit::InPassing, &user.id)?;
    let event_id = marker::read_event_id(&event_id)?;
    let thread = match &thread_id {
        None => None,
        Some(Value::String(thread)) if !thread.is_empty() => Some(thread.as_str()),
        Some(_) => {
            return Err(ApiError::invalid_param(
                "thread_id is not a string, or an empty one",
            ));
        }
    };
    match ReceiptKind::from_name(&kind) {
        Some(kind) => {
            marker::receipt(&api, &user.id, &room_id, kind, &event_id, thread).await?;
        }
        None if kind != "m.fully_read" => {
            return Err(ApiError::invalid_param("There is no such type of receipt"));
        }
        None if thread.is_some() => {
            return Err(ApiError::invalid_param("m.fully_read knows no threads"));
        }
        None => marker::fully_read(&api, &user.id, &room_id, &event_id).await?,
    }
    Ok(Json(json!({})))
}
