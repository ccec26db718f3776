//! Messages to devices: <https://spec.matrix.org/v1.19/client-server-api/#send-to-device-messaging>.

mod send;

use axum::routing::put;

use crate::Routes;

pub(crate) fn routes() -> Routes {
    Routes::new().v3("/sendToDevice/{type}/{txn}", put(send::put))
}
