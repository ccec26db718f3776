//! Which path leads where: the groups' tables, put together.

use axum::{Router, routing::MethodRouter};

use crate::{
    Api, directory, discovery, history, keys, media, membership, openid, queries, transactions,
    users,
};

/// Everything other servers may ask for; [`comity_web::join`] puts it together with what clients may.
pub fn router(api: Api) -> Router {
    let routes = Routes::new()
        .and(directory::routes())
        .and(discovery::routes())
        .and(history::routes())
        .and(keys::routes())
        .and(media::routes())
        .and(membership::routes())
        .and(openid::routes())
        .and(queries::routes())
        .and(transactions::routes())
        .and(users::routes());
    routes.0.with_state(api)
}

/// A group's table: a line a path.
pub(crate) struct Routes(Router<Api>);

impl Routes {
    pub(crate) fn new() -> Self {
        Self(Router::new())
    }

    /// `/_matrix/federation/v1…`
    pub(crate) fn v1(self, path: &str, methods: MethodRouter<Api>) -> Self {
        self.at(&format!("/_matrix/federation/v1{path}"), methods)
    }

    /// `/_matrix/federation/v2…`
    pub(crate) fn v2(self, path: &str, methods: MethodRouter<Api>) -> Self {
        self.at(&format!("/_matrix/federation/v2{path}"), methods)
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
