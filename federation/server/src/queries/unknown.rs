//! `GET /query/{queryType}`: whatever the specification may come to know; nothing yet.
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1queryquerytype>

use crate::{ApiError, request::Origin};

pub(super) async fn get(Origin(_): Origin) -> ApiError {
    ApiError::not_found("There is no such query")
}
