//! `/presence/{userId}/status`: whether a user is there, for those who share a room with them.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3presenceuseridstatus>

use axum::extract::State;
use comity_accounts::{Limit, presence};
use comity_protocol::id::OwnedUserId;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{Api, ApiError, Json, Path, User};

/// Longest status message, in bytes: every contact gets it.
const MAX_STATUS_BYTES: usize = 1_024;

#[derive(Serialize)]
pub(super) struct Answer {
    presence: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_active_ago: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status_msg: Option<String>,
    currently_active: bool,
}

#[derive(Deserialize)]
pub(super) struct Asked {
    presence: String,
    status_msg: Option<String>,
}

pub(super) async fn get(
    State(api): State<Api>,
    user: User,
    Path(of): Path<OwnedUserId>,
) -> Result<Json<Answer>, ApiError> {
    if user.id != of && api.rooms.mutual_rooms(&user.id, &of).await?.is_empty() {
        return Err(ApiError::forbidden("You share no room with this user"));
    }
    let seen = api.accounts.presence().get(of.as_str());
    let ago = seen.last_active_ago.map(|ago| ago.as_millis());
    Ok(Json(Answer {
        presence: seen.state.as_str(),
        last_active_ago: ago.and_then(|ago| u64::try_from(ago).ok()),
        status_msg: seen.status_msg,
        currently_active: seen.currently_active,
    }))
}

pub(super) async fn put(
    State(api): State<Api>,
    user: User,
    Path(of): Path<OwnedUserId>,
    Json(asked): Json<Asked>,
) -> Result<Json<Map<String, Value>>, ApiError> {
    user.must_be(&of)?;
    user.may_act()?;
    let state = presence::State::parse(&asked.presence)
        .ok_or_else(|| ApiError::invalid_param("There is no such presence"))?;
    let text = asked.status_msg.as_deref();
    if text.is_some_and(|text| text.len() > MAX_STATUS_BYTES) {
        return Err(ApiError::too_large("The status message is too long"));
    }
    api.limit(Limit::AccountChange, &user.id)?;
    let presence = api.accounts.presence();
    presence.set(user.id.as_str(), state, asked.status_msg);
    Ok(Json(Map::new()))
}
