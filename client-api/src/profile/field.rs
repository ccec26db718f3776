//! `/profile/{userId}/{keyName}`: one field of a profile; everybody may read it, its user set and remove it.
//!
//! The display name and the avatar are shown in the user's rooms before the request is answered.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3profileuseridkeyname>

use axum::extract::State;
use comity_accounts::{AVATAR_URL, DISPLAY_NAME, Limit};
use comity_protocol::id::OwnedUserId;
use comity_storage::Batch;
use http::StatusCode;
use serde_json::{Map, Value};

use super::profile_of;
use crate::{Address, Api, ApiError, Json, Path, User, UserOrGuest, people};

type Answer = Json<Map<String, Value>>;

pub(super) async fn get(
    State(api): State<Api>,
    address: Address,
    Path((user, field)): Path<(OwnedUserId, String)>,
) -> Result<Answer, ApiError> {
    let mut profile = profile_of(&api, &address, &user, Some(&field)).await?;
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
    let shown = matches!(field, DISPLAY_NAME | AVATAR_URL);
    let note = |batch: &mut Batch, profile: &Map<String, Value>| {
        if shown {
            let profile = people::shown(profile);
            api.rooms.note_profile(batch, &user.id, &profile);
        }
    };
    api.accounts
        .change_profile(user.id.as_str(), field, value, note)
        .await?;
    if shown {
        // Also when nothing changed: then what is still to be shown of an earlier change is.
        api.rooms.show_profile(&user.id).await?;
    }
    Ok(Json(Map::new()))
}
