//! `GET /media/download/{serverName}/{mediaId}/{fileName}`: a file under another name, by the newer path and
//! [the older](https://spec.matrix.org/v1.19/client-server-api/#get_matrixmediav3downloadservernamemediaidfilename).
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1mediadownloadservernamemediaidfilename>

use axum::{extract::State, response::Response};
use http::HeaderMap;

use super::{Asker, download::download};
use crate::{Api, ApiError, Path};

pub(super) async fn get(
    State(api): State<Api>,
    asker: Asker,
    Path((server, media, name)): Path<(String, String, String)>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    download(&api, &asker, (&server, &media), Some(&name), &headers).await
}
