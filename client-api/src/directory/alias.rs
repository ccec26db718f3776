//! `/directory/room/{roomAlias}`: where an alias leads.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3directoryroomroomalias>

use axum::extract::State;
use comity_protocol::id::{OwnedRoomAliasId, OwnedRoomId, OwnedServerName};
use comity_rooms::RoomError;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{Api, ApiError, Json, Path, User};

#[derive(Serialize)]
pub(super) struct Answer {
    room_id: OwnedRoomId,
    servers: Vec<OwnedServerName>,
}

pub(super) async fn get(
    State(api): State<Api>,
    Path(alias): Path<OwnedRoomAliasId>,
) -> Result<Json<Answer>, ApiError> {
    let found = api.rooms.resolve_alias(&alias).await?;
    Ok(Json(Answer {
        room_id: found.room_id,
        servers: found.servers,
    }))
}

#[derive(Deserialize)]
pub(super) struct Asked {
    room_id: OwnedRoomId,
}

/// <https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3directoryroomroomalias>
pub(super) async fn put(
    State(api): State<Api>,
    user: User,
    Path(alias): Path<OwnedRoomAliasId>,
    Json(Asked { room_id }): Json<Asked>,
) -> Result<Json<Value>, ApiError> {
    user.may_act()?;
    api.rooms
        .create_alias(&user.id, &alias, &room_id)
        .await
        .map_err(|error| match error {
            RoomError::Taken(_) => ApiError::new(
                StatusCode::CONFLICT,
                "M_UNKNOWN",
                format!("Room alias {alias} already exists"),
            ),
            error => error.into(),
        })?;
    Ok(Json(json!({})))
}

/// <https://spec.matrix.org/v1.19/client-server-api/#delete_matrixclientv3directoryroomroomalias>
pub(super) async fn delete(
    State(api): State<Api>,
    user: User,
    Path(alias): Path<OwnedRoomAliasId>,
) -> Result<Json<Value>, ApiError> {
    user.may_act()?;
    api.rooms.delete_alias(&user.id, &alias).await?;
    Ok(Json(json!({})))
}
