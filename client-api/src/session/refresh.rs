//! `POST /refresh`: the next pair of tokens.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3refresh>

use axum::extract::State;
use comity_accounts::Limit;
use serde::{Deserialize, Serialize};

use crate::{Address, Api, ApiError, Json};

#[derive(Deserialize)]
pub(super) struct Refresh {
    refresh_token: String,
}

#[derive(Serialize)]
pub(super) struct Answer {
    access_token: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    refresh_token: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_in_ms: Option<u64>,
}

pub(super) async fn post(
    State(api): State<Api>,
    Address(address): Address,
    Json(Refresh { refresh_token }): Json<Refresh>,
) -> Result<Json<Answer>, ApiError> {
    api.limit(Limit::LoginByAddress, &address)?;
    let issued = api.accounts.refresh(&refresh_token).await?;
    Ok(Json(Answer {
        access_token: issued.access_token,
        refresh_token: issued.refresh_token,
        expires_in_ms: issued.expires_in_ms,
    }))
}
