//! `GET /openid/userinfo`: whose OpenID token this is, for anybody who was given one.
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1openiduserinfo>

use axum::extract::State;
use serde::{Deserialize, Serialize};

use crate::{Api, ApiError, Json, Query};

#[derive(Deserialize)]
pub(super) struct Asked {
    access_token: String,
}

#[derive(Serialize)]
pub(super) struct Answer {
    sub: String,
}

pub(super) async fn get(
    State(api): State<Api>,
    Query(asked): Query<Asked>,
) -> Result<Json<Answer>, ApiError> {
    let sub = api.accounts.openid_user(&asked.access_token).await?;
    Ok(Json(Answer { sub }))
}
