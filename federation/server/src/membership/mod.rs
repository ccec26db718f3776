//! Users of other servers come and go: <https://spec.matrix.org/v1.19/server-server-api/#joining-rooms>,
//! <https://spec.matrix.org/v1.19/server-server-api/#leaving-rooms-rejecting-invites>,
//! <https://spec.matrix.org/v1.19/server-server-api/#knocking-upon-a-room>.
//!
//! A handshake has two steps. `make_…` answers the event as it should be, checked by the room's rules; `send_…` takes it back
//! signed.

mod make;
mod make_join;
mod make_knock;
mod make_leave;

use axum::routing::get;

use crate::Routes;

pub(crate) fn routes() -> Routes {
    Routes::new()
        .v1("/make_join/{room}/{user}", get(make_join::get))
        .v1("/make_knock/{room}/{user}", get(make_knock::get))
        .v1("/make_leave/{room}/{user}", get(make_leave::get))
}
