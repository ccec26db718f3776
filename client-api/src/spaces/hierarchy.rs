//! `GET /rooms/{roomId}/hierarchy`: the rooms of a space, by pages.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1roomsroomidhierarchy>

use axum::extract::State;
use comity_accounts::Limit;
use comity_protocol::id::OwnedRoomId;
use comity_rooms::Hierarchy;
use comity_web::SpaceRoom;
use serde::{Deserialize, Serialize};

use crate::{Api, ApiError, Json, Path, Query, User};

#[derive(Deserialize)]
pub(super) struct Asked {
    suggested_only: Option<bool>,
    limit: Option<usize>,
    max_depth: Option<usize>,
    from: Option<String>,
}

#[derive(Serialize)]
pub(super) struct Answer {
    rooms: Vec<SpaceRoom>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_batch: Option<String>,
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
        rooms: page.rooms.into_iter().map(SpaceRoom::from).collect(),
        next_batch: page.next,
    }))
}
