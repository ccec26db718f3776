//! `GET /media/config`: how large an upload may be.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1mediaconfig>

use axum::extract::State;
use serde::Serialize;

use crate::{Api, Json, UserOrGuest};

#[derive(Serialize)]
pub(super) struct Answer {
    #[serde(rename = "m.upload.size")]
    upload_size: u64,
}

pub(super) async fn get(State(api): State<Api>, _: UserOrGuest) -> Json<Answer> {
    let upload_size = api.media.max_upload_bytes();
    Json(Answer { upload_size })
}
