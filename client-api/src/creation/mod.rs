//! Making rooms, and replacing them: <https://spec.matrix.org/v1.19/client-server-api/#creation>,
//! <https://spec.matrix.org/v1.19/client-server-api/#room-upgrades>.

mod create;
mod upgrade;

use axum::routing::post;

use crate::Routes;

pub(crate) fn routes() -> Routes {
    Routes::new()
        .v3("/createRoom", post(create::post))
        .v3("/rooms/{room_id}/upgrade", post(upgrade::post))
}
