//! `GET /media/thumbnail/{mediaId}`: a picture of ours made smaller.
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1mediathumbnailmediaid>

use axum::{extract::State, response::Response};
use comity_web::ThumbnailRequest;

use super::{Asked, answer, own};
use crate::{Api, ApiError, Path, Query, request::Origin};

pub(super) async fn get(
    State(api): State<Api>,
    Path(media): Path<String>,
    Query(sized): Query<ThumbnailRequest>,
    Query(asked): Query<Asked>,
    Origin(origin): Origin,
) -> Result<Response, ApiError> {
    let mxc = own(&api, &media)?;
    let made = api
        .media
        .thumbnail(&mxc, sized.size(), asked.wanted(&origin));
    answer(&api, &made.await?).await
}
