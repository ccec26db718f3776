//! Where a request came from.

use std::{convert::Infallible, net::SocketAddr};

use axum::extract::{ConnectInfo, FromRequestParts};
use http::request::Parts;

/// The address of the client, for rate limits and the list of devices. Which header of a proxy counts is decided where
/// connections come in.
pub(crate) struct Address(pub String);

impl<S: Sync> FromRequestParts<S> for Address {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self(address(parts)))
    }
}

/// The address; of a request that came through no connection, that of this machine.
pub(super) fn address(parts: &Parts) -> String {
    match parts.extensions.get::<ConnectInfo<SocketAddr>>() {
        Some(ConnectInfo(address)) => address.ip().to_canonical().to_string(),
        None => "127.0.0.1".to_owned(),
    }
}
