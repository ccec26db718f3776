//! `GET /.well-known/matrix/server`: where this server is, if not where its name says.
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#getwell-knownmatrixserver>

use axum::extract::State;
use serde_json::{Value, json};

use crate::{Api, ApiError, Json};

pub(super) async fn get(State(api): State<Api>) -> Result<Json<Value>, ApiError> {
    let delegated_to = api.settings.delegated_to.as_ref();
    let server =
        delegated_to.ok_or_else(|| ApiError::not_found("The server is where its name says"))?;
    Ok(Json(json!({ "m.server": server })))
}
