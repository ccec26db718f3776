//! `GET /pushrules/`: all rulesets, of which there is one.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3pushrules>

use axum::extract::State;
use comity_protocol::push::Ruleset;
use serde::Serialize;

use crate::{Api, ApiError, Json, User};

#[derive(Serialize)]
pub(super) struct Answer {
    global: Ruleset,
}

pub(super) async fn get(State(api): State<Api>, user: User) -> Result<Json<Answer>, ApiError> {
    let rules = api.accounts.push_rules(user.id.as_str()).await?;
    let global = rules.ruleset(user.id.as_str());
    Ok(Json(Answer { global }))
}
