//! `GET /dehydrated_device/{deviceId}/events`: what the device was sent, a part at a time. It stays, so that another client can
//! begin anew, until the device goes. `POST` is the same as earlier drafts had it: with a token always, so that the last part is
//! the one without events.
//!
//! <https://github.com/matrix-org/matrix-spec-proposals/pull/3814>

use axum::extract::State;
use comity_accounts::AccountError;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{Api, ApiError, Json, Path, Query, User};

#[derive(Deserialize)]
pub(super) struct Since {
    from: Option<String>,
}

#[derive(Deserialize)]
pub(super) struct Body {
    next_batch: Option<String>,
}

#[derive(Serialize)]
pub(super) struct Answer {
    events: Vec<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_batch: Option<String>,
}

pub(super) async fn get(
    State(api): State<Api>,
    user: User,
    Path(device_id): Path<String>,
    Query(query): Query<Since>,
) -> Result<Json<Answer>, ApiError> {
    let (mut answer, more) = part(&api, &user, &device_id, query.from).await?;
    answer.next_batch = answer.next_batch.filter(|_| more);
    Ok(Json(answer))
}

pub(super) async fn post(
    State(api): State<Api>,
    user: User,
    Path(device_id): Path<String>,
    Json(body): Json<Body>,
) -> Result<Json<Answer>, ApiError> {
    let (answer, _) = part(&api, &user, &device_id, body.next_batch).await?;
    Ok(Json(answer))
}

/// The messages after a token, and whether there are more.
async fn part(
    api: &Api,
    user: &User,
    device_id: &str,
    token: Option<String>,
) -> Result<(Answer, bool), ApiError> {
    let since = match token {
        None => 0,
        Some(token) => position(&token).ok_or_else(|| ApiError::invalid_param("Unknown token"))?,
    };
    match api.accounts.dehydrated(user.id.as_str()).await {
        Ok(device) if device.device_id == device_id => {}
        Ok(_) | Err(AccountError::NotFound(_)) => {
            return Err(ApiError::forbidden("This is not your dehydrated device"));
        }
        Err(error) => return Err(error.into()),
    }
    let delivery = api.to_device.peek(&user.id, device_id, since).await?;
    let answer = Answer {
        events: delivery.events,
        next_batch: Some(format!("d{}", delivery.upto)),
    };
    Ok((answer, delivery.more))
}

/// The place in the queue that a token of ours stands for.
fn position(token: &str) -> Option<u64> {
    token.strip_prefix('d')?.parse().ok()
}
