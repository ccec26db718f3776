//! What administrators do with accounts and media: <https://spec.matrix.org/v1.19/client-server-api/#server-administration>.

mod lock;
mod media;
mod moderated;
mod suspend;
mod whois;

use axum::routing::{delete, get, post};

use crate::Routes;

pub(crate) fn routes() -> Routes {
    Routes::new()
        .v1("/admin/lock/{user}", get(lock::get).put(lock::put))
        .v1("/admin/suspend/{user}", get(suspend::get).put(suspend::put))
        .v3("/admin/whois/{user}", get(whois::get))
        .at(
            "/_synapse/admin/v1/media/quarantine/{server}/{media}",
            post(media::quarantine),
        )
        .at(
            "/_synapse/admin/v1/media/unquarantine/{server}/{media}",
            post(media::unquarantine),
        )
        .at(
            "/_synapse/admin/v1/media/{server}/{media}",
            delete(media::delete),
        )
        .at(
            "/_synapse/admin/v1/users/{user}/media",
            delete(media::delete_of_user),
        )
}
