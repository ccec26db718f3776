//! `POST /rooms/{roomId}/invite`: invites a user.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3roomsroomidinvite>

use axum::extract::State;
use comity_protocol::id::{OwnedRoomId, OwnedUserId};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{Api, ApiError, Json, Path, User, people};

#[derive(Deserialize)]
pub(super) struct Asked {
    user_id: Option<OwnedUserId>,
    reason: Option<String>,
    /// Of an invite by a third party's address.
    medium: Option<String>,
}

pub(super) async fn post(
    State(api): State<Api>,
    user: User,
    Path(room_id): Path<OwnedRoomId>,
    Json(asked): Json<Asked>,
) -> Result<Json<Value>, ApiError> {
    user.may_act()?;
    let Some(target) = asked.user_id else {
        return Err(match asked.medium {
            Some(_) => ApiError::forbidden("This server sends no third-party invites"),
            None => ApiError::bad_json("The field user_id is missing"),
        });
    };
    let profile = people::invitee(&api, &user.id, &target).await?;
    api.rooms
        .invite(
            &user.id,
            &room_id,
            &target,
            &profile,
            asked.reason.as_deref(),
        )
        .await?;
    Ok(Json(json!({})))
}
