//! `GET /rooms/{roomId}/messages`: a page of a room's history.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3roomsroomidmessages>

use axum::extract::State;
use comity_protocol::id::OwnedRoomId;
use comity_rooms::Found;
use comity_sync::filter::{DEFAULT_LIMIT, EventFilter, MAX_LIMIT};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{Access, Direction, Page, gap, place_token};
use crate::{Api, ApiError, Json, Path, Query, UserOrGuest};

#[derive(Deserialize)]
pub(super) struct Which {
    from: Option<String>,
    to: Option<String>,
    dir: Option<Direction>,
    limit: Option<u64>,
    filter: Option<String>,
}

#[derive(Serialize)]
pub(super) struct Answer {
    start: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    end: Option<String>,
    chunk: Vec<Box<RawValue>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    state: Vec<Box<RawValue>>,
}

pub(super) async fn get(
    State(api): State<Api>,
    UserOrGuest(user): UserOrGuest,
    Path(room_id): Path<OwnedRoomId>,
    Query(which): Query<Which>,
) -> Result<Json<Answer>, ApiError> {
    let mut access = Access::of(&api, &user.id, &room_id).await?;
    let direction = which
        .dir
        .ok_or_else(|| ApiError::missing_param("dir is missing"))?;
    let filter = read_filter(which.filter.as_deref())?;
    let from = match &which.from {
        Some(from) => Some(gap(&api, &access.view, from).await?),
        None => None,
    };
    let to = match &which.to {
        Some(to) => Some(gap(&api, &access.view, to).await?),
        None => None,
    };
    let ignored = api.accounts.ignored_users(user.id.as_str()).await?;
    let limit = limit(which.limit, &filter);
    if direction == Direction::Backwards {
        let end = (access.view.seq() + 1, i64::MIN);
        let before = from.unwrap_or(end).min(end);
        let view = access.view.clone();
        access.view = api.rooms.with_history(view, before, limit).await?;
    }
    let page = Page {
        user: &user.id,
        from,
        to,
        direction,
        limit,
        filter: &filter,
        ignored: &ignored,
    };
    let page = page.of(&access).await?;
    // Where a filter left something out, some clients take a page without an end for all there is: the page after the last
    // tells them, by having neither events nor an end.
    let goes_on = page.more || page.thinned && !page.found.is_empty();
    let members = match filter.lazy_load_members {
        true => members_of(&access, &page.found).await?,
        false => Vec::new(),
    };
    Ok(Json(Answer {
        start: which
            .from
            .unwrap_or_else(|| place_token(&access.view, page.start)),
        end: goes_on.then(|| place_token(&access.view, page.end)),
        chunk: access.render(&page.found, &user).await?,
        state: access.render(&members, &user).await?,
    }))
}

/// A filter of events from a query.
pub(super) fn read_filter(filter: Option<&str>) -> Result<EventFilter, ApiError> {
    let filter = filter.map(EventFilter::parse).transpose();
    Ok(filter
        .map_err(|bad| ApiError::invalid_param(bad.0))?
        .unwrap_or_default())
}

/// The smaller of the two limits a client may set.
pub(super) fn limit(limit: Option<u64>, filter: &EventFilter) -> usize {
    let asked = limit.map(|limit| usize::try_from(limit).unwrap_or(MAX_LIMIT));
    let filtered = filter.limit.map(|_| filter.limit());
    let smaller = match (asked, filtered) {
        (Some(one), Some(other)) => one.min(other),
        (one, other) => one.or(other).unwrap_or(DEFAULT_LIMIT),
    };
    smaller.min(MAX_LIMIT)
}

/// The senders' member events, by the state at the newest of the events.
async fn members_of(access: &Access, found: &[Found]) -> Result<Vec<Found>, ApiError> {
    let Some(newest) = found.iter().max_by_key(|found| found.place()) else {
        return Ok(Vec::new());
    };
    let root = access.view.root_after(newest).await?;
    let nums = access.senders(root, found).await?;
    Ok(access.view.load(&nums).await?)
}
