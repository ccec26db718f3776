//! `GET /register/m.login.registration_token/validity`: whether a registration token would be taken.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1registermloginregistration_tokenvalidity>

use axum::extract::State;
use comity_accounts::Limit;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{Address, Api, ApiError, Json, Query};

#[derive(Deserialize)]
pub(super) struct Asked {
    token: String,
}

pub(super) async fn get(
    State(api): State<Api>,
    Address(address): Address,
    Query(asked): Query<Asked>,
) -> Result<Json<Value>, ApiError> {
    api.limit(Limit::LoginByAddress, &address)?;
    let valid = api
        .accounts
        .registration_token_is_valid(&asked.token)
        .await?;
    Ok(Json(json!({ "valid": valid })))
}
