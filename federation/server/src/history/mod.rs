//! Events, states and history of rooms, for servers that are in them:
//! <https://spec.matrix.org/v1.19/server-server-api/#retrieving-events>,
//! <https://spec.matrix.org/v1.19/server-server-api/#backfilling-and-retrieving-missing-events>.

mod backfill;
mod event;
mod event_auth;
mod get_missing_events;
mod state;
mod state_ids;
mod timestamp_to_event;

use axum::routing::{get, post};
use comity_protocol::id::OwnedEventId;
use serde::Deserialize;

use crate::Routes;

pub(crate) fn routes() -> Routes {
    Routes::new()
        .v1("/event/{event}", get(event::get))
        .v1("/state/{room}", get(state::get))
        .v1("/state_ids/{room}", get(state_ids::get))
        .v1("/event_auth/{room}/{event}", get(event_auth::get))
        .v1("/backfill/{room}", get(backfill::get))
        .v1("/get_missing_events/{room}", post(get_missing_events::post))
        .v1("/timestamp_to_event/{room}", get(timestamp_to_event::get))
}

/// The event at which a state is asked for.
#[derive(Deserialize)]
struct At {
    event_id: OwnedEventId,
}
