//! `GET /user/{userId}/rooms/{roomId}/tags`: how a user sorts a room.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3useruseridroomsroomidtags>

use axum::extract::State;
use comity_accounts::TAGS;
use comity_protocol::id::{OwnedRoomId, OwnedUserId};
use serde_json::{Value, json};

use crate::{Api, ApiError, Json, Path, User};

pub(super) async fn get(
    State(api): State<Api>,
    user: User,
    Path((of, room)): Path<(OwnedUserId, OwnedRoomId)>,
) -> Result<Json<Value>, ApiError> {
    user.must_be(&of)?;
    let content = api
        .accounts
        .room_account_data(user.id.as_str(), room.as_str(), TAGS)
        .await?;
    // Clients may also have written the type themselves, in whatever shape.
    let tags = content.as_ref().and_then(|content| content.get("tags"));
    let tags = tags.filter(|tags| tags.is_object()).cloned();
    Ok(Json(json!({ "tags": tags.unwrap_or_else(|| json!({})) })))
}
