//! `POST /user/keys/claim`: one-time keys of our users' devices.
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#post_matrixfederationv1userkeysclaim>

use std::collections::BTreeMap;

use comity_protocol::id::OwnedUserId;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{Json, request::Sent};

#[derive(Deserialize)]
pub(super) struct Asked {
    #[expect(
        dead_code,
        reason = "read for its form; no device has a key that could be given"
    )]
    one_time_keys: BTreeMap<OwnedUserId, BTreeMap<String, String>>,
}

#[derive(Serialize)]
pub(super) struct Answer {
    one_time_keys: BTreeMap<OwnedUserId, BTreeMap<String, Value>>,
}

pub(super) async fn post(_: Sent<Asked>) -> Json<Answer> {
    Json(Answer {
        one_time_keys: BTreeMap::new(),
    })
}
