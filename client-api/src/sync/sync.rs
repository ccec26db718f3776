//! `GET /sync`: what changed for a user since a token.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3sync>

use std::{pin::pin, time::Duration};

use axum::extract::State;
use comity_accounts::{AccountError, presence};
use comity_sync::{Answer, Request, filter::Filter, token::Token};
use serde::Deserialize;
use serde_json::Value;

use super::while_signed_in;
use crate::{Api, ApiError, Json, Query, User, UserOrGuest};

#[derive(Deserialize)]
pub(super) struct Wanted {
    filter: Option<String>,
    since: Option<String>,
    #[serde(default)]
    full_state: bool,
    set_presence: Option<String>,
    /// In milliseconds.
    #[serde(default)]
    timeout: u64,
    #[serde(default)]
    use_state_after: bool,
}

pub(super) async fn get(
    State(api): State<Api>,
    UserOrGuest(user): UserOrGuest,
    Query(wanted): Query<Wanted>,
) -> Result<Json<Answer>, ApiError> {
    let since = match wanted.since.as_deref().filter(|since| !since.is_empty()) {
        None => None,
        Some(since) => match since.parse() {
            Ok(Token::Sync(since)) => Some(since),
            Ok(Token::Place(_)) | Err(_) => {
                return Err(ApiError::invalid_param("since is no token of a sync"));
            }
        },
    };
    let state = presence_of(wanted.set_presence.as_deref())?;
    let request = Request {
        user: user.id.clone(),
        device: user.device.clone(),
        to_device: true,
        filter: filter(&api, &user, wanted.filter.as_deref()).await?,
        since,
        full_state: wanted.full_state,
        use_state_after: wanted.use_state_after,
        timeout: Duration::from_millis(wanted.timeout),
    };
    let presence = api.accounts.presence();
    presence.saw(user.id.as_str(), Some(state), false);
    let answer = async { Ok(api.sync.sync(&request).await?) };
    while_signed_in(&user, pin!(answer)).await.map(Json)
}

/// As what who syncs is seen.
pub(super) fn presence_of(name: Option<&str>) -> Result<presence::State, ApiError> {
    match name {
        None => Ok(presence::State::Online),
        Some(name) => presence::State::parse(name)
            .ok_or_else(|| ApiError::invalid_param("There is no such presence")),
    }
}

/// The filter itself, or the one stored under an id.
async fn filter(api: &Api, user: &User, filter: Option<&str>) -> Result<Filter, ApiError> {
    let Some(filter) = filter.filter(|filter| !filter.is_empty()) else {
        return Ok(Filter::default());
    };
    let stored;
    let json = if filter.starts_with('{') {
        filter
    } else {
        // Apart, as the requests that wait would all keep the room that reading it takes.
        let read = Box::pin(api.accounts.filter(user.id.as_str(), filter));
        stored = match read.await {
            Ok(stored) => Value::Object(stored).to_string(),
            Err(AccountError::NotFound(_)) => {
                return Err(ApiError::invalid_param("There is no such filter"));
            }
            Err(error) => return Err(error.into()),
        };
        &stored
    };
    Filter::parse(json).map_err(|bad| ApiError::invalid_param(bad.0))
}
