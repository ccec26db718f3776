//! `PUT`, `GET` and `DELETE /dehydrated_device`: the one that a user has, if any.
//!
//! <https://github.com/matrix-org/matrix-spec-proposals/pull/3814>

use std::{collections::BTreeMap, sync::Arc};

use axum::extract::State;
use comity_accounts::{Dehydration, Limit};
use comity_keys::{Keys, Upload};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{Api, ApiError, Json, User};

#[derive(Deserialize)]
pub(super) struct Body {
    device_id: String,
    initial_device_display_name: Option<String>,
    device_data: Box<RawValue>,
    device_keys: Option<Box<RawValue>>,
    one_time_keys: Option<BTreeMap<String, Box<RawValue>>>,
    fallback_keys: Option<BTreeMap<String, Box<RawValue>>>,
}

/// What is looked at of the data; the rest is sealed.
#[derive(Deserialize)]
struct Data {
    #[serde(rename = "algorithm")]
    _algorithm: String,
}

#[derive(Serialize)]
pub(super) struct Which {
    device_id: String,
}

#[derive(Serialize)]
pub(super) struct Device {
    device_id: String,
    device_data: Box<RawValue>,
}

pub(super) async fn put(
    State(api): State<Api>,
    user: User,
    Json(body): Json<Body>,
) -> Result<Json<Which>, ApiError> {
    api.limit(Limit::AccountChange, &user.id)?;
    let data = body.device_data.get();
    if serde_json::from_str::<Data>(data).is_err() {
        return Err(ApiError::bad_json("device_data has no algorithm"));
    }
    let upload = Upload {
        device_keys: body.device_keys,
        one_time_keys: body.one_time_keys.unwrap_or_default(),
        fallback_keys: body.fallback_keys.unwrap_or_default(),
    };
    let keys = Keys::of_dehydrated(user.id.as_str(), &body.device_id, &upload)?;
    let device = Dehydration {
        device_id: body.device_id,
        display_name: body.initial_device_display_name,
        data: data.to_owned(),
        keys: Arc::new(keys),
    };
    api.accounts.dehydrate(user.id.as_str(), &device).await?;
    Ok(Json(Which {
        device_id: device.device_id,
    }))
}

pub(super) async fn get(State(api): State<Api>, user: User) -> Result<Json<Device>, ApiError> {
    let device = api.accounts.dehydrated(user.id.as_str()).await?;
    Ok(Json(Device {
        device_id: device.device_id,
        device_data: RawValue::from_string(device.data).map_err(ApiError::internal)?,
    }))
}

pub(super) async fn delete(State(api): State<Api>, user: User) -> Result<Json<Which>, ApiError> {
    let device_id = api.accounts.delete_dehydrated(user.id.as_str()).await?;
    Ok(Json(Which { device_id }))
}
