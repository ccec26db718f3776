//! Which server asks, proven by its signature over the request.
//!
//! The signature covers the body, so whoever reads the body reads the signature: [`Origin`] and [`Sent`] stand last among a
//! handler's parameters. Nothing of the request has been looked at before but its path.
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#request-authentication>

use axum::extract::{FromRequest, Request};
use comity_protocol::{
    id::OwnedServerName,
    sign::{self, Authorization, AuthorizationError},
};
use http::{StatusCode, header::AUTHORIZATION};
use serde::de::DeserializeOwned;

use crate::{Api, ApiError};

/// The largest body of most requests, in bytes: an event and the state shown with it.
const MAX_BODY: usize = 1 << 20;

/// The server that made a request without a body.
pub(crate) struct Origin(pub OwnedServerName);

/// What a server sent: a JSON object of at most `MOST` bytes.
pub(crate) struct Sent<T, const MOST: usize = MAX_BODY> {
    /// The server.
    pub origin: OwnedServerName,
    /// The body.
    pub body: T,
}

impl FromRequest<Api> for Origin {
    type Rejection = ApiError;

    async fn from_request(request: Request, api: &Api) -> Result<Self, ApiError> {
        let (origin, _) = authenticate(request, api, MAX_BODY).await?;
        Ok(Self(origin))
    }
}

impl<T: DeserializeOwned, const MOST: usize> FromRequest<Api> for Sent<T, MOST> {
    type Rejection = ApiError;

    async fn from_request(request: Request, api: &Api) -> Result<Self, ApiError> {
        let (origin, bytes) = authenticate(request, api, MOST).await?;
        let body = comity_web::parse(&bytes)?;
        Ok(Self { origin, body })
    }
}

async fn authenticate(
    request: Request,
    api: &Api,
    most: usize,
) -> Result<(OwnedServerName, axum::body::Bytes), ApiError> {
    let us = api.rooms.server_name();
    let (parts, body) = request.into_parts();
    let header = parts
        .headers
        .get(AUTHORIZATION)
        .ok_or_else(|| unauthorized("The request is not signed"))?;
    let header = header.to_str().map_err(|_| AuthorizationError::Form);
    let claim = header
        .and_then(|header| Authorization::parse(header, us))
        .map_err(refused)?;
    let bytes = comity_web::bytes(body, most).await?;
    let key = api.keyring.key(claim.origin(), claim.key_id()).await;
    let key = key.map_err(ApiError::internal)?;
    let key = key.ok_or_else(|| unauthorized("The request is signed with an unknown key"))?;
    let target = parts.uri.path_and_query();
    let signed = sign::Request {
        method: parts.method.as_str(),
        uri: target.map_or("/", |target| target.as_str()),
        body: &bytes,
    };
    claim
        .check(us, signed, key, api.now_ms())
        .map_err(refused)?;
    let heard = api.ear.heard_from(claim.origin()).await;
    heard.map_err(ApiError::internal)?;
    Ok((claim.origin().to_owned(), bytes))
}

fn refused(error: AuthorizationError) -> ApiError {
    match error {
        AuthorizationError::Body => ApiError::bad("M_NOT_JSON", "The request's body is not JSON"),
        error => unauthorized(error.to_string()),
    }
}

fn unauthorized(error: impl Into<std::borrow::Cow<'static, str>>) -> ApiError {
    ApiError::new(StatusCode::UNAUTHORIZED, "M_UNAUTHORIZED", error)
}
