//! What servers ask of our users and aliases: <https://spec.matrix.org/v1.19/server-server-api/#querying-for-information>.

mod directory;
mod profile;
mod unknown;

use axum::routing::get;

use crate::Routes;

pub(crate) fn routes() -> Routes {
    Routes::new()
        .v1("/query/directory", get(directory::get))
        .v1("/query/profile", get(profile::get))
        .v1("/query/{type}", get(unknown::get))
}
