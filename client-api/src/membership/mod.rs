//! Coming and going: <https://spec.matrix.org/v1.19/client-server-api/#room-membership>.

mod ban;
mod forget;
mod invite;
mod join;
mod join_by_id;
mod joined_rooms;
mod kick;
mod knock;
mod leave;
mod mutual_rooms;
mod target;
mod unban;

use axum::routing::{get, post};

use crate::Routes;

pub(crate) fn routes() -> Routes {
    Routes::new()
        .v1("/mutual_rooms", get(mutual_rooms::get))
        .v3("/join/{room_id_or_alias}", post(join::post))
        .v3("/joined_rooms", get(joined_rooms::get))
        .v3("/knock/{room_id_or_alias}", post(knock::post))
        .v3("/rooms/{room_id}/ban", post(ban::post))
        .v3("/rooms/{room_id}/forget", post(forget::post))
        .v3("/rooms/{room_id}/invite", post(invite::post))
        .v3("/rooms/{room_id}/join", post(join_by_id::post))
        .v3("/rooms/{room_id}/kick", post(kick::post))
        .v3("/rooms/{room_id}/leave", post(leave::post))
        .v3("/rooms/{room_id}/unban", post(unban::post))
}
