//! `GET /register/available`: whether a name is free.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3registeravailable>

use axum::extract::State;
use comity_accounts::Limit;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{Address, Api, ApiError, Json, Query};

#[derive(Deserialize)]
pub(super) struct Asked {
    username: String,
}

pub(super) async fn get(
    State(api): State<Api>,
    Address(address): Address,
    Query(asked): Query<Asked>,
) -> Result<Json<Value>, ApiError> {
    // What it costs is a look at one name; asking for many is how names are harvested.
    api.limit(Limit::LoginByAddress, &address)?;
    api.accounts.check_available(&asked.username).await?;
    Ok(Json(json!({ "available": true })))
}
