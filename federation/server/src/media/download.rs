//! `GET /media/download/{mediaId}`: a file of ours.
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1mediadownloadmediaid>

use axum::{extract::State, response::Response};

use super::{Asked, answer, own};
use crate::{Api, ApiError, Path, Query, request::Origin};

pub(super) async fn get(
    State(api): State<Api>,
    Path(media): Path<String>,
    Query(asked): Query<Asked>,
    Origin(origin): Origin,
) -> Result<Response, ApiError> {
    let mxc = own(&api, &media)?;
    let found = api.media.find(&mxc, asked.wanted(&origin)).await?;
    answer(&api, &found).await
}
