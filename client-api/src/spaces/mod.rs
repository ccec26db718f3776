//! What rooms look like from outside, one by one and as trees: <https://spec.matrix.org/v1.19/client-server-api/#spaces>.

mod hierarchy;
mod room_summary;

use axum::routing::get;

use crate::Routes;

pub(crate) fn routes() -> Routes {
    Routes::new()
        .v1("/room_summary/{room_id_or_alias}", get(room_summary::get))
        .v1("/rooms/{room_id}/hierarchy", get(hierarchy::get))
}
