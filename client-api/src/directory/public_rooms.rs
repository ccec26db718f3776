//! `/publicRooms`: the directory, by pages.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3publicrooms>,
//! <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3publicrooms>

use axum::extract::State;
use comity_accounts::Limit;
use comity_protocol::id::ServerName;
use comity_web::{DirectoryRequest, PublicRooms};
use serde::Deserialize;

use crate::{Address, Api, ApiError, Json, Query, User};

#[derive(Deserialize)]
pub(super) struct Page {
    limit: Option<usize>,
    since: Option<String>,
    server: Option<String>,
}

/// For everybody, signed in or not, so limited by the address.
pub(super) async fn get(
    State(api): State<Api>,
    Address(address): Address,
    Query(page): Query<Page>,
) -> Result<Json<PublicRooms>, ApiError> {
    api.limit(Limit::Directory, address)?;
    let request = DirectoryRequest {
        limit: page.limit,
        since: page.since,
        ..DirectoryRequest::default()
    };
    list(&api, page.server, request).await
}

#[derive(Deserialize)]
pub(super) struct Server {
    server: Option<String>,
}

pub(super) async fn post(
    State(api): State<Api>,
    user: User,
    Query(Server { server }): Query<Server>,
    Json(request): Json<DirectoryRequest>,
) -> Result<Json<PublicRooms>, ApiError> {
    api.limit(Limit::Directory, &user.id)?;
    list(&api, server, request).await
}

async fn list(
    api: &Api,
    server: Option<String>,
    request: DirectoryRequest,
) -> Result<Json<PublicRooms>, ApiError> {
    let own = api.rooms.server_name();
    let server = server.filter(|server| server != own.as_str());
    let server = server.map(ServerName::parse).transpose();
    let server = server.map_err(|_| ApiError::invalid_param("server is not a server's name"))?;
    Ok(Json(
        request.answer_of(&api.rooms, server.as_deref()).await?,
    ))
}
