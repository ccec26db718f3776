//! `POST /user/keys/query`: the identity keys of our users' devices.
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#post_matrixfederationv1userkeysquery>

use std::collections::BTreeMap;

use axum::extract::State;
use comity_protocol::id::OwnedUserId;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{Api, ApiError, Json, request::Sent};

#[derive(Deserialize)]
pub(super) struct Asked {
    device_keys: BTreeMap<OwnedUserId, Vec<String>>,
}

#[derive(Serialize)]
pub(super) struct Answer {
    device_keys: BTreeMap<OwnedUserId, BTreeMap<String, Value>>,
}

/// Users of other servers, and those who aren't there, are left out: for them another server speaks, or nobody (threat E6).
pub(super) async fn post(
    State(api): State<Api>,
    Sent { body, .. }: Sent<Asked>,
) -> Result<Json<Answer>, ApiError> {
    let mut device_keys = BTreeMap::new();
    for (user_id, _) in body.device_keys {
        let user = api.accounts.user(user_id.as_str()).await?;
        if user.is_some_and(|user| !user.deactivated) {
            device_keys.insert(user_id, BTreeMap::new());
        }
    }
    Ok(Json(Answer { device_keys }))
}
