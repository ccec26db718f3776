//! `POST /rooms/{roomId}/read_markers`: moves the fully read marker, and receipts with it.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3roomsroomidread_markers>

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
    #[serde(rename = "m.fully_read")]
    fully_read: Option<String>,
    #[serde(rename = "m.read")]
    read: Option<String>,
    #[serde(rename = "m.read.private")]
    read_private: Option<String>,
}

pub(super) async fn post(
    State(api): State<Api>,
    user: User,
    Path(room_id): Path<OwnedRoomId>,
    Json(asked): Json<Asked>,
) -> Result<Json<Value>, ApiError> {
    api.limit(Limit::InPassing, &user.id)?;
    if let Some(event_id) = asked.fully_read {
        let event_id = marker::read_event_id(&event_id)?;
        marker::fully_read(&api, &user.id, &room_id, &event_id).await?;
    }
    for (kind, event_id) in [
        (ReceiptKind::Read, asked.read),
        (ReceiptKind::ReadPrivate, asked.read_private),
    ] {
        if let Some(event_id) = event_id {
            let event_id = marker::read_event_id(&event_id)?;
            marker::receipt(&api, &user.id, &room_id, kind, &event_id, None).await?;
        }
    }
    Ok(Json(json!({})))
}
