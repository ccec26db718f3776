//! `POST /users/{userId}/report`: reports a user.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3usersuseridreport>

use axum::extract::State;
use comity_accounts::Reported;
use comity_protocol::id::OwnedUserId;
use serde_json::{Map, Value};

use super::{Asked, keep, limit};
use crate::{Api, ApiError, Json, Path, User};

pub(super) async fn post(
    State(api): State<Api>,
    user: User,
    Path(of): Path<OwnedUserId>,
    Json(Asked { reason }): Json<Asked>,
) -> Result<Json<Map<String, Value>>, ApiError> {
    limit(&api, &user)?;
    let ours = of.server_name() == api.rooms.server_name();
    // The same answer for users of ours who don't exist: who has an account is not told.
    if !ours || api.accounts.user(of.as_str()).await?.is_some() {
        keep(&api, &user, Reported::User(of.to_string()), reason).await?;
    }
    Ok(Json(Map::new()))
}
