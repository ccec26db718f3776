//! `GET /rooms/{roomId}/initialSync`: a room at a glance, also for those who only look at it.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3roomsroomidinitialsync>

use std::collections::BTreeSet;

use axum::extract::State;
use comity_protocol::{
    auth::Membership,
    id::{OwnedRoomId, UserId},
};
use comity_rooms::Visibility;
use comity_sync::filter::EventFilter;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json, value::RawValue};

use super::{Access, Direction, Page, messages::limit, place_token};
use crate::{Api, ApiError, Json, Path, Query, UserOrGuest};

#[derive(Deserialize)]
pub(super) struct Which {
    limit: Option<u64>,
}

/// What is known of a room, here and in the global `GET /initialSync`.
#[derive(Serialize)]
pub(crate) struct RoomInfo {
    pub room_id: OwnedRoomId,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub membership: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub invite: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub messages: Option<Messages>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<Vec<Box<RawValue>>>,
    pub visibility: &'static str,
    pub account_data: Vec<Value>,
}

#[derive(Serialize)]
pub(crate) struct Messages {
    pub start: String,
    pub end: String,
    pub chunk: Vec<Box<RawValue>>,
}

impl RoomInfo {
    /// A room of which nothing is told yet but what belongs to the user and the directory.
    pub async fn of(api: &Api, user: &UserId, room_id: OwnedRoomId) -> Result<Self, ApiError> {
        let visibility = match api.rooms.visibility(&room_id).await? {
            Visibility::Public => "public",
            Visibility::Private => "private",
        };
        let data = api
            .accounts
            .account_data_of_room(user.as_str(), room_id.as_str())
            .await?;
        let account_data = data
            .into_iter()
            .filter(|data| !data.is_deleted())
            .map(|data| json!({ "type": data.kind, "content": data.content }))
            .collect();
        Ok(Self {
            room_id,
            membership: None,
            invite: None,
            messages: None,
            state: None,
            visibility,
            account_data,
        })
    }
}

pub(super) async fn get(
    State(api): State<Api>,
    UserOrGuest(user): UserOrGuest,
    Path(room_id): Path<OwnedRoomId>,
    Query(which): Query<Which>,
) -> Result<Json<RoomInfo>, ApiError> {
    let access = Access::of_whole(&api, &user.id, &room_id).await?;
    let filter = EventFilter::default();
    let page = Page {
        user: &user.id,
        from: None,
        to: None,
        direction: Direction::Backwards,
        limit: limit(which.limit, &filter),
        filter: &filter,
        ignored: &BTreeSet::new(),
    };
    let mut page = page.of(&access).await?;
    page.found.reverse();
    let state = access.state(None).await?;
    let membership = match access.membership {
        Membership::Knock => None,
        // For someone who was never there it says nothing.
        Membership::Leave if access.left.is_none() => None,
        membership => Some(membership.as_str()),
    };
    Ok(Json(RoomInfo {
        membership,
        messages: Some(Messages {
            start: place_token(&access.view, page.end),
            end: place_token(&access.view, page.start),
            chunk: access.render(&page.found, &user).await?,
        }),
        state: Some(access.render(&state, &user).await?),
        ..RoomInfo::of(&api, &user.id, room_id).await?
    }))
}
