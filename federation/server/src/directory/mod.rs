//! Our rooms as others may list them: <https://spec.matrix.org/v1.19/server-server-api/#published-room-directory>,
//! <https://spec.matrix.org/v1.19/server-server-api/#spaces>.

mod hierarchy;
mod public_rooms;

use axum::routing::get;

use crate::Routes;

pub(crate) fn routes() -> Routes {
    Routes::new()
        .v1("/hierarchy/{room}", get(hierarchy::get))
        .v1(
            "/publicRooms",
            get(public_rooms::get).post(public_rooms::post),
        )
}
