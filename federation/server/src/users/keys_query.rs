//! `POST /user/keys/query`: the identity keys of our users' devices, and their cross-signing keys.
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#post_matrixfederationv1userkeysquery>

use std::collections::BTreeMap;

use axum::extract::State;
use comity_keys::Found;
use comity_protocol::id::OwnedUserId;
use serde::Deserialize;

use crate::{Api, ApiError, Json, request::Sent};

#[derive(Deserialize)]
pub(super) struct Asked {
    device_keys: BTreeMap<OwnedUserId, Vec<String>>,
}

/// Users of other servers, and those who aren't there, are left out: for them another server speaks, or nobody (threat E6).
pub(super) async fn post(
    State(api): State<Api>,
    Sent { body, .. }: Sent<Asked>,
) -> Result<Json<Found>, ApiError> {
    let ours = body.device_keys.into_iter();
    let ours = ours.filter(|(user, _)| user.server_name() == api.rooms.server_name());
    let asked = ours.map(|(user, devices)| (user.to_string(), devices));
    Ok(Json(api.device_keys.query(&asked.collect(), None).await?))
}
