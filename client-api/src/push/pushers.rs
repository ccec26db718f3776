//! `GET /pushers`: where a user's notifications are pushed. Nowhere: this server pushes nothing yet, takes no pushers, and so
//! nobody has one.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3pushers>

use serde_json::{Value, json};

use crate::{Json, User};

pub(super) async fn get(_: User) -> Json<Value> {
    Json(json!({ "pushers": [] }))
}
