//! `GET /pushrules/global/`: the one ruleset there is.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3pushrulesglobal>

use axum::extract::State;
use comity_protocol::push::Ruleset;

use crate::{Api, ApiError, Json, User};

pub(super) async fn get(State(api): State<Api>, user: User) -> Result<Json<Ruleset>, ApiError> {
    let rules = api.accounts.push_rules(user.id.as_str()).await?;
    Ok(Json(rules.ruleset(user.id.as_str())))
}
