//! `POST /keys/query`: the identity keys of users' devices, and their cross-signing keys.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3keysquery>

use std::collections::BTreeMap;

use axum::extract::State;
use comity_accounts::Limit;
use comity_keys::{Failures, Found};
use comity_protocol::id::OwnedUserId;
use serde::{Deserialize, Serialize};

use super::patience;
use crate::{Api, ApiError, Json, UserOrGuest};

#[derive(Deserialize)]
pub(super) struct Body {
    device_keys: BTreeMap<OwnedUserId, Vec<String>>,
    /// In milliseconds.
    timeout: Option<u64>,
}

#[derive(Serialize)]
pub(super) struct Answer {
    #[serde(flatten)]
    found: Found,
    failures: Failures,
}

pub(super) async fn post(
    State(api): State<Api>,
    UserOrGuest(user): UserOrGuest,
    Json(body): Json<Body>,
) -> Result<Json<Answer>, ApiError> {
    api.limit(Limit::Keys, &user.id)?;
    let servers = body.device_keys.keys().map(|of| of.server_name()).collect();
    api.limit_strangers(&user.id, servers).await?;
    let time = patience(body.timeout);
    let asked = api.keys.query_all(&body.device_keys, &user.id, time);
    let (found, failures) = asked.await?;
    Ok(Json(Answer { found, failures }))
}
