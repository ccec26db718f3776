//! `POST /keys/query`: the identity keys of users' devices, and their cross-signing keys.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3keysquery>

use std::collections::BTreeMap;

use axum::extract::State;
use comity_keys::Found;
use comity_protocol::id::OwnedUserId;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{Api, ApiError, Json, UserOrGuest};

#[derive(Deserialize)]
pub(super) struct Body {
    device_keys: BTreeMap<OwnedUserId, Vec<String>>,
}

#[derive(Serialize)]
pub(super) struct Answer {
    #[serde(flatten)]
    found: Found,
    failures: Map<String, Value>,
}

pub(super) async fn post(
    State(api): State<Api>,
    UserOrGuest(user): UserOrGuest,
    Json(body): Json<Body>,
) -> Result<Json<Answer>, ApiError> {
    let asked = body.device_keys.into_iter();
    let asked = asked.map(|(user, devices)| (user.to_string(), devices));
    let asked = asked.collect();
    let found = api.keys.query(&asked, Some(user.id.as_str())).await?;
    let failures = Map::new();
    Ok(Json(Answer { found, failures }))
}
