//! `/user/{userId}/filter`: filters stored to be named in a sync.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3useruseridfilter>
//! <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3useruseridfilterfilterid>

use axum::extract::State;
use comity_protocol::id::OwnedUserId;
use comity_sync::filter::Filter;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::{Api, ApiError, Json, Path, User};

#[derive(Serialize)]
pub(super) struct Stored {
    filter_id: String,
}

pub(super) async fn post(
    State(api): State<Api>,
    user: User,
    Path(user_id): Path<OwnedUserId>,
    Json(filter): Json<Map<String, Value>>,
) -> Result<Json<Stored>, ApiError> {
    user.must_be(&user_id)?;
    let text = Value::Object(filter.clone()).to_string();
    Filter::parse(&text).map_err(|bad| ApiError::bad_json(bad.0))?;
    let filter_id = api
        .accounts
        .create_filter(user.id.as_str(), &filter)
        .await?;
    Ok(Json(Stored { filter_id }))
}

pub(super) async fn get(
    State(api): State<Api>,
    user: User,
    Path((user_id, filter_id)): Path<(OwnedUserId, String)>,
) -> Result<Json<Map<String, Value>>, ApiError> {
    user.must_be(&user_id)?;
    Ok(Json(
        api.accounts.filter(user.id.as_str(), &filter_id).await?,
    ))
}
