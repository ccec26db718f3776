//! `POST` and `PUT /_synapse/admin/v1/send_server_notice`: tells a user something on the server's behalf, as Synapse's
//! administration tools ask for it.
//!
//! <https://element-hq.github.io/synapse/latest/admin_api/server_notices.html>

use axum::extract::State;
use comity_protocol::{
    auth::Membership,
    id::{OwnedEventId, OwnedRoomId, OwnedUserId, UserId},
};
use comity_rooms::{CreateRoom, Intent, Invitee, Preset, Profile, Transaction};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{room_of, sender};
use crate::{Api, ApiError, Json, Path, User, people, read};

/// The tag by which clients know the room.
const TAG: &str = "m.server_notice";
const NAME: &str = "Server Notices";

#[derive(Deserialize)]
struct Asked {
    user_id: OwnedUserId,
    content: Map<String, Value>,
    #[serde(rename = "type")]
    event_type: Option<String>,
    state_key: Option<String>,
}

#[derive(Serialize)]
pub(super) struct Answer {
    event_id: OwnedEventId,
}

pub(super) async fn post(
    State(api): State<Api>,
    user: User,
    Json(asked): Json<Map<String, Value>>,
) -> Result<Json<Answer>, ApiError> {
    send(&api, &user, asked, None).await
}

pub(super) async fn put(
    State(api): State<Api>,
    user: User,
    Path(txn): Path<String>,
    Json(asked): Json<Map<String, Value>>,
) -> Result<Json<Answer>, ApiError> {
    let txn = Transaction {
        user: user.id.clone(),
        device: user.device.clone(),
        path: "send_server_notice".to_owned(),
        txn,
    };
    send(&api, &user, asked, Some(txn)).await
}

/// Who asks is looked at before what they ask for.
async fn send(
    api: &Api,
    user: &User,
    asked: Map<String, Value>,
    txn: Option<Transaction>,
) -> Result<Json<Answer>, ApiError> {
    user.must_be_admin()?;
    let asked: Asked = read(asked)?;
    let target = asked.user_id;
    let account = api.accounts.user(target.as_str()).await?;
    if account.is_none_or(|account| account.deactivated) {
        return Err(ApiError::not_found("There is no such user here"));
    }
    let sender = sender(api)?;
    let room_id = open_room(api, &sender, &target).await?;
    let event_type = asked.event_type.as_deref().unwrap_or("m.room.message");
    let intent = match &asked.state_key {
        Some(key) => Intent::state(&sender, event_type, key, &asked.content),
        None => Intent::message(&sender, event_type, &asked.content),
    };
    let change = api.rooms.change(&room_id).await?;
    if let Some(txn) = &txn
        && let Some(done) = change.done(txn).await?
    {
        // It may have been appended only; it is durable when this is.
        change.commit().await?;
        return Ok(Json(Answer {
            event_id: done.event_id,
        }));
    }
    let placed = change.send(intent, txn.as_ref()).await?;
    Ok(Json(Answer {
        event_id: placed.event_id,
    }))
}

/// The user's notices room, made where there is none, the user in it or invited.
async fn open_room(api: &Api, sender: &UserId, target: &UserId) -> Result<OwnedRoomId, ApiError> {
    let known = room_of(api, target).await?;
    let profile = people::profile(api, target).await?;
    let room_id = match known {
        Some((room_id, Membership::Join | Membership::Invite)) => return Ok(room_id),
        Some((room_id, _)) => {
            api.rooms
                .invite(sender, &room_id, target, &profile, None)
                .await?;
            room_id
        }
        None => {
            let me = Profile {
                displayname: Some(NAME.to_owned()),
                avatar_url: None,
            };
            let invitee = Invitee {
                user: target.to_owned(),
                profile,
            };
            let mut levels = Map::new();
            // Notices are no conversation.
            levels.insert("users_default".to_owned(), (-10).into());
            let request = CreateRoom {
                preset: Some(Preset::Private),
                name: Some(NAME.to_owned()),
                invite: vec![invitee],
                power_level_content_override: levels,
                ..CreateRoom::default()
            };
            api.rooms.create_room(sender, &me, request).await?
        }
    };
    api.accounts
        .set_tag(target.as_str(), room_id.as_str(), TAG, &Map::new())
        .await?;
    Ok(room_id)
}
