//! What other servers send of their own accord.

mod send;

use axum::routing::put;

use crate::routes::Routes;

pub(crate) fn routes() -> Routes {
    Routes::new().v1("/send/{txnId}", put(send::put))
}
