//! `POST /_matrix/media/v1/create`: an id for what will be uploaded.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#post_matrixmediav1create>

use axum::extract::State;
use comity_accounts::Limit;
use serde::Serialize;

use crate::{Api, ApiError, Json, User};

#[derive(Serialize)]
pub(super) struct Answer {
    content_uri: String,
    unused_expires_at: u64,
}

pub(super) async fn post(State(api): State<Api>, user: User) -> Result<Json<Answer>, ApiError> {
    user.may_act()?;
    api.limit(Limit::Upload, &user.id)?;
    let created = api.media.create(&user.id).await?;
    Ok(Json(Answer {
        content_uri: created.mxc.to_string(),
        unused_expires_at: created.expires_ts,
    }))
}
