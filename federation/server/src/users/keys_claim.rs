//! `POST /user/keys/claim`: one-time keys of our users' devices.
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#post_matrixfederationv1userkeysclaim>

use std::collections::BTreeMap;

use axum::extract::State;
use comity_keys::Claimed;
use comity_protocol::id::OwnedUserId;
use serde::{Deserialize, Serialize};

use crate::{Api, ApiError, Json, request::Sent};

#[derive(Deserialize)]
pub(super) struct Asked {
    one_time_keys: BTreeMap<OwnedUserId, BTreeMap<String, String>>,
}

#[derive(Serialize)]
pub(super) struct Answer {
    one_time_keys: Claimed,
}

pub(super) async fn post(
    State(api): State<Api>,
    Sent { body, .. }: Sent<Asked>,
) -> Result<Json<Answer>, ApiError> {
    let ours = body.one_time_keys.into_iter();
    let ours = ours.filter(|(user, _)| user.server_name() == api.rooms.server_name());
    let wanted = ours.map(|(user, devices)| (user.to_string(), devices));
    Ok(Json(Answer {
        one_time_keys: api.device_keys.claim(&wanted.collect()).await?,
    }))
}
