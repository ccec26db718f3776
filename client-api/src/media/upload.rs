//! `POST /_matrix/media/v3/upload`.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#post_matrixmediav3upload>

use axum::{body::Body, extract::State};
use comity_accounts::Limit;
use http::HeaderMap;
use serde::Serialize;

use super::{Uploaded, announced, pieces};
use crate::{Api, ApiError, Json, Query, User};

#[derive(Serialize)]
pub(super) struct Answer {
    content_uri: String,
}

pub(super) async fn post(
    State(api): State<Api>,
    user: User,
    Query(uploaded): Query<Uploaded>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Answer>, ApiError> {
    user.may_act()?;
    api.limit(Limit::Upload, &user.id)?;
    let described = uploaded.described(&headers);
    let media = &api.media;
    let mxc = media.upload(&user.id, described, announced(&headers), pieces(body));
    let content_uri = mxc.await?.to_string();
    Ok(Json(Answer { content_uri }))
}
