//! `POST /keys/claim`: one-time keys, each given away once.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3keysclaim>

use std::collections::BTreeMap;

use axum::extract::State;
use comity_keys::Claimed;
use comity_protocol::id::OwnedUserId;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{Api, ApiError, Json, UserOrGuest};

#[derive(Deserialize)]
pub(super) struct Body {
    one_time_keys: BTreeMap<OwnedUserId, BTreeMap<String, String>>,
}

#[derive(Serialize)]
pub(super) struct Answer {
    one_time_keys: Claimed,
    failures: Map<String, Value>,
}

pub(super) async fn post(
    State(api): State<Api>,
    UserOrGuest(_): UserOrGuest,
    Json(body): Json<Body>,
) -> Result<Json<Answer>, ApiError> {
    let wanted = body.one_time_keys.into_iter();
    let wanted = wanted.map(|(user, devices)| (user.to_string(), devices));
    Ok(Json(Answer {
        one_time_keys: api.keys.claim(&wanted.collect()).await?,
        failures: Map::new(),
    }))
}
