//! `POST /login/get_token`: a token by which this device signs another one in.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv1loginget_token>

use axum::extract::State;
use comity_accounts::{Asker, Operation, Stage};
use serde_json::{Map, Value, json};

use crate::{Api, ApiError, Json, User, uia};

pub(super) async fn post(
    State(api): State<Api>,
    user: User,
    Json(body): Json<Map<String, Value>>,
) -> Result<Json<Value>, ApiError> {
    let operation = Operation {
        name: "POST /login/get_token",
        asker: Asker::User(user.id.as_str()),
        body: &body,
    };
    let shown = uia::authorise(&api, operation, &[&[Stage::Password]]).await?;
    let proof = shown
        .password
        .ok_or_else(|| ApiError::internal("the password's stage passed without a proof"))?;
    let (login_token, expires_in_ms) = api.accounts.login_token(user.id.as_str(), proof);
    Ok(Json(
        json!({ "login_token": login_token, "expires_in_ms": expires_in_ms }),
    ))
}
