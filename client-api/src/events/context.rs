//! `GET /rooms/{roomId}/context/{eventId}`: what happened around an event.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3roomsroomidcontexteventid>

use std::collections::BTreeSet;

use axum::extract::State;
use comity_protocol::id::{OwnedEventId, OwnedRoomId};
use comity_rooms::{num::EventNum, state::Half};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{
    Access, Direction, Page,
    access::no_event,
    messages::{limit, read_filter},
    place_token,
};
use crate::{Api, ApiError, Json, Path, Query, UserOrGuest};

#[derive(Deserialize)]
pub(super) struct Which {
    limit: Option<u64>,
    filter: Option<String>,
}

#[derive(Serialize)]
pub(super) struct Answer {
    start: String,
    end: String,
    events_before: Vec<Box<RawValue>>,
    event: Box<RawValue>,
    events_after: Vec<Box<RawValue>>,
    state: Vec<Box<RawValue>>,
}

pub(super) async fn get(
    State(api): State<Api>,
    UserOrGuest(user): UserOrGuest,
    Path((room_id, event_id)): Path<(OwnedRoomId, OwnedEventId)>,
    Query(which): Query<Which>,
) -> Result<Json<Answer>, ApiError> {
    let mut access = Access::of(&api, &user.id, &room_id).await?;
    let view = access.view.clone();
    access.view = api.rooms.with_event(view, &event_id).await?;
    let found = access.event(&user.id, &event_id).await?;
    let place = found.place().ok_or_else(no_event)?;
    let filter = read_filter(which.filter.as_deref())?;
    let limit = limit(which.limit, &filter);
    let view = access.view.clone();
    access.view = api.rooms.with_history(view, place, limit / 2).await?;
    let ignored = api.accounts.ignored_users(user.id.as_str()).await?;
    let page = |direction, from, limit| Page {
        user: &user.id,
        from: Some(from),
        to: None,
        direction,
        limit,
        filter: &filter,
        ignored: &ignored,
    };
    let after_it = (place.0, place.1.saturating_add(1));
    let before = page(Direction::Backwards, place, limit / 2);
    let after = page(Direction::Forwards, after_it, limit - limit / 2);
    let (before, after) = (before.of(&access).await?, after.of(&access).await?);
    let last = after.found.last().unwrap_or(&found);
    let root = access.view.root_after(last).await?;
    let state = match filter.lazy_load_members {
        true => {
            let mut shown = before.found.clone();
            shown.extend(after.found.iter().cloned());
            shown.push(found.clone());
            let mut nums: BTreeSet<EventNum> =
                access.senders(root, &shown).await?.into_iter().collect();
            nums.extend(access.view.state_nums(root, Some(Half::Rest)).await?);
            nums.into_iter().collect()
        }
        false => access.view.state_nums(root, None).await?,
    };
    let mut state = access.view.load(&state).await?;
    state.retain(|found| filter.wants(&found.event));
    Ok(Json(Answer {
        start: place_token(&access.view, before.end),
        end: place_token(&access.view, after.end),
        events_before: access.render(&before.found, &user).await?,
        events_after: access.render(&after.found, &user).await?,
        state: access.render(&state, &user).await?,
        event: access.render_one(found, &user).await?,
    }))
}
