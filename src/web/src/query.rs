//! Parameters in the query.

use axum::extract::{FromRequestParts, Query as AxumQuery};
use http::request::Parts;
use serde::de::DeserializeOwned;

use crate::ApiError;

/// The query's parameters as a struct; those it doesn't name are ignored. A value that can't be is 400 `M_INVALID_PARAM`.
pub struct Query<T>(pub T);

impl<T, S> FromRequestParts<S> for Query<T>
where
    T: DeserializeOwned,
    S: Send + Sync,
{
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        match AxumQuery::<T>::try_from_uri(&parts.uri) {
            Ok(AxumQuery(value)) => Ok(Self(value)),
            Err(_) => Err(ApiError::invalid_param(
                "A query parameter is missing or malformed",
            )),
        }
    }
}
