//! What passes: who types, who has read what (<https://spec.matrix.org/v1.19/client-server-api/#typing-notifications>,
//! <https://spec.matrix.org/v1.19/client-server-api/#receipts>, <https://spec.matrix.org/v1.19/client-server-api/#read-and-unread-markers>).

mod marker;
mod read_markers;
mod receipt;
mod typing;

use axum::routing::{post, put};

use crate::Routes;

pub(crate) fn routes() -> Routes {
    Routes::new()
        .v3("/rooms/{room_id}/read_markers", post(read_markers::post))
        .v3(
            "/rooms/{room_id}/receipt/{receipt_type}/{event_id}",
            post(receipt::post),
        )
        .v3("/rooms/{room_id}/typing/{user_id}", put(typing::put))
}
