//! `POST /join/{roomIdOrAlias}`: joins a room by its id or one of its aliases.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3joinroomidoralias>

use axum::extract::State;
use comity_accounts::Limit;
use comity_protocol::id::{OwnedRoomId, OwnedServerName};
use comity_rooms::Join;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::{
    Api, ApiError, Json, Path, Query, User, UserOrGuest,
    named_room::{named_room, via},
    people,
};

#[derive(Serialize)]
pub(super) struct Answer {
    room_id: OwnedRoomId,
}

/// Guests may do so as they may by id: it is the same request, and the one that client libraries make.
pub(super) async fn post(
    State(api): State<Api>,
    UserOrGuest(user): UserOrGuest,
    Path(room): Path<String>,
    Query(query): Query<Vec<(String, String)>>,
    Json(asked): Json<Map<String, Value>>,
) -> Result<Json<Answer>, ApiError> {
    let (room_id, servers) = named_room(&api, &room).await?;
    let via = [via(&query), servers].concat();
    enter(&api, &user, room_id, via, asked).await
}

/// Joins the room. What else the body has becomes part of the member event, which clients rely on.
pub(super) async fn enter(
    api: &Api,
    user: &User,
    room_id: OwnedRoomId,
    via: Vec<OwnedServerName>,
    mut asked: Map<String, Value>,
) -> Result<Json<Answer>, ApiError> {
    user.may_act()?;
    api.limit(Limit::Join, &user.id)?;
    let reason = match asked.remove("reason") {
        None | Some(Value::Null) => None,
        Some(Value::String(reason)) => Some(reason),
        Some(_) => return Err(ApiError::bad_json("reason is not a string")),
    };
    asked.remove("third_party_signed");
    let join = Join {
        profile: people::profile(api, &user.id).await?,
        reason,
        extra: asked,
        guest: user.is_guest(),
        via,
    };
    api.rooms.join(&user.id, &room_id, join).await?;
    api.succession.carry_over(&user.id, &room_id).await?;
    Ok(Json(Answer { room_id }))
}
