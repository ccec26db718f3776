//! `POST /get_missing_events/{roomId}`: what lies between events that a server has and those it has just heard of.
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#post_matrixfederationv1get_missing_eventsroomid>

use axum::extract::State;
use comity_protocol::id::{OwnedEventId, OwnedRoomId};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{Api, ApiError, Json, Path, pdu::pdus, request::Sent};

/// Events where the server doesn't say.
const DEFAULT: usize = 10;

#[derive(Deserialize)]
pub(super) struct Asked {
    limit: Option<usize>,
    #[serde(default)]
    min_depth: u64,
    earliest_events: Vec<OwnedEventId>,
    latest_events: Vec<OwnedEventId>,
}

#[derive(Serialize)]
pub(super) struct Answer {
    events: Vec<Box<RawValue>>,
}

pub(super) async fn post(
    State(api): State<Api>,
    Path(room_id): Path<OwnedRoomId>,
    Sent { origin, body }: Sent<Asked>,
) -> Result<Json<Answer>, ApiError> {
    let (earliest, latest) = (&body.earliest_events, &body.latest_events);
    let view = api.rooms.peer_view_about(&origin, &room_id, latest);
    let view = view.await?;
    let limit = body.limit.unwrap_or(DEFAULT);
    let events = view
        .missing_events(earliest, latest, limit, body.min_depth)
        .await?;
    Ok(Json(Answer {
        events: pdus(&events)?,
    }))
}
