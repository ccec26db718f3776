//! `GET /mutual_rooms`: the rooms one shares with somebody.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1mutual_rooms>

use axum::extract::State;
use comity_accounts::Limit;
use comity_protocol::id::{OwnedRoomId, RoomId, UserId, is_compliant};
use serde::{Deserialize, Serialize};

use crate::{Api, ApiError, Json, Query, User};

/// Rooms on a page.
const PAGE: usize = 100;

#[derive(Deserialize)]
pub(super) struct Asked {
    user_id: Option<String>,
    from: Option<String>,
}

#[derive(Serialize)]
pub(super) struct Answer {
    joined: Vec<OwnedRoomId>,
    count: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_batch: Option<String>,
}

/// A page ends with a room; the token is its id, and the next begins after it, whatever has come or gone.
pub(super) async fn get(
    State(api): State<Api>,
    user: User,
    Query(asked): Query<Asked>,
) -> Result<Json<Answer>, ApiError> {
    api.limit(Limit::Directory, &user.id)?;
    let other = asked
        .user_id
        .ok_or_else(|| ApiError::missing_param("The parameter user_id is missing"))?;
    let other = UserId::parse(other)
        .ok()
        .filter(|other| is_compliant(other) && *other != user.id)
        .ok_or_else(|| ApiError::invalid_param("user_id is not another user's id"))?;
    let from = asked.from.map(RoomId::parse).transpose();
    let from = from.map_err(|_| ApiError::invalid_param("from is not a token of this endpoint"))?;
    let shared = api.rooms.mutual_rooms(&user.id, &other).await?;
    let count = shared.len();
    let mut rest = shared
        .into_iter()
        .skip_while(|room_id| from.as_ref().is_some_and(|from| room_id <= from));
    let joined: Vec<OwnedRoomId> = rest.by_ref().take(PAGE).collect();
    let next_batch = rest
        .next()
        .and_then(|_| joined.last().map(ToString::to_string));
    Ok(Json(Answer {
        joined,
        count,
        next_batch,
    }))
}
