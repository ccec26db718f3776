//! What administrators do with accounts: <https://spec.matrix.org/v1.19/client-server-api/#server-administration>.

mod lock;
mod moderated;
mod suspend;
mod whois;

use axum::routing::get;

use crate::Routes;

pub(crate) fn routes() -> Routes {
    Routes::new()
        .v1("/admin/lock/{user}", get(lock::get).put(lock::put))
        .v1("/admin/suspend/{user}", get(suspend::get).put(suspend::put))
        .v3("/admin/whois/{user}", get(whois::get))
}
