//! `GET /media/thumbnail/{serverName}/{mediaId}`: a picture made smaller.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1mediathumbnailservernamemediaid>

use axum::{extract::State, response::Response};
use comity_web::{ThumbnailRequest, content};
use http::HeaderMap;

use super::{Asked, frozen, mxc};
use crate::{Api, ApiError, Path, Query, User, UserOrGuest};

type Named = (String, String);

pub(super) async fn get(
    State(api): State<Api>,
    UserOrGuest(user): UserOrGuest,
    Path(named): Path<Named>,
    Query(sized): Query<ThumbnailRequest>,
    Query(asked): Query<Asked>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    thumbnail(&api, &user, &named, &sized, &asked.newer(), &headers).await
}

/// <https://spec.matrix.org/v1.19/client-server-api/#get_matrixmediav3thumbnailservernamemediaid>
pub(super) async fn legacy(
    State(api): State<Api>,
    user: Option<UserOrGuest>,
    Path(named): Path<Named>,
    Query(sized): Query<ThumbnailRequest>,
    Query(asked): Query<Asked>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let user = frozen(user)?;
    thumbnail(&api, &user, &named, &sized, &asked, &headers).await
}

async fn thumbnail(
    api: &Api,
    user: &User,
    (server, media): &Named,
    sized: &ThumbnailRequest,
    asked: &Asked,
    headers: &HeaderMap,
) -> Result<Response, ApiError> {
    let mxc = mxc(server, media)?;
    let made = api.media.thumbnail(&mxc, sized.size(), asked.wanted(user));
    content::serve(
        &api.media,
        &made.await?,
        None,
        headers,
        asked.allow_redirect,
    )
    .await
}
