//! `GET /account/whoami`: whose token this is.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3accountwhoami>

use comity_protocol::id::OwnedUserId;
use serde::Serialize;

use crate::{Json, UserOrGuest};

#[derive(Serialize)]
pub(super) struct Answer {
    user_id: OwnedUserId,
    device_id: String,
    is_guest: bool,
}

pub(super) async fn get(UserOrGuest(user): UserOrGuest) -> Json<Answer> {
    Json(Answer {
        is_guest: user.is_guest(),
        user_id: user.id,
        device_id: user.device,
    })
}
