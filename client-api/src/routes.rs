//! Which path leads where: the groups' tables, put together.

use axum::{Router, routing::MethodRouter};

use crate::{
    Api, account, account_data, admin, creation, dehydrated_device, devices, directory, discovery,
    ephemeral, events, key_backup, keys, media, membership, notices, openid, presence, profile,
    push, registration, reports, session, spaces, sync, to_device, user_directory,
};

/// Everything clients may ask for; [`comity_web::join`] puts it together with what others may.
pub fn router(api: Api) -> Router {
    let routes = Routes::new()
        .and(account::routes())
        .and(account_data::routes())
        .and(admin::routes())
        .and(creation::routes())
        .and(dehydrated_device::routes())
        .and(devices::routes())
        .and(directory::routes())
        .and(discovery::routes())
        .and(ephemeral::routes())
        .and(events::routes())
        .and(key_backup::routes())
        .and(keys::routes())
        .and(media::routes())
        .and(membership::routes())
        .and(notices::routes())
        .and(openid::routes())
        .and(presence::routes())
        .and(profile::routes())
        .and(push::routes())
        .and(registration::routes())
        .and(reports::routes())
        .and(session::routes())
        .and(spaces::routes())
        .and(sync::routes())
        .and(to_device::routes())
        .and(user_directory::routes());
    routes.0.with_state(api)
}

/// A group's table: a line a path.
pub(crate) struct Routes(Router<Api>);

impl Routes {
    pub(crate) fn new() -> Self {
        Self(Router::new())
    }

    /// `/_matrix/client/v3…`, and the same below `r0`, by which older clients ask.
    pub(crate) fn v3(self, path: &str, methods: MethodRouter<Api>) -> Self {
        self.at(&format!("/_matrix/client/r0{path}"), methods.clone())
            .at(&format!("/_matrix/client/v3{path}"), methods)
    }

    /// `/_matrix/client/v1…`
    pub(crate) fn v1(self, path: &str, methods: MethodRouter<Api>) -> Self {
        self.at(&format!("/_matrix/client/v1{path}"), methods)
    }

    /// `/_matrix/media/v3…`, and the same below `r0` and `v1`, by which older clients ask.
    pub(crate) fn media(self, path: &str, methods: MethodRouter<Api>) -> Self {
        self.at(&format!("/_matrix/media/r0{path}"), methods.clone())
            .at(&format!("/_matrix/media/v1{path}"), methods.clone())
            .at(&format!("/_matrix/media/v3{path}"), methods)
    }

    /// The whole path.
    pub(crate) fn at(self, path: &str, methods: MethodRouter<Api>) -> Self {
        Self(self.0.route(path, methods))
    }

    /// Another group's lines after these.
    pub(crate) fn and(self, others: Self) -> Self {
        Self(self.0.merge(others.0))
    }
}
