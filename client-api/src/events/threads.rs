//! `GET /rooms/{roomId}/threads`: the threads of a room, those written in last first.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1roomsroomidthreads>

use axum::extract::State;
use comity_accounts::Limit;
use comity_protocol::id::OwnedRoomId;
use comity_rooms::Found;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{Access, gap, place_token};
use crate::{Api, ApiError, Json, Path, Query, User};

/// Threads in a page where the client doesn't say, and at the most.
const LIMITS: (usize, usize) = (20, 100);
/// Threads looked at for one page at the most: where most are hidden, a page ends early and says where to go on.
const LOOKED_AT: usize = 1_000;
/// Fewest looked at in one go.
const CHUNK: usize = 32;

#[derive(Deserialize)]
pub(super) struct Which {
    #[serde(default)]
    include: Include,
    limit: Option<u64>,
    from: Option<String>,
}

#[derive(Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Include {
    #[default]
    All,
    Participated,
}

#[derive(Serialize)]
pub(super) struct Answer {
    chunk: Vec<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_batch: Option<String>,
}

pub(super) async fn get(
    State(api): State<Api>,
    user: User,
    Path(room_id): Path<OwnedRoomId>,
    Query(which): Query<Which>,
) -> Result<Json<Answer>, ApiError> {
    api.limit(Limit::LookUp, &user.id)?;
    let access = Access::of(&api, &user.id, &room_id).await?;
    let view = &access.view;
    let wanted = match which.limit {
        Some(0) => return Err(ApiError::invalid_param("limit must be above zero")),
        Some(limit) => usize::try_from(limit).map_or(LIMITS.1, |limit| limit.min(LIMITS.1)),
        None => LIMITS.0,
    };
    let from = match &which.from {
        Some(from) => Some(gap(&api, view, from).await?),
        None => None,
    };
    let ignored = api.accounts.ignored_users(user.id.as_str()).await?;
    // A thread stands where its latest event does.
    let mut before = from.map(|(seq, sub)| if sub > 0 { seq.saturating_add(1) } else { seq });
    let (mut shown, mut last, mut next): (Vec<Found>, _, _) = (Vec::new(), None, None);
    let mut looked_at = 0;
    loop {
        let limit = (wanted + 1 - shown.len()).max(CHUNK);
        let page = view.threads(before, limit).await?;
        before = page.last().map(|(_, thread)| thread.latest_seq);
        looked_at += page.len();
        let roots: Vec<_> = page.iter().map(|(root, _)| *root).collect();
        let found = view.load(&roots).await?;
        for mut root in view.only_visible(found, &user.id).await? {
            let Some((_, thread)) = page.iter().find(|(num, _)| *num == root.num) else {
                continue;
            };
            let me = |user_id: &String| *user_id == user.id.as_str();
            let took_part = root.event.sender() == user.id || thread.participants.iter().any(me);
            if which.include == Include::Participated && !took_part {
                continue;
            }
            if shown.len() == wanted {
                next = last;
                break;
            }
            last = Some((thread.latest_seq, 0));
            if ignored.contains(root.event.sender().as_str()) {
                root.event = root.event.redact();
            }
            shown.push(root);
        }
        if next.is_some() || page.len() < limit {
            break;
        }
        if looked_at >= LOOKED_AT {
            next = before.map(|seq| (seq, 0));
            break;
        }
    }
    Ok(Json(Answer {
        chunk: access.render(&shown, &user).await?,
        next_batch: next.map(|next| place_token(view, next)),
    }))
}
