//! `/publicRooms`: the directory, by pages.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3publicrooms>,
//! <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3publicrooms>

use axum::extract::State;
use comity_accounts::Limit;
use comity_rooms::{DirectoryFilter, RoomError};
use comity_web::PublicRoom;
use serde::{Deserialize, Serialize};

use crate::{Address, Api, ApiError, Json, Query, User};

/// Rooms on a page where the client doesn't say.
const PAGE: usize = 100;

#[derive(Serialize)]
pub(super) struct Answer {
    chunk: Vec<PublicRoom>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_batch: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prev_batch: Option<String>,
    total_room_count_estimate: usize,
}

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
) -> Result<Json<Answer>, ApiError> {
    api.limit(Limit::Directory, address)?;
    list(&api, page, &DirectoryFilter::default()).await
}

#[derive(Deserialize)]
pub(super) struct Server {
    server: Option<String>,
}

#[derive(Deserialize)]
pub(super) struct Asked {
    limit: Option<usize>,
    since: Option<String>,
    filter: Option<Filter>,
    third_party_instance_id: Option<String>,
}

#[derive(Default, Deserialize)]
struct Filter {
    generic_search_term: Option<String>,
    room_types: Option<Vec<Option<String>>>,
}

pub(super) async fn post(
    State(api): State<Api>,
    user: User,
    Query(Server { server }): Query<Server>,
    Json(asked): Json<Asked>,
) -> Result<Json<Answer>, ApiError> {
    api.limit(Limit::Directory, &user.id)?;
    if asked.third_party_instance_id.is_some() {
        // We have no bridged networks, so there are no rooms of one.
        return Ok(Json(Answer {
            chunk: Vec::new(),
            next_batch: None,
            prev_batch: None,
            total_room_count_estimate: 0,
        }));
    }
    let filter = asked.filter.unwrap_or_default();
    let filter = DirectoryFilter {
        search_term: filter.generic_search_term.filter(|term| !term.is_empty()),
        room_types: filter.room_types,
    };
    let page = Page {
        limit: asked.limit,
        since: asked.since,
        server,
    };
    list(&api, page, &filter).await
}

async fn list(api: &Api, page: Page, filter: &DirectoryFilter) -> Result<Json<Answer>, ApiError> {
    let own = api.rooms.server_name().as_str();
    if page.server.is_some_and(|server| server != own) {
        let error = RoomError::OtherServer("the directories of other servers can't be read");
        return Err(error.into());
    }
    let limit = page.limit.unwrap_or(PAGE);
    let found = api
        .rooms
        .directory(filter, limit, page.since.as_deref())
        .await?;
    Ok(Json(Answer {
        chunk: found.rooms.into_iter().map(PublicRoom::from).collect(),
        next_batch: found.next,
        prev_batch: found.prev,
        total_room_count_estimate: found.total,
    }))
}
