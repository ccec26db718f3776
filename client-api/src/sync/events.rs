//! `GET /events`: new events as they come, as clients asked for them before `/sync`; of one room also for those who only look at it.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3events>

use std::{collections::BTreeSet, pin::pin, time::Duration};

use axum::extract::State;
use comity_protocol::{
    auth::Membership,
    id::{OwnedRoomId, RoomId},
};
use comity_sync::{
    Request,
    filter::{EventFilter, Filter, MAX_LIMIT, RoomFilter},
    token::{Ephemeral, SyncToken, Token},
};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::time::{Instant, sleep_until};

use super::{initial_sync::with_room_id, while_signed_in};
use crate::{
    Api, ApiError, Json, Query, User, UserOrGuest,
    events::{Access, Direction, Gap, Page, gap, place_token},
};

/// The longest wait.
const LONGEST: Duration = Duration::from_secs(120);
/// How often someone who isn't in a room looks at it.
const LOOK: Duration = Duration::from_millis(500);

#[derive(Deserialize)]
pub(super) struct Wanted {
    from: Option<String>,
    /// In milliseconds.
    #[serde(default)]
    timeout: u64,
    room_id: Option<OwnedRoomId>,
}

#[derive(Serialize)]
pub(super) struct Answer {
    start: String,
    end: String,
    chunk: Vec<Box<RawValue>>,
}

pub(super) async fn get(
    State(api): State<Api>,
    UserOrGuest(user): UserOrGuest,
    Query(wanted): Query<Wanted>,
) -> Result<Json<Answer>, ApiError> {
    let answer = async {
        if let Some(room_id) = &wanted.room_id {
            // Apart, as what it reads with: whoever waits holds neither.
            let access = Box::new(Box::pin(Access::of(&api, &user.id, room_id)).await?);
            if access.membership != Membership::Join {
                return peek(&api, &user, room_id, &wanted, access).await;
            }
        }
        listen(&api, &user, &wanted).await
    };
    while_signed_in(&user, pin!(answer)).await.map(Json)
}

/// What happens in the user's rooms, or in one of them.
async fn listen(api: &Api, user: &User, wanted: &Wanted) -> Result<Answer, ApiError> {
    let now = api.sync.now();
    let since = match wanted.from.as_deref().map(str::parse) {
        None => now,
        Some(Ok(Token::Sync(since))) => since,
        Some(Ok(Token::Place(place))) => SyncToken {
            heads: place.heads,
            ephemeral: Ephemeral::default(),
            ..now
        },
        Some(Err(_)) => return Err(ApiError::invalid_param("from is no token")),
    };
    let start = wanted.from.clone().unwrap_or_else(|| since.to_string());
    let rooms = wanted.room_id.as_ref().map(|room| vec![room.to_string()]);
    let timeline = EventFilter {
        limit: u64::try_from(MAX_LIMIT).ok(),
        ..EventFilter::default()
    };
    let room = RoomFilter {
        rooms,
        timeline,
        ..RoomFilter::default()
    };
    let request = Request {
        user: user.id.clone(),
        device: user.device.clone(),
        to_device: false,
        filter: Filter {
            room,
            ..Filter::default()
        },
        since: Some(since),
        full_state: false,
        use_state_after: false,
        timeout: Duration::from_millis(wanted.timeout).min(LONGEST),
    };
    let answer = api.sync.sync(&request).await?;
    let joined = answer.rooms.join.into_iter();
    let left = answer.rooms.leave.into_iter();
    let timelines = joined
        .map(|(room, joined)| (room, joined.timeline))
        .chain(left.map(|(room, left)| (room, left.timeline)));
    let mut chunk = Vec::new();
    for (room_id, timeline) in timelines {
        let room_id = OwnedRoomId::try_from(room_id.as_str())
            .map_err(|_| ApiError::internal("a room's id in a sync can't be read"))?;
        chunk.append(&mut with_room_id(timeline.events, &room_id)?);
    }
    Ok(Answer {
        start,
        end: answer.next_batch,
        chunk,
    })
}

/// What happens in a room that the user may look at without being there.
async fn peek(
    api: &Api,
    user: &User,
    room_id: &RoomId,
    wanted: &Wanted,
    mut access: Box<Access>,
) -> Result<Answer, ApiError> {
    let deadline = Instant::now() + Duration::from_millis(wanted.timeout).min(LONGEST);
    let mut from = match &wanted.from {
        Some(from) => Box::pin(gap(api, &access.view, from)).await?,
        None => (access.view.seq(), 1),
    };
    let start = place_token(&access.view, from);
    loop {
        let (events, end) = Box::pin(look(&access, user, from)).await?;
        from = end;
        let now = Instant::now();
        if !events.is_empty() || now >= deadline {
            return Ok(Answer {
                start: wanted.from.clone().unwrap_or(start),
                end: place_token(&access.view, from),
                chunk: events,
            });
        }
        drop(access);
        sleep_until(deadline.min(now + LOOK)).await;
        access = Box::new(Box::pin(Access::of(api, &user.id, room_id)).await?);
    }
}

/// What happened in the room after a place that the user may see, and where that ends.
async fn look(
    access: &Access,
    user: &User,
    from: Gap,
) -> Result<(Vec<Box<RawValue>>, Gap), ApiError> {
    let page = Page {
        user: &user.id,
        from: Some(from),
        to: None,
        direction: Direction::Forwards,
        limit: MAX_LIMIT,
        filter: &EventFilter::default(),
        ignored: &BTreeSet::new(),
    };
    let page = page.of(access).await?;
    let events = match page.found.is_empty() {
        true => Vec::new(),
        false => access.render(&page.found, user).await?,
    };
    Ok((events, page.end))
}
