//! Keys of devices: <https://spec.matrix.org/v1.19/client-server-api/#key-management-api>,
//! <https://spec.matrix.org/v1.19/client-server-api/#cross-signing>.

mod changes;
mod claim;
mod device_signing_upload;
mod query;
mod signatures_upload;
mod upload;

use std::time::Duration;

use axum::routing::{get, post};

use crate::Routes;

pub(crate) fn routes() -> Routes {
    Routes::new()
        .v3("/keys/changes", get(changes::get))
        .v3("/keys/claim", post(claim::post))
        .v3(
            "/keys/device_signing/upload",
            post(device_signing_upload::post),
        )
        .v3("/keys/query", post(query::post))
        .v3("/keys/signatures/upload", post(signatures_upload::post))
        .v3("/keys/upload", post(upload::post))
}

/// How long to wait for other servers, by the request's `timeout` in milliseconds: ten seconds where it doesn't say.
fn patience(timeout: Option<u64>) -> Duration {
    Duration::from_millis(timeout.unwrap_or(10_000))
}
