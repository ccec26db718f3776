//! `GET /rooms/{roomId}/hierarchy`: the rooms of a space, by pages.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1roomsroomidhierarchy>

use axum::extract::State;
use comity_accounts::Limit;
use comity_protocol::{event::Event, id::OwnedRoomId};
use comity_rooms::{Hierarchy, HierarchyRoom};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{Api, ApiError, Json, Path, Query, User, summary::RoomSummary};

#[derive(Deserialize)]
pub(super) struct Asked {
    suggested_only: Option<bool>,
    limit: Option<usize>,
    max_depth: Option<usize>,
    from: Option<String>,
}

#[derive(Serialize)]
pub(super) struct Answer {
    rooms: Vec<Room>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_batch: Option<String>,
}

#[derive(Serialize)]
struct Room {
    #[serde(flatten)]
    summary: RoomSummary,
    children_state: Vec<Child>,
}

#[derive(Serialize)]
struct Child {
    #[serde(rename = "type")]
    event_type: String,
    state_key: String,
    sender: String,
    content: Box<RawValue>,
    origin_server_ts: i64,
}

pub(super) async fn get(
    State(api): State<Api>,
    user: User,
    Path(room_id): Path<OwnedRoomId>,
    Query(asked): Query<Asked>,
) -> Result<Json<Answer>, ApiError> {
    api.limit(Limit::Directory, &user.id)?;
    if asked.limit == Some(0) {
        return Err(ApiError::invalid_param("limit is not greater than zero"));
    }
    let request = Hierarchy {
        suggested_only: asked.suggested_only.unwrap_or_default(),
        limit: asked.limit,
        max_depth: asked.max_depth,
        from: asked.from,
    };
    let page = api.rooms.hierarchy(&user.id, &room_id, &request).await?;
    Ok(Json(Answer {
        rooms: page.rooms.into_iter().map(Room::from).collect(),
        next_batch: page.next,
    }))
}

impl From<HierarchyRoom> for Room {
    fn from(room: HierarchyRoom) -> Self {
        Self {
            summary: room.summary.into(),
            children_state: room.children.iter().map(Child::from).collect(),
        }
    }
}

impl From<&Event> for Child {
    fn from(event: &Event) -> Self {
        Self {
            event_type: event.event_type().to_owned(),
            state_key: event.state_key().unwrap_or_default().to_owned(),
            sender: event.sender().to_string(),
            content: event.content().to_owned(),
            origin_server_ts: event.origin_server_ts(),
        }
    }
}
