//! `GET /media/thumbnail/{serverName}/{mediaId}`: a picture made smaller, by the newer path and
//! [the older](https://spec.matrix.org/v1.19/client-server-api/#get_matrixmediav3thumbnailservernamemediaid).
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1mediathumbnailservernamemediaid>

use axum::{extract::State, response::Response};
use comity_web::{ThumbnailRequest, content};
use http::HeaderMap;

use super::{Asker, mxc};
use crate::{Api, ApiError, Path, Query};

pub(super) async fn get(
    State(api): State<Api>,
    asker: Asker,
    Path((server, media)): Path<(String, String)>,
    Query(sized): Query<ThumbnailRequest>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let mxc = mxc(&server, &media)?;
    let made = api.media.thumbnail(&mxc, sized.size(), asker.wanted());
    let redirect = asker.allow_redirect;
    content::serve(&api.media, &made.await?, None, &headers, redirect).await
}
