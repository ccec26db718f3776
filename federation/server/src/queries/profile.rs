//! `GET /query/profile`: the profile of one of our users, or a field of it.
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1queryprofile>

use axum::extract::State;
use comity_protocol::id::OwnedUserId;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::{Api, ApiError, Json, Query, request::Origin};

#[derive(Deserialize)]
pub(super) struct Asked {
    user_id: OwnedUserId,
    field: Option<String>,
}

pub(super) async fn get(
    State(api): State<Api>,
    Query(Asked { user_id, field }): Query<Asked>,
    Origin(_): Origin,
) -> Result<Json<Map<String, Value>>, ApiError> {
    if user_id.server_name() != api.rooms.server_name() {
        return Err(ApiError::not_found("The user is another server's"));
    }
    let mut profile = api.accounts.profile(user_id.as_str()).await?;
    if let Some(field) = field {
        profile.retain(|name, _| *name == field);
    }
    Ok(Json(profile))
}
