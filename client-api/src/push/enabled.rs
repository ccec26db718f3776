//! `/pushrules/global/{kind}/{ruleId}/enabled`: whether a rule is looked at.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3pushrulesglobalkindruleidenabled>

use axum::extract::State;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{edit, find, kind};
use crate::{Api, ApiError, Json, Path, User};

#[derive(Deserialize, Serialize)]
pub(super) struct Enabled {
    enabled: bool,
}

pub(super) async fn get(
    State(api): State<Api>,
    user: User,
    Path((of, rule)): Path<(String, String)>,
) -> Result<Json<Enabled>, ApiError> {
    let enabled = find(&api, &user, &of, &rule).await?.enabled;
    Ok(Json(Enabled { enabled }))
}

pub(super) async fn put(
    State(api): State<Api>,
    user: User,
    Path((of, rule)): Path<(String, String)>,
    Json(Enabled { enabled }): Json<Enabled>,
) -> Result<Json<Map<String, Value>>, ApiError> {
    let kind = kind(&of)?;
    edit(&api, &user, |rules| rules.set_enabled(kind, &rule, enabled)).await?;
    Ok(Json(Map::new()))
}
