//! `/user/{userId}/rooms/{roomId}/account_data/{type}`: account data of a room.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3useruseridroomsroomidaccount_datatype>

use axum::extract::State;
use comity_accounts::Limit;
use comity_protocol::id::{OwnedRoomId, OwnedUserId};
use serde_json::{Map, Value};

use super::refused;
use crate::{Api, ApiError, Json, Path, User};

pub(super) async fn get(
    State(api): State<Api>,
    user: User,
    Path((of, room, kind)): Path<(OwnedUserId, OwnedRoomId, String)>,
) -> Result<Json<Value>, ApiError> {
    user.must_be(&of)?;
    let content = api
        .accounts
        .room_account_data(user.id.as_str(), room.as_str(), &kind)
        .await?;
    content
        .map(Json)
        .ok_or_else(|| ApiError::not_found("The room has no account data of this type"))
}

pub(super) async fn put(
    State(api): State<Api>,
    user: User,
    Path((of, room, kind)): Path<(OwnedUserId, OwnedRoomId, String)>,
    Json(content): Json<Map<String, Value>>,
) -> Result<Json<Map<String, Value>>, ApiError> {
    user.must_be(&of)?;
    api.limit(Limit::AccountChange, &user.id)?;
    api.accounts
        .set_room_account_data(user.id.as_str(), room.as_str(), &kind, &content)
        .await
        .map_err(refused)?;
    Ok(Json(Map::new()))
}

/// <https://github.com/matrix-org/matrix-spec-proposals/pull/3391>
pub(super) async fn delete(
    State(api): State<Api>,
    user: User,
    Path((of, room, kind)): Path<(OwnedUserId, OwnedRoomId, String)>,
) -> Result<Json<Map<String, Value>>, ApiError> {
    user.must_be(&of)?;
    api.limit(Limit::AccountChange, &user.id)?;
    api.accounts
        .delete_room_account_data(user.id.as_str(), room.as_str(), &kind)
        .await
        .map_err(refused)?;
    Ok(Json(Map::new()))
}
