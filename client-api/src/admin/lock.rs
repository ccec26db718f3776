//! `/admin/lock/{userId}`: whether an account is locked.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv1adminlockuserid>

use axum::extract::State;
use comity_accounts::Standing;
use comity_protocol::id::OwnedUserId;
use serde::{Deserialize, Serialize};

use super::moderated::account;
use crate::{Api, ApiError, Json, Path, User};

#[derive(Deserialize, Serialize)]
pub(super) struct Locked {
    locked: bool,
}

pub(super) async fn get(
    State(api): State<Api>,
    user: User,
    Path(of): Path<OwnedUserId>,
) -> Result<Json<Locked>, ApiError> {
    let locked = account(&api, &user, &of).await?.locked;
    Ok(Json(Locked { locked }))
}

pub(super) async fn put(
    State(api): State<Api>,
    user: User,
    Path(of): Path<OwnedUserId>,
    Json(asked): Json<Locked>,
) -> Result<Json<Locked>, ApiError> {
    account(&api, &user, &of).await?;
    let standing = Standing::Locked(asked.locked);
    api.accounts.set_standing(of.as_str(), standing).await?;
    Ok(Json(asked))
}
