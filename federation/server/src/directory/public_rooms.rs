//! `/publicRooms`: the directory, by pages.
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1publicrooms>,
//! <https://spec.matrix.org/v1.19/server-server-api/#post_matrixfederationv1publicrooms>

use axum::extract::State;
use comity_accounts::Limit;
use comity_protocol::id::ServerName;
use comity_web::{DirectoryRequest, PublicRooms};
use serde::Deserialize;

use crate::{
    Api, ApiError, Json, Query,
    request::{Origin, Sent},
};

#[derive(Deserialize)]
pub(super) struct Page {
    limit: Option<usize>,
    since: Option<String>,
    third_party_instance_id: Option<String>,
}

pub(super) async fn get(
    State(api): State<Api>,
    Query(page): Query<Page>,
    Origin(origin): Origin,
) -> Result<Json<PublicRooms>, ApiError> {
    let request = DirectoryRequest {
        limit: page.limit,
        since: page.since,
        third_party_instance_id: page.third_party_instance_id,
        filter: None,
    };
    list(&api, &origin, request).await
}

pub(super) async fn post(
    State(api): State<Api>,
    Sent { origin, body }: Sent<DirectoryRequest>,
) -> Result<Json<PublicRooms>, ApiError> {
    list(&api, &origin, body).await
}

async fn list(
    api: &Api,
    origin: &ServerName,
    request: DirectoryRequest,
) -> Result<Json<PublicRooms>, ApiError> {
    api.accounts
        .limits()
        .take(Limit::Directory, origin.as_str())?;
    Ok(Json(request.answer(&api.rooms).await?))
}
