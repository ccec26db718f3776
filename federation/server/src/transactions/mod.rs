//! What other servers send of their own accord.

mod send;

use axum::routing::put;

use crate::routes::Routes;

pub use send::MAX_TRANSACTION;

pub(crate) fn routes() -> Routes {
    Routes::new().v1("/send/{txnId}", put(send::put))
}
