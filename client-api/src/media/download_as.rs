//! `GET /media/download/{serverName}/{mediaId}/{fileName}`: a file under another name.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1mediadownloadservernamemediaidfilename>

use axum::{extract::State, response::Response};
use http::HeaderMap;

use super::{Asked, download::download, frozen};
use crate::{Api, ApiError, Path, Query, UserOrGuest};

type Named = (String, String, String);

pub(super) async fn get(
    State(api): State<Api>,
    UserOrGuest(user): UserOrGuest,
    Path((server, media, name)): Path<Named>,
    Query(asked): Query<Asked>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let asked = asked.newer();
    download(&api, &user, &(server, media), Some(&name), &asked, &headers).await
}

/// <https://spec.matrix.org/v1.19/client-server-api/#get_matrixmediav3downloadservernamemediaidfilename>
pub(super) async fn legacy(
    State(api): State<Api>,
    user: Option<UserOrGuest>,
    Path((server, media, name)): Path<Named>,
    Query(asked): Query<Asked>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let user = frozen(user)?;
    download(&api, &user, &(server, media), Some(&name), &asked, &headers).await
}
