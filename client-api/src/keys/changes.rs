//! `GET /keys/changes`: whose keys changed between two tokens of `/sync`.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3keyschanges>

use axum::extract::State;
use comity_sync::{
    DeviceLists,
    token::{SyncToken, Token},
};
use serde::Deserialize;

use crate::{Api, ApiError, Json, Query, UserOrGuest};

#[derive(Deserialize)]
pub(super) struct Between {
    from: String,
    to: String,
}

pub(super) async fn get(
    State(api): State<Api>,
    UserOrGuest(user): UserOrGuest,
    Query(Between { from, to }): Query<Between>,
) -> Result<Json<DeviceLists>, ApiError> {
    let (from, to) = (token(&from)?, token(&to)?);
    Ok(Json(api.sync.key_changes(&user.id, &from, &to).await?))
}

fn token(token: &str) -> Result<SyncToken, ApiError> {
    match token.parse() {
        Ok(Token::Sync(token)) => Ok(token),
        Ok(Token::Place(_)) | Err(_) => Err(ApiError::invalid_param("This is no token of a sync")),
    }
}
