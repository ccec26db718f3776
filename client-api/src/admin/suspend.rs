//! `/admin/suspend/{userId}`: whether an account is suspended.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv1adminsuspenduserid>

use axum::extract::State;
use comity_accounts::Standing;
use comity_protocol::id::OwnedUserId;
use serde::{Deserialize, Serialize};

use super::moderated::account;
use crate::{Api, ApiError, Json, Path, User};

#[derive(Deserialize, Serialize)]
pub(super) struct Suspended {
    suspended: bool,
}

pub(super) async fn get(
    State(api): State<Api>,
    user: User,
    Path(of): Path<OwnedUserId>,
) -> Result<Json<Suspended>, ApiError> {
    let suspended = account(&api, &user, &of).await?.suspended;
    Ok(Json(Suspended { suspended }))
}

pub(super) async fn put(
    State(api): State<Api>,
    user: User,
    Path(of): Path<OwnedUserId>,
    Json(asked): Json<Suspended>,
) -> Result<Json<Suspended>, ApiError> {
    account(&api, &user, &of).await?;
    let standing = Standing::Suspended(asked.suspended);
    api.accounts.set_standing(of.as_str(), standing).await?;
    Ok(Json(asked))
}
