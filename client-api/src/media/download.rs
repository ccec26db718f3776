//! `GET /media/download/{serverName}/{mediaId}`: a file.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1mediadownloadservernamemediaid>

use axum::{extract::State, response::Response};
use comity_web::content;
use http::HeaderMap;

use super::{Asked, frozen, mxc};
use crate::{Api, ApiError, Path, Query, User, UserOrGuest};

type Named = (String, String);

pub(super) async fn get(
    State(api): State<Api>,
    UserOrGuest(user): UserOrGuest,
    Path(named): Path<Named>,
    Query(asked): Query<Asked>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    download(&api, &user, &named, None, &asked.newer(), &headers).await
}

/// <https://spec.matrix.org/v1.19/client-server-api/#get_matrixmediav3downloadservernamemediaid>
pub(super) async fn legacy(
    State(api): State<Api>,
    user: Option<UserOrGuest>,
    Path(named): Path<Named>,
    Query(asked): Query<Asked>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let user = frozen(user)?;
    download(&api, &user, &named, None, &asked, &headers).await
}

pub(super) async fn download(
    api: &Api,
    user: &User,
    (server, media): &Named,
    name: Option<&str>,
    asked: &Asked,
    headers: &HeaderMap,
) -> Result<Response, ApiError> {
    let mxc = mxc(server, media)?;
    let found = api.media.find(&mxc, asked.wanted(user)).await?;
    content::serve(&api.media, &found, name, headers, asked.allow_redirect).await
}
