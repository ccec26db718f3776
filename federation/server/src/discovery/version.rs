//! `GET /version`: which software this is.
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1version>

use serde_json::{Value, json};

use crate::Json;

pub(super) async fn get() -> Json<Value> {
    Json(json!({ "server": { "name": "Comity", "version": env!("CARGO_PKG_VERSION") } }))
}
