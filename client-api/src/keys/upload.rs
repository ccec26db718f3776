//! `POST /keys/upload`: a device's keys.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3keysupload>

use std::collections::BTreeMap;

use axum::extract::State;
use comity_accounts::Limit;
use comity_keys::Upload;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{Api, ApiError, Json, UserOrGuest};

#[derive(Deserialize)]
pub(super) struct Body {
    device_keys: Option<Box<RawValue>>,
    one_time_keys: Option<BTreeMap<String, Box<RawValue>>>,
    fallback_keys: Option<BTreeMap<String, Box<RawValue>>>,
}

#[derive(Serialize)]
pub(super) struct Answer {
    one_time_key_counts: BTreeMap<String, u32>,
}

pub(super) async fn post(
    State(api): State<Api>,
    UserOrGuest(user): UserOrGuest,
    Json(body): Json<Body>,
) -> Result<Json<Answer>, ApiError> {
    api.limit(Limit::Keys, &user.id)?;
    if body.device_keys.is_some() {
        // Everybody who shares a room hears of it.
        api.limit(Limit::AccountChange, &user.id)?;
    }
    let upload = Upload {
        device_keys: body.device_keys,
        one_time_keys: body.one_time_keys.unwrap_or_default(),
        fallback_keys: body.fallback_keys.unwrap_or_default(),
    };
    let counts = api.keys.upload(user.id.as_str(), &user.device, &upload);
    Ok(Json(Answer {
        one_time_key_counts: counts.await?,
    }))
}
