//! `/profile/{userId}/{keyName}`: one field of a profile; everybody may read it, its user set and remove it.
//!
//! The display name and the avatar are shown in the user's rooms before the request is answered.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3profileuseridkeyname>

use axum::extract::State;
use comity_accounts::{AVATAR_URL, DISPLAY_NAME, Limit};
use comity_protocol::id::OwnedUserId;
use http::StatusCode;
use serde_json::{Map, Value};

use crate::{Api, ApiError, Json, Path, User, UserOrGuest, people};

type Answer = Json<Map<String, Value>>;

pub(super) async fn get(
    State(api): State<Api>,
    Path((user, field)): Path<(OwnedUserId, String)>,
) -> Result<Answer, ApiError> {
    let mut profile = api.accounts.profile(user.as_str()).await?;
    let value = profile
        .remove(&field)
        .ok_or_else(|| ApiError::not_found("The profile has no such field"))?;
    Ok(Json(Map::from_iter([(field, value)])))
}

pub(super) async fn put(
    State(api): State<Api>,
    UserOrGuest(user): UserOrGuest,
    Path((of, field)): Path<(OwnedUserId, String)>,
    Json(mut body): Json<Map<String, Value>>,
) -> Result<Answer, ApiError> {
    user.must_be(&of)?;
    let value = body
        .remove(&field)
        .ok_or_else(|| ApiError::missing_param("The body has not the field that the path names"))?;
    set(&api, &user, &field, Some(value)).await
}

pub(super) async fn delete(
    State(api): State<Api>,
    UserOrGuest(user): UserOrGuest,
    Path((of, field)): Path<(OwnedUserId, String)>,
) -> Result<Answer, ApiError> {
    user.must_be(&of)?;
    set(&api, &user, &field, None).await
}

async fn set(
    api: &Api,
    user: &User,
    field: &str,
    value: Option<Value>,
) -> Result<Answer, ApiError> {
    if user.is_guest() && field != DISPLAY_NAME {
        return Err(ApiError::new(
            StatusCode::FORBIDDEN,
            "M_GUEST_ACCESS_FORBIDDEN",
            "Guests have a display name only",
        ));
    }
    user.may_act()?;
    api.limit(Limit::AccountChange, &user.id)?;
    let id = user.id.as_str();
    api.accounts.set_profile_field(id, field, value).await?;
    if matches!(field, DISPLAY_NAME | AVATAR_URL) {
        // Also when nothing changed: the first try may have died before its rooms were told.
        let profile = people::profile(api, &user.id).await?;
        api.rooms.update_profile(&user.id, &profile).await?;
    }
    Ok(Json(Map::new()))
}
