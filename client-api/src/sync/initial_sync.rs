//! `GET /initialSync`: everything at a glance, as clients asked for it before `/sync`.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3initialsync>

use std::time::Duration;

use axum::extract::State;
use comity_protocol::id::{OwnedRoomId, RoomId};
use comity_sync::{
    Request,
    answer::{State as RoomState, Timeline},
    filter::{EventFilter, Filter, RoomFilter},
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, value::RawValue};

use crate::{
    Api, ApiError, Json, Query, User,
    events::{Messages, RoomInfo},
};

#[derive(Deserialize)]
pub(super) struct Which {
    limit: Option<u64>,
    #[serde(default)]
    archived: bool,
}

#[derive(Serialize)]
pub(super) struct Answer {
    end: String,
    presence: Vec<Box<RawValue>>,
    rooms: Vec<RoomInfo>,
    account_data: Vec<Box<RawValue>>,
}

pub(super) async fn get(
    State(api): State<Api>,
    user: User,
    Query(which): Query<Which>,
) -> Result<Json<Answer>, ApiError> {
    let timeline = EventFilter {
        limit: which.limit,
        ..EventFilter::default()
    };
    let room = RoomFilter {
        include_leave: which.archived,
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
        since: None,
        full_state: false,
        use_state_after: true,
        timeout: Duration::ZERO,
    };
    let answer = api.sync.sync(&request).await?;
    let end = answer.next_batch;
    let mut rooms = Vec::new();
    for (room_id, joined) in answer.rooms.join {
        let room = known(&room_id, joined.timeline, joined.state, &end)?;
        rooms.push(RoomInfo {
            membership: Some("join"),
            ..room.of(&api, &user).await?
        });
    }
    for (room_id, left) in answer.rooms.leave {
        let room = known(&room_id, left.timeline, left.state, &end)?;
        let member = api.rooms.member(&user.id, &room.room_id).await?;
        rooms.push(RoomInfo {
            membership: member.map(|row| row.value.membership().as_str()),
            ..room.of(&api, &user).await?
        });
    }
    for room_id in answer.rooms.invite.keys() {
        let room_id = parse(room_id)?;
        rooms.push(RoomInfo {
            membership: Some("invite"),
            invite: invite(&api, &user, &room_id).await?,
            ..RoomInfo::of(&api, &user.id, room_id).await?
        });
    }
    Ok(Json(Answer {
        end,
        presence: answer.presence.events,
        rooms,
        account_data: answer.account_data.events,
    }))
}

/// A room of a sync's answer.
struct Known {
    room_id: OwnedRoomId,
    messages: Messages,
    state: Vec<Box<RawValue>>,
}

fn known(
    room_id: &str,
    timeline: Timeline,
    state: RoomState,
    end: &str,
) -> Result<Known, ApiError> {
    let room_id = parse(room_id)?;
    let (RoomState::Before(state) | RoomState::After(state)) = state;
    let messages = Messages {
        start: timeline.prev_batch.unwrap_or_else(|| end.to_owned()),
        end: end.to_owned(),
        chunk: with_room_id(timeline.events, &room_id)?,
    };
    let state = with_room_id(state.events, &room_id)?;
    Ok(Known {
        room_id,
        messages,
        state,
    })
}

impl Known {
    async fn of(self, api: &Api, user: &User) -> Result<RoomInfo, ApiError> {
        Ok(RoomInfo {
            messages: Some(self.messages),
            state: Some(self.state),
            ..RoomInfo::of(api, &user.id, self.room_id).await?
        })
    }
}

/// The invitation, whole: a sync shows no more of it than others may know.
async fn invite(
    api: &Api,
    user: &User,
    room_id: &RoomId,
) -> Result<Option<Box<RawValue>>, ApiError> {
    let view = api.rooms.view(room_id).await?;
    let Some(found) = view.state("m.room.member", user.id.as_str()).await? else {
        return Ok(None);
    };
    let viewer = comity_rooms::Viewer {
        user: &user.id,
        device: Some(&user.device),
    };
    let format = comity_protocol::client_event::ClientFormat::WithRoomId;
    Ok(view.render(&[found], viewer, format).await?.pop())
}

fn parse(room_id: &str) -> Result<OwnedRoomId, ApiError> {
    OwnedRoomId::try_from(room_id)
        .map_err(|_| ApiError::internal("a room's id in a sync can't be read"))
}

/// A sync's events name no room: it is known from where they stand there.
pub(super) fn with_room_id(
    events: Vec<Box<RawValue>>,
    room_id: &RoomId,
) -> Result<Vec<Box<RawValue>>, ApiError> {
    let with = |event: Box<RawValue>| {
        let mut event: Map<String, Value> = serde_json::from_str(event.get())?;
        event.insert("room_id".into(), room_id.as_str().into());
        serde_json::value::to_raw_value(&event)
    };
    let events: Result<_, serde_json::Error> = events.into_iter().map(with).collect();
    events.map_err(ApiError::internal)
}
