//! `GET /media/download/{serverName}/{mediaId}`: a file, by the newer path and
//! [the older](https://spec.matrix.org/v1.19/client-server-api/#get_matrixmediav3downloadservernamemediaid).
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1mediadownloadservernamemediaid>

use axum::{extract::State, response::Response};
use comity_web::content;
use http::HeaderMap;

use super::{Asker, mxc};
use crate::{Api, ApiError, Path};

pub(super) async fn get(
    State(api): State<Api>,
    asker: Asker,
    Path((server, media)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    download(&api, &asker, (&server, &media), None, &headers).await
}

pub(super) async fn download(
    api: &Api,
    asker: &Asker,
    (server, media): (&str, &str),
    name: Option<&str>,
    headers: &HeaderMap,
) -> Result<Response, ApiError> {
    let mxc = mxc(server, media)?;
    let found = api.media.find(&mxc, asker.wanted()).await?;
    content::serve(&api.media, &found, name, headers, asker.allow_redirect).await
}
