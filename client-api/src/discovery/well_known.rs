//! `GET /.well-known/matrix/client`: where clients find us.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#getwell-knownmatrixclient>

use axum::extract::State;
use serde_json::{Value, json};

use crate::{Api, Json};

pub(super) async fn get(State(api): State<Api>) -> Json<Value> {
    Json(json!({ "m.homeserver": { "base_url": api.settings.public_baseurl } }))
}
