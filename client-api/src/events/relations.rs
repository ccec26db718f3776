//! `GET /rooms/{roomId}/relations/{eventId}`, of one type of relation, of one type of event: what relates to an event.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1roomsroomidrelationseventid>

use axum::extract::State;
use comity_protocol::id::{OwnedEventId, OwnedRoomId};
use comity_rooms::{Found, RoomView, Span, num::EventNum, tables::Scope};
use comity_sync::filter;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{Direction, access::access_or_not_found, gap, page::Gap, place_token};
use crate::{Api, ApiError, Json, Path, Query, User};

/// Relations in a page where the client doesn't say, and at the most.
const LIMITS: (usize, usize) = (20, 1_000);
/// How far indirect relations are followed: so far they are kept with each event.
const DEPTH: u8 = 3;
/// Relations looked at for one page at the most: where most aren't wanted, a page ends early and says where to go on.
const LOOKED_AT: usize = 2_000;
/// Fewest looked at in one go.
const CHUNK: usize = 32;

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
    let recurse = which.recurse == Some(true);
    let mut span = Span {
        after: after.map(|(seq, sub)| (seq, sub.saturating_sub(1))),
        before,
        unknown_at: None,
        backwards,
        limit: 0,
    };
    let (mut shown, mut next, mut looked_at) = (Vec::<Found>::new(), None::<Gap>, 0);
    // A stretch whose ends have met holds nothing.
    let mut more = span.before.is_none_or(|before| span.after < Some(before));
    while more {
        span.limit = (wanted + 1 - shown.len()).max(CHUNK);
        let page = related(view, parent.num, of.rel_type.as_deref(), recurse, span).await?;
        looked_at += page.len();
        more = page.len() == span.limit;
        let nums: Vec<EventNum> = page.iter().map(|(_, num)| *num).collect();
        let found = view.load(&nums).await?;
        for one in view.only_visible(found, &user.id).await? {
            if !of.wants(&one, recurse) {
                continue;
            }
            if shown.len() == wanted {
                next = shown.last().and_then(Found::place);
                more = false;
                break;
            }
            shown.push(one);
        }
        let last = page.last().map(|(place, _)| *place);
        match backwards {
            true => span.before = last,
            false => span.after = last,
        }
        if more && looked_at >= LOOKED_AT {
            next = last;
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
        recursion_depth: which.recurse.map(|recurse| if recurse { DEPTH } else { 1 }),
    }))
}

/// What relates to an event within a stretch of the order, in the order asked, each with its place.
async fn related(
    view: &RoomView,
    parent: EventNum,
    rel_type: Option<&str>,
    recurse: bool,
    span: Span,
) -> Result<Vec<(Gap, EventNum)>, ApiError> {
    if let Some(rel_type) = rel_type.filter(|_| !recurse) {
        let rows = view
            .related(&[(parent, Scope::Type(rel_type))], span)
            .await?;
        return Ok(rows.into_iter().flatten().collect());
    }
    let direct = view.relations(&[parent], span).await?;
    let direct = direct.into_iter().flatten();
    let mut related: Vec<(Gap, EventNum)> = direct
        .map(|(place, relation)| (place, EventNum(relation.num)))
        .collect();
    if recurse {
        // Each of the two has its first ones, so the first of both together are among them.
        let below = view.related(&[(parent, Scope::Below)], span).await?;
        related.extend(below.into_iter().flatten());
        related.sort_unstable();
        if span.backwards {
            related.reverse();
        }
        related.truncate(span.limit);
    }
    Ok(related)
}

impl Of {
    /// Whether an event is of the types asked for. One that was redacted relates to nothing.
    fn wants(&self, one: &Found, recurse: bool) -> bool {
        let event_type = self.event_type.as_deref();
        let rel_type = self.rel_type.as_deref().filter(|_| recurse);
        one.status.redacted_by.is_none()
            && event_type.is_none_or(|wanted| wanted == one.event.event_type())
            && rel_type.is_none_or(|wanted| filter::rel_type(one).as_deref() == Some(wanted))
    }
}
