//! Names of rooms, and the rooms that everybody may find: <https://spec.matrix.org/v1.19/client-server-api/#room-aliases>,
//! <https://spec.matrix.org/v1.19/client-server-api/#published-room-directory>.

mod alias;
mod aliases;
mod public_rooms;
mod visibility;

use axum::routing::get;

use crate::Routes;

pub(crate) fn routes() -> Routes {
    Routes::new()
        .v3(
            "/directory/list/room/{room_id}",
            get(visibility::get).put(visibility::put),
        )
        .v3(
            "/directory/room/{room_alias}",
            get(alias::get).put(alias::put).delete(alias::delete),
        )
        .v3(
            "/publicRooms",
            get(public_rooms::get).post(public_rooms::post),
        )
        .v3("/rooms/{room_id}/aliases", get(aliases::get))
}
