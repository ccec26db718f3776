//! `/pushrules/global/{kind}/{ruleId}/actions`: what a rule does when it matches.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3pushrulesglobalkindruleidactions>

use axum::extract::State;
use comity_protocol::push::Action;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{edit, find, kind};
use crate::{Api, ApiError, Json, Path, User};

#[derive(Serialize)]
pub(super) struct Answer {
    actions: Vec<Action>,
}

#[derive(Deserialize)]
pub(super) struct Asked {
    actions: Vec<Value>,
}

pub(super) async fn get(
    State(api): State<Api>,
    user: User,
    Path((of, rule)): Path<(String, String)>,
) -> Result<Json<Answer>, ApiError> {
    let actions = find(&api, &user, &of, &rule).await?.actions;
    Ok(Json(Answer { actions }))
}

pub(super) async fn put(
    State(api): State<Api>,
    user: User,
    Path((of, rule)): Path<(String, String)>,
    Json(Asked { actions }): Json<Asked>,
) -> Result<Json<Map<String, Value>>, ApiError> {
    let kind = kind(&of)?;
    edit(&api, &user, |rules| {
        rules.set_actions(kind, &rule, &actions)
    })
    .await?;
    Ok(Json(Map::new()))
}
