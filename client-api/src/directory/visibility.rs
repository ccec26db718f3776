//! `/directory/list/room/{roomId}`: whether a room is in the directory.
//!
//! Of one that isn't, nobody learns here that it exists who could not learn it by its preview (threat E5).
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3directorylistroomroomid>

use axum::extract::State;
use comity_protocol::id::OwnedRoomId;
use comity_rooms::{RoomError, Visibility};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{Api, ApiError, Json, Path, User, UserOrGuest};

#[derive(Clone, Copy, Default, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
enum Listed {
    #[default]
    Public,
    Private,
}

#[derive(Serialize)]
pub(super) struct Answer {
    visibility: Listed,
}

pub(super) async fn get(
    State(api): State<Api>,
    user: Option<UserOrGuest>,
    Path(room_id): Path<OwnedRoomId>,
) -> Result<Json<Answer>, ApiError> {
    let visibility = match api.rooms.visibility(&room_id).await.map_err(unknown)? {
        Visibility::Public => Listed::Public,
        Visibility::Private => {
            let user = user.as_ref().map(|UserOrGuest(user)| &*user.id);
            api.rooms.preview(user, &room_id).await.map_err(unknown)?;
            Listed::Private
        }
    };
    Ok(Json(Answer { visibility }))
}

#[derive(Deserialize)]
pub(super) struct Asked {
    #[serde(default)]
    visibility: Listed,
}

/// <https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3directorylistroomroomid>
pub(super) async fn put(
    State(api): State<Api>,
    user: User,
    Path(room_id): Path<OwnedRoomId>,
    Json(asked): Json<Asked>,
) -> Result<Json<Value>, ApiError> {
    user.may_act()?;
    let visibility = match asked.visibility {
        Listed::Public => Visibility::Public,
        Listed::Private => Visibility::Private,
    };
    let member = (!user.is_admin()).then_some(&*user.id);
    api.rooms
        .set_visibility(member, &room_id, visibility)
        .await?;
    Ok(Json(json!({})))
}

fn unknown(error: RoomError) -> ApiError {
    match error {
        RoomError::UnknownRoom => ApiError::not_found("There is no such room, or you can't see it"),
        error => error.into(),
    }
}
