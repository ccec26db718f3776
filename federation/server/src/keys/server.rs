//! `GET /_matrix/key/v2/server`: the keys that check our signatures, signed by ourselves.
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#get_matrixkeyv2server>

use axum::extract::State;
use serde_json::value::RawValue;

use crate::{Api, ApiError, Json};

pub(super) async fn get(State(api): State<Api>) -> Result<Json<Box<RawValue>>, ApiError> {
    RawValue::from_string(api.published_keys()?)
        .map(Json)
        .map_err(ApiError::internal)
}
