//! `PUT /_matrix/media/v3/upload/{serverName}/{mediaId}`: uploads what an id was made for.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#put_matrixmediav3uploadservernamemediaid>

use axum::{body::Body, extract::State};
use comity_accounts::Limit;
use http::HeaderMap;
use serde_json::{Map, Value};

use super::{Uploaded, announced, mxc, pieces};
use crate::{Api, ApiError, Json, Path, Query, User};

pub(super) async fn put(
    State(api): State<Api>,
    user: User,
    Path((server, media)): Path<(String, String)>,
    Query(uploaded): Query<Uploaded>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Map<String, Value>>, ApiError> {
    user.may_act()?;
    api.limit(Limit::Upload, &user.id)?;
    let mxc = mxc(&server, &media)?;
    let described = uploaded.described(&headers);
    let (media, length) = (&api.media, announced(&headers));
    let done = media.upload_to(&user.id, &mxc, described, length, pieces(body));
    done.await?;
    Ok(Json(Map::new()))
}
