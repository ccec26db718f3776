//! `POST /rooms/{roomId}/ban`: bans a user from a room, in which they may be or not.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3roomsroomidban>

use axum::extract::State;
use comity_accounts::Limit;
use comity_protocol::id::OwnedRoomId;
use serde_json::{Value, json};

use super::target::Target;
use crate::{Api, ApiError, Json, Path, User};

pub(super) async fn post(
    State(api): State<Api>,
    user: User,
    Path(room_id): Path<OwnedRoomId>,
    Json(Target { user_id, reason }): Json<Target>,
) -> Result<Json<Value>, ApiError> {
    user.may_act()?;
    api.limit(Limit::Send, &user.id)?;
    api.rooms
        .ban(&user.id, &room_id, &user_id, reason.as_deref())
        .await?;
    Ok(Json(json!({})))
}
