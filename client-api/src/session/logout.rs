//! `POST /logout`: signs this device out.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3logout>

use axum::extract::State;
use serde_json::{Map, Value};

use crate::{Api, ApiError, Json, SigningOut};

pub(super) async fn post(
    State(api): State<Api>,
    SigningOut(user): SigningOut,
) -> Result<Json<Map<String, Value>>, ApiError> {
    api.accounts.logout(&user.session).await?;
    Ok(Json(Map::new()))
}
