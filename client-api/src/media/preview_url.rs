//! `GET /media/preview_url`: what a page says of itself.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1mediapreview_url>

use axum::extract::State;
use comity_accounts::Limit;
use comity_media::Said;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::{Api, ApiError, Json, Query, User};

#[derive(Deserialize)]
pub(super) struct Asked {
    url: String,
}

pub(super) async fn get(
    State(api): State<Api>,
    user: User,
    Query(asked): Query<Asked>,
) -> Result<Json<Map<String, Value>>, ApiError> {
    api.limit(Limit::Elsewhere, &user.id)?;
    let preview = api.media.preview(&user.id, &asked.url).await?;
    let said = preview.iter().map(|(name, said)| {
        let said = match said {
            Said::Text(text) => Value::from(text.as_str()),
            Said::Number(number) => Value::from(*number),
        };
        (name.clone(), said)
    });
    Ok(Json(said.collect()))
}
