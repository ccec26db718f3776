//! `/user/{userId}/rooms/{roomId}/tags/{tag}`: puts a tag on a room, and takes it off.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3useruseridroomsroomidtagstag>

use axum::extract::State;
use comity_accounts::Limit;
use comity_protocol::id::{OwnedRoomId, OwnedUserId};
use serde_json::{Map, Value};

use crate::{Api, ApiError, Json, Path, User};

pub(super) async fn put(
    State(api): State<Api>,
    user: User,
    Path((of, room, tag)): Path<(OwnedUserId, OwnedRoomId, String)>,
    Json(content): Json<Map<String, Value>>,
) -> Result<Json<Map<String, Value>>, ApiError> {
    user.must_be(&of)?;
    if content.get("order").is_some_and(|order| !order.is_number()) {
        return Err(ApiError::bad_json("A tag's order is a number"));
    }
    api.limit(Limit::AccountChange, &user.id)?;
    api.accounts
        .set_tag(user.id.as_str(), room.as_str(), &tag, &content)
        .await?;
    Ok(Json(Map::new()))
}

pub(super) async fn delete(
    State(api): State<Api>,
    user: User,
    Path((of, room, tag)): Path<(OwnedUserId, OwnedRoomId, String)>,
) -> Result<Json<Map<String, Value>>, ApiError> {
    user.must_be(&of)?;
    api.limit(Limit::AccountChange, &user.id)?;
    api.accounts
        .remove_tag(user.id.as_str(), room.as_str(), &tag)
        .await?;
    Ok(Json(Map::new()))
}
