//! `/pushrules/global/{kind}/{ruleId}`: one rule.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3pushrulesglobalkindruleid>

use axum::extract::State;
use comity_protocol::push::{NewRule, Position, Rule};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{edit, find, kind};
use crate::{Api, ApiError, Json, Path, Query, User};

/// Where the rule goes among the user's own.
#[derive(Deserialize)]
pub(super) struct Place {
    before: Option<String>,
    after: Option<String>,
}

pub(super) async fn get(
    State(api): State<Api>,
    user: User,
    Path((of, rule)): Path<(String, String)>,
) -> Result<Json<Rule>, ApiError> {
    Ok(Json(find(&api, &user, &of, &rule).await?))
}

pub(super) async fn put(
    State(api): State<Api>,
    user: User,
    Path((of, rule)): Path<(String, String)>,
    Query(Place { before, after }): Query<Place>,
    Json(new): Json<NewRule>,
) -> Result<Json<Map<String, Value>>, ApiError> {
    let kind = kind(&of)?;
    let place = Position { before, after };
    edit(&api, &user, |rules| {
        rules.put(kind, &rule, new.clone(), &place)
    })
    .await?;
    Ok(Json(Map::new()))
}

pub(super) async fn delete(
    State(api): State<Api>,
    user: User,
    Path((of, rule)): Path<(String, String)>,
) -> Result<Json<Map<String, Value>>, ApiError> {
    let kind = kind(&of)?;
    edit(&api, &user, |rules| rules.delete(kind, &rule)).await?;
    Ok(Json(Map::new()))
}
