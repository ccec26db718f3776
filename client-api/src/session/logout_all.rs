//! `POST /logout/all`: signs all of the user's devices out.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3logoutall>

use axum::extract::State;
use serde_json::{Map, Value};

use crate::{Api, ApiError, Json, SigningOut};

pub(super) async fn post(
    State(api): State<Api>,
    SigningOut(user): SigningOut,
) -> Result<Json<Map<String, Value>>, ApiError> {
    api.accounts.logout_all(user.id.as_str(), None).await?;
    Ok(Json(Map::new()))
}
