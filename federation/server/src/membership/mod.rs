//! Users of other servers come and go: <https://spec.matrix.org/v1.19/server-server-api/#joining-rooms>,
//! <https://spec.matrix.org/v1.19/server-server-api/#leaving-rooms-rejecting-invites>,
//! <https://spec.matrix.org/v1.19/server-server-api/#knocking-upon-a-room>; and ours are invited:
//! <https://spec.matrix.org/v1.19/server-server-api/#inviting-to-a-room>.
//!
//! A handshake has two steps. `make_…` answers the event as it should be, checked by the room's rules; `send_…` takes it back
//! signed.

mod exchange_third_party_invite;
mod invite;
mod make;
mod make_join;
mod make_knock;
mod make_leave;
mod send;
mod send_join;
mod send_knock;
mod send_leave;

use axum::routing::{get, put};

use crate::Routes;

pub(crate) fn routes() -> Routes {
    Routes::new()
        .v1(
            "/exchange_third_party_invite/{room}",
            put(exchange_third_party_invite::put),
        )
        .v1("/invite/{room}/{event}", put(invite::v1))
        .v2("/invite/{room}/{event}", put(invite::v2))
        .v1("/make_join/{room}/{user}", get(make_join::get))
        .v1("/make_knock/{room}/{user}", get(make_knock::get))
        .v1("/make_leave/{room}/{user}", get(make_leave::get))
        .v1("/send_join/{room}/{event}", put(send_join::v1))
        .v2("/send_join/{room}/{event}", put(send_join::v2))
        .v1("/send_knock/{room}/{event}", put(send_knock::put))
        .v1("/send_leave/{room}/{event}", put(send_leave::v1))
        .v2("/send_leave/{room}/{event}", put(send_leave::v2))
}
