//! `GET /.well-known/matrix/policy_server`: the key of the policy server that runs under this name. None does.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#getwell-knownmatrixpolicy_server>

use crate::ApiError;

pub(super) async fn get() -> ApiError {
    ApiError::not_found("There is no policy server here")
}
