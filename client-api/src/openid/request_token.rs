//! `POST /user/{userId}/openid/request_token`: a token by which a third party learns who one is.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3useruseridopenidrequest_token>

use axum::extract::State;
use comity_accounts::Limit;
use comity_protocol::id::{OwnedServerName, OwnedUserId};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::{Api, ApiError, Json, Path, User};

#[derive(Serialize)]
pub(super) struct Answer {
    access_token: String,
    token_type: &'static str,
    matrix_server_name: OwnedServerName,
    expires_in: u64,
}

pub(super) async fn post(
    State(api): State<Api>,
    user: User,
    Path(of): Path<OwnedUserId>,
    Json(_): Json<Map<String, Value>>,
) -> Result<Json<Answer>, ApiError> {
    user.must_be(&of)?;
    api.limit(Limit::AccountChange, &user.id)?;
    let (access_token, lifetime) = api.accounts.openid_token(user.id.as_str())?;
    Ok(Json(Answer {
        access_token,
        token_type: "Bearer",
        matrix_server_name: api.rooms.server_name().to_owned(),
        expires_in: lifetime.as_secs(),
    }))
}
