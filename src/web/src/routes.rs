//! All APIs under one roof.

use axum::Router;
use http::StatusCode;

use crate::ApiError;

/// The APIs as one router. Paths that none has are `M_UNRECOGNIZED`, as are methods a path doesn't have
/// (<https://spec.matrix.org/v1.19/client-server-api/#common-error-codes>).
pub fn join(apis: impl IntoIterator<Item = Router>) -> Router {
    apis.into_iter()
        .fold(Router::new(), Router::merge)
        .fallback(async || ApiError::unrecognized(StatusCode::NOT_FOUND))
        .method_not_allowed_fallback(async || {
            ApiError::unrecognized(StatusCode::METHOD_NOT_ALLOWED)
        })
}
