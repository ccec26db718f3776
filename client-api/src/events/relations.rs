//! `GET /rooms/{roomId}/relations/{eventId}`, of one type of relation, of one type of event: what relates to an event.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1roomsroomidrelationseventid>

use std::collections::BTreeMap;

use axum::extract::State;
use comity_protocol::id::{OwnedEventId, OwnedRoomId};
use comity_rooms::{Found, Span, num::EventNum, tables::Relation};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{Access, Direction, access::access_or_not_found, gap, page::Gap, place_token};
use crate::{Api, ApiError, Json, Path, Query, User};

/// Relations in a page where the client doesn't say, and at the most.
const LIMITS: (usize, usize) = (20, 1_000);
/// How far indirect relations are followed.
const DEPTH: u8 = 3;
/// Relations followed in all.
const FOLLOWED: usize = 5_000;

#[derive(Deserialize)]
pub(super) struct Of {
    room_id: OwnedRoomId,
    event_id: OwnedEventId,
    rel_type: Option<String>,
    event_type: Option<String>,
}

#[derive(Deserialize)]
pub(super) struct Which {
    from: Option<String>,
    to: Option<String>,
    limit: Option<u64>,
    dir: Option<Direction>,
    recurse: Option<bool>,
}

#[derive(Serialize)]
pub(super) struct Answer {
    chunk: Vec<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_batch: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prev_batch: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    recursion_depth: Option<u8>,
}

pub(super) async fn get(
    State(api): State<Api>,
    user: User,
    Path(of): Path<Of>,
    Query(which): Query<Which>,
) -> Result<Json<Answer>, ApiError> {
    let access = access_or_not_found(&api, &user.id, &of.room_id).await?;
    let parent = access.event(&user.id, &of.event_id).await?;
    let view = &access.view;
    let from = match &which.from {
        Some(from) => Some(gap(&api, view, from).await?),
        None => None,
    };
    let to = match &which.to {
        Some(to) => Some(gap(&api, view, to).await?),
        None => None,
    };
    let backwards = which.dir != Some(Direction::Forwards);
    let wanted = which.limit.map_or(LIMITS.0, |limit| {
        usize::try_from(limit).map_or(LIMITS.1, |limit| limit.clamp(1, LIMITS.1))
    });
    let (after, before) = if backwards { (to, from) } else { (from, to) };
    let inside = |place: &Gap| {
        after.is_none_or(|after| *place >= after) && before.is_none_or(|before| *place < before)
    };
    let depth = if which.recurse == Some(true) {
        DEPTH
    } else {
        1
    };
    let (related, reached) = collect(&access, parent.num, depth).await?;
    let mut related: Vec<(Gap, EventNum)> = related
        .into_iter()
        .filter(|(place, relation)| {
            inside(place)
                && of
                    .rel_type
                    .as_ref()
                    .is_none_or(|is| *is == relation.rel_type)
                && of
                    .event_type
                    .as_ref()
                    .is_none_or(|is| *is == relation.event_type)
        })
        .map(|(place, relation)| (place, EventNum(relation.num)))
        .collect();
    if backwards {
        related.reverse();
    }
    let nums: Vec<EventNum> = related.iter().map(|(_, num)| *num).collect();
    let mut shown: Vec<Found> = Vec::new();
    let mut next = None;
    for page in nums.chunks(wanted.max(32)) {
        let found = view.load(page).await?;
        for one in view.only_visible(found, &user.id).await? {
            if shown.len() == wanted {
                next = shown.last().and_then(Found::place);
                break;
            }
            shown.push(one);
        }
        if next.is_some() {
            break;
        }
    }
    let next = next.map(|(seq, sub)| match backwards {
        true => (seq, sub),
        false => (seq, sub.saturating_add(1)),
    });
    Ok(Json(Answer {
        chunk: access.render(&shown, &user).await?,
        next_batch: next.map(|next| place_token(view, next)),
        prev_batch: which.from,
        recursion_depth: which.recurse.map(|_| reached),
    }))
}

/// What relates to an event, in order, and to what relates to it so many steps on; and how many steps were taken.
async fn collect(
    access: &Access,
    parent: EventNum,
    depth: u8,
) -> Result<(BTreeMap<Gap, Relation>, u8), ApiError> {
    let mut related = BTreeMap::new();
    let mut parents = vec![parent];
    let mut reached = 0;
    while reached < depth && !parents.is_empty() && related.len() < FOLLOWED {
        let rows = access
            .view
            .relations(&parents, Span::latest(FOLLOWED - related.len()))
            .await?;
        parents.clear();
        for (place, relation) in rows.into_iter().flatten() {
            if related.len() == FOLLOWED {
                break;
            }
            parents.push(EventNum(relation.num));
            related.insert(place, relation);
        }
        reached += 1;
    }
    Ok((related, reached))
}
