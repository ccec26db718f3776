//! `POST /keys/claim`: one-time keys, each given away once.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3keysclaim>

use std::collections::BTreeMap;

use axum::extract::State;
use comity_accounts::Limit;
use comity_keys::{Claimed, Failures};
use comity_protocol::id::OwnedUserId;
use serde::{Deserialize, Serialize};

use super::patience;
use crate::{Api, ApiError, Json, UserOrGuest};

#[derive(Deserialize)]
pub(super) struct Body {
    one_time_keys: BTreeMap<OwnedUserId, BTreeMap<String, String>>,
    /// In milliseconds.
    timeout: Option<u64>,
}

#[derive(Serialize)]
pub(super) struct Answer {
    one_time_keys: Claimed,
    failures: Failures,
}

pub(super) async fn post(
    State(api): State<Api>,
    UserOrGuest(user): UserOrGuest,
    Json(body): Json<Body>,
) -> Result<Json<Answer>, ApiError> {
    api.limit(Limit::Keys, &user.id)?;
    let wanted = body.one_time_keys.keys();
    let servers = wanted.map(|of| of.server_name()).collect();
    api.limit_strangers(&user.id, servers).await?;
    let time = patience(body.timeout);
    let claimed = api.keys.claim_all(body.one_time_keys, time);
    let (one_time_keys, failures) = claimed.await?;
    Ok(Json(Answer {
        one_time_keys,
        failures,
    }))
}
