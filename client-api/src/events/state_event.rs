//! `/rooms/{roomId}/state/{eventType}/{stateKey}`: a piece of state; without its last part, and with or without the slash, the one
//! whose key is empty.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3roomsroomidstateeventtypestatekey>
//! <https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3roomsroomidstateeventtypestatekey>

use axum::extract::State;
use comity_accounts::Limit;
use comity_protocol::{
    auth::Membership,
    id::{OwnedRoomId, UserId},
};
use comity_rooms::Intent;
use serde::Deserialize;
use serde_json::{Map, Value, value::RawValue};

use super::{
    Access,
    access::no_event,
    send::{Answer, send},
};
use crate::{Api, ApiError, Json, Path, Query, UserOrGuest, notices, people};

#[derive(Deserialize)]
pub(super) struct Of {
    room_id: OwnedRoomId,
    event_type: String,
    #[serde(default)]
    state_key: String,
}

#[derive(Deserialize)]
pub(super) struct Shape {
    #[serde(default)]
    format: Format,
}

#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Format {
    #[default]
    Content,
    Event,
}

pub(super) async fn get(
    State(api): State<Api>,
    UserOrGuest(user): UserOrGuest,
    Path(of): Path<Of>,
    Query(shape): Query<Shape>,
) -> Result<Json<Box<RawValue>>, ApiError> {
    let mut access = Access::of(&api, &user.id, &of.room_id).await?;
    let (event_type, state_key) = (&of.event_type, &of.state_key);
    let in_state = access.view.state_in(access.root, event_type, state_key);
    let mut found = in_state.await?;
    if found.is_none() && access.root.is_partial() {
        access = Access::of_whole(&api, &user.id, &of.room_id).await?;
        let in_state = access.view.state_in(access.root, event_type, state_key);
        found = in_state.await?;
    }
    let found = found.ok_or_else(|| ApiError::not_found("The room has no such state"))?;
    Ok(Json(match shape.format {
        Format::Content => {
            let veiled = access.view.veiled(vec![found].into(), &user.id).await?;
            let found = veiled.first().ok_or_else(no_event)?;
            found.event.content().to_owned()
        }
        Format::Event => access.render_one(found, &user).await?,
    }))
}

pub(super) async fn put(
    State(api): State<Api>,
    UserOrGuest(user): UserOrGuest,
    Path(of): Path<Of>,
    Json(content): Json<Box<RawValue>>,
) -> Result<Json<Answer>, ApiError> {
    // One's own leave is free to everybody, another's is a kick.
    let leaves =
        of.event_type == "m.room.member" && of.state_key == user.id.as_str() && is_leave(&content);
    if leaves {
        notices::may_leave(&api, &user.id, &of.room_id).await?;
    } else {
        user.may_act()?;
    }
    if of.event_type == "m.room.canonical_alias" && of.state_key.is_empty() {
        api.rooms
            .check_canonical_alias(&of.room_id, &content)
            .await?;
    }
    if of.event_type == "m.room.member" {
        api.limit(Limit::Send, &user.id)?;
        let target = <&UserId>::try_from(of.state_key.as_str())
            .map_err(|_| ApiError::invalid_param("The state key is no user id"))?;
        let content: Map<String, Value> = serde_json::from_str(content.get())
            .map_err(|_| ApiError::bad_json("The content can't be read"))?;
        people::may_be_invited(&api, &user.id, target, content.get("membership")).await?;
        let joins = content.get("membership").is_some_and(|is| is == "join");
        let before = api.rooms.member(&user.id, &of.room_id).await?;
        let was_in = before.is_some_and(|row| row.value.membership() == Membership::Join);
        let guest = user.is_guest();
        let placed = api
            .rooms
            .set_membership(&user.id, &of.room_id, target, content, guest)
            .await?;
        if joins && !was_in {
            let succession = &api.succession;
            succession.carry_over(&user.id, &of.room_id).await?;
        }
        return Ok(Json(placed.into()));
    }
    let intent = Intent {
        sender: user.id.clone(),
        event_type: of.event_type,
        state_key: Some(of.state_key),
        content,
        redacts: None,
    };
    send(&api, &user, &of.room_id, intent, None).await
}

/// Suspended users may leave.
fn is_leave(content: &RawValue) -> bool {
    let content: Result<Map<String, Value>, _> = serde_json::from_str(content.get());
    content.is_ok_and(|content| content.get("membership").is_some_and(|is| is == "leave"))
}
