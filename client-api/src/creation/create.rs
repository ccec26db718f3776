//! `POST /createRoom`: makes a room.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3createroom>

use axum::extract::State;
use comity_accounts::Limit;
use comity_protocol::id::{OwnedRoomId, OwnedUserId, UserId};
use comity_rooms::{CreateRoom, Invitee, Preset, StateEvent, Visibility};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, value::RawValue};

use crate::{Api, ApiError, Json, User, people};

#[derive(Deserialize)]
pub(super) struct Asked {
    visibility: Option<Listed>,
    room_alias_name: Option<String>,
    name: Option<String>,
    topic: Option<String>,
    invite: Option<Vec<OwnedUserId>>,
    invite_3pid: Option<Vec<Value>>,
    room_version: Option<String>,
    creation_content: Option<Map<String, Value>>,
    initial_state: Option<Vec<Initial>>,
    preset: Option<Named>,
    is_direct: Option<bool>,
    power_level_content_override: Option<Map<String, Value>>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Listed {
    Public,
    Private,
}

#[derive(Clone, Copy, Deserialize)]
enum Named {
    #[serde(rename = "private_chat")]
    Private,
    #[serde(rename = "public_chat")]
    Public,
    #[serde(rename = "trusted_private_chat")]
    TrustedPrivate,
}

#[derive(Deserialize)]
struct Initial {
    #[serde(rename = "type")]
    event_type: String,
    #[serde(default)]
    state_key: String,
    content: Box<RawValue>,
}

#[derive(Serialize)]
pub(super) struct Answer {
    room_id: OwnedRoomId,
}

pub(super) async fn post(
    State(api): State<Api>,
    user: User,
    Json(asked): Json<Asked>,
) -> Result<Json<Answer>, ApiError> {
    user.may_act()?;
    api.limit(Limit::Join, &user.id)?;
    let mut invite = Vec::new();
    // One who takes no invites stops the room: better than a room whose creator waits for them.
    for invitee in asked.invite.unwrap_or_default() {
        let profile = people::invitee(&api, &user.id, &invitee).await?;
        invite.push(Invitee {
            user: invitee,
            profile,
        });
    }
    let initial_state = asked.initial_state.unwrap_or_default();
    for event in initial_state
        .iter()
        .filter(|it| it.event_type == "m.room.member")
    {
        check_first_member(&api, &user, event).await?;
    }
    let request = CreateRoom {
        visibility: match asked.visibility {
            Some(Listed::Public) => Visibility::Public,
            Some(Listed::Private) | None => Visibility::Private,
        },
        room_alias_name: asked.room_alias_name,
        name: asked.name,
        topic: asked.topic,
        invite,
        invites_3pid: asked.invite_3pid.is_some_and(|invites| !invites.is_empty()),
        room_version: asked.room_version,
        creation_content: asked.creation_content.unwrap_or_default(),
        initial_state: initial_state
            .into_iter()
            .map(|event| StateEvent {
                event_type: event.event_type,
                state_key: event.state_key,
                content: event.content,
            })
            .collect(),
        preset: asked.preset.map(|preset| match preset {
            Named::Private => Preset::Private,
            Named::Public => Preset::Public,
            Named::TrustedPrivate => Preset::TrustedPrivate,
        }),
        is_direct: asked.is_direct.unwrap_or_default(),
        power_level_content_override: asked.power_level_content_override.unwrap_or_default(),
    };
    let profile = people::profile(&api, &user.id).await?;
    let room_id = api.rooms.create_room(&user.id, &profile, request).await?;
    Ok(Json(Answer { room_id }))
}

/// A membership that a room is to begin with is asked about like any other; an invite that another server must hear of goes by `invite`.
async fn check_first_member(api: &Api, user: &User, event: &Initial) -> Result<(), ApiError> {
    let target = <&UserId>::try_from(event.state_key.as_str())
        .map_err(|_| ApiError::invalid_param("The state key is no user id"))?;
    let content: Map<String, Value> = serde_json::from_str(event.content.get())
        .map_err(|_| ApiError::bad_json("The content can't be read"))?;
    if target.server_name() != api.rooms.server_name() {
        return Err(ApiError::bad(
            "M_INVALID_ROOM_STATE",
            "Users of other servers are invited by invite, not by initial_state",
        ));
    }
    people::may_be_invited(api, &user.id, target, content.get("membership")).await
}
