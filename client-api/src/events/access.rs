//! What a user may read of a room: all of it while joined, up to their leave afterwards, and where anyone may look, as it stands.
//! Which events they may see is decided event by event.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#room-history-visibility>

use std::collections::BTreeSet;

use comity_protocol::{
    auth::Membership,
    client_event::ClientFormat,
    id::{RoomId, UserId},
    visibility::HistoryVisibility,
};
use comity_rooms::{
    Found, RoomView, Viewer,
    num::EventNum,
    state::{AnyRoot, Half},
    tables::Mode,
};
use http::StatusCode;
use serde_json::value::RawValue;

use crate::{Api, ApiError, User};

/// A room as one user may read it.
pub(crate) struct Access {
    /// The room as it is.
    pub view: RoomView,
    /// The state that the user may read: the current one, or that at their leave, which is part of it.
    pub root: AnyRoot,
    /// Their membership now.
    pub membership: Membership,
    /// The sequence number of their leave, where they see the room as it was then.
    pub left: Option<i64>,
}

impl Access {
    /// The user's access to a room.
    ///
    /// # Errors
    /// 403 `M_FORBIDDEN` for who isn't and wasn't in the room, or has forgotten it, unless anyone may look; and for rooms that are
    /// not known here.
    pub async fn of(api: &Api, user: &UserId, room_id: &RoomId) -> Result<Self, ApiError> {
        let view = api.rooms.view(room_id).await?;
        let standing = view.standing(user).await?;
        let access = |root, left| Self {
            view: view.clone(),
            root,
            membership: standing.membership,
            left,
        };
        if standing.membership == Membership::Join {
            return Ok(access(view.root(), None));
        }
        if view.history_visibility().await? == HistoryVisibility::WorldReadable {
            return Ok(access(view.root(), None));
        }
        let member = api.rooms.member(user, room_id).await?;
        let forgotten = member.is_some_and(|row| row.value.forgotten);
        if let Some(until) = standing.joined_until.filter(|_| !forgotten)
            && let Some(leave) = view.at(until).await?
        {
            let root = view.root_after(&leave).await?;
            return Ok(access(root, Some(until)));
        }
        Err(ApiError::forbidden(
            "You are not in this room, or there is no such room",
        ))
    }

    /// The same once all members are known, of a room that was joined without them.
    ///
    /// # Errors
    /// As [`Self::of`]; 503 if that takes too long.
    pub async fn of_whole(api: &Api, user: &UserId, room_id: &RoomId) -> Result<Self, ApiError> {
        let access = Self::of(api, user, room_id).await?;
        if access.view.head().mode != Mode::Partial {
            return Ok(access);
        }
        api.rooms.whole_view(room_id).await?;
        Self::of(api, user, room_id).await
    }

    /// An event that the user may see.
    ///
    /// # Errors
    /// 404 `M_NOT_FOUND`.
    pub async fn event(
        &self,
        user: &UserId,
        event_id: &comity_protocol::id::EventId,
    ) -> Result<Found, ApiError> {
        let found: Vec<Found> = self.view.event(event_id).await?.into_iter().collect();
        let mut found = self.view.only_visible(found, user).await?;
        found.pop().ok_or_else(no_event)
    }

    /// The state that the user may read, or half of it.
    pub async fn state(&self, half: Option<Half>) -> Result<Vec<Found>, ApiError> {
        let nums = self.view.state_nums(self.root, half).await?;
        Ok(self.view.load(&nums).await?)
    }

    /// The member events that a state has of the events' senders.
    pub async fn senders(&self, root: AnyRoot, found: &[Found]) -> Result<Vec<EventNum>, ApiError> {
        let mut senders: Vec<&str> = found
            .iter()
            .map(|found| found.event.sender().as_str())
            .collect();
        senders.sort_unstable();
        senders.dedup();
        let names: Vec<(&str, &str)> = senders
            .into_iter()
            .map(|sender| ("m.room.member", sender))
            .collect();
        let keys = self.view.state_keys(&names).await?;
        let nums = self.view.lookup(root, &keys).await?;
        let unknown = names.iter().zip(&nums);
        let unknown: BTreeSet<&str> = unknown
            .filter(|(_, num)| num.is_none() && root.is_partial())
            .map(|((_, user), _)| *user)
            .collect();
        let mut nums: Vec<EventNum> = nums.into_iter().flatten().collect();
        if !unknown.is_empty() {
            nums.extend(self.view.members_named(found, &unknown).await?);
        }
        Ok(nums)
    }

    /// The events as the user's client gets them.
    pub async fn render(
        &self,
        found: &[Found],
        user: &User,
    ) -> Result<Vec<Box<RawValue>>, ApiError> {
        let viewer = Viewer {
            user: &user.id,
            device: Some(&user.device),
        };
        Ok(self
            .view
            .render(found, viewer, ClientFormat::WithRoomId)
            .await?)
    }

    /// One event as the user's client gets it.
    pub async fn render_one(&self, found: Found, user: &User) -> Result<Box<RawValue>, ApiError> {
        self.render(&[found], user)
            .await?
            .pop()
            .ok_or_else(no_event)
    }
}

/// The user's access, where the specification wants a room out of reach to look like an event that isn't there.
pub(super) async fn access_or_not_found(
    api: &Api,
    user: &UserId,
    room_id: &RoomId,
) -> Result<Access, ApiError> {
    let access = Access::of(api, user, room_id).await;
    access.map_err(|error| match error.is(StatusCode::FORBIDDEN) {
        true => no_event(),
        false => error,
    })
}

pub(super) fn no_event() -> ApiError {
    ApiError::not_found("There is no such event, or you can't see it")
}
