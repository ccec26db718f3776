//! Events of a room, sent and read:
//! <https://spec.matrix.org/v1.19/client-server-api/#events>.

mod access;
mod context;
mod event;
mod event_by_id;
mod initial_sync;
mod joined_members;
mod members;
mod messages;
mod page;
mod redact;
mod relations;
mod send;
mod state;
mod state_event;
mod threads;
mod timestamp_to_event;

use axum::routing::{get, put};

pub(crate) use self::{
    access::Access,
    initial_sync::{Messages, RoomInfo},
    page::{Direction, Gap, Page, gap, place_token},
};
use crate::Routes;

pub(crate) fn routes() -> Routes {
    const ROOM: &str = "/rooms/{room_id}";
    let at = |path: &str| format!("{ROOM}{path}");
    let state_event = get(state_event::get).put(state_event::put);
    Routes::new()
        .v3("/events/{event_id}", get(event_by_id::get))
        .v3(&at("/context/{event_id}"), get(context::get))
        .v3(&at("/event/{event_id}"), get(event::get))
        .v3(&at("/initialSync"), get(initial_sync::get))
        .v3(&at("/joined_members"), get(joined_members::get))
        .v3(&at("/members"), get(members::get))
        .v3(&at("/messages"), get(messages::get))
        .v3(&at("/redact/{event_id}/{txn_id}"), put(redact::put))
        .v3(&at("/send/{event_type}/{txn_id}"), put(send::put))
        .v3(&at("/state"), get(state::get))
        .v3(&at("/state/{event_type}"), state_event.clone())
        .v3(&at("/state/{event_type}/"), state_event.clone())
        .v3(&at("/state/{event_type}/{state_key}"), state_event)
        .v1(&at("/relations/{event_id}"), get(relations::get))
        .v1(&at("/relations/{event_id}/{rel_type}"), get(relations::get))
        .v1(
            &at("/relations/{event_id}/{rel_type}/{event_type}"),
            get(relations::get),
        )
        .v1(&at("/threads"), get(threads::get))
        .v1(&at("/timestamp_to_event"), get(timestamp_to_event::get))
}
