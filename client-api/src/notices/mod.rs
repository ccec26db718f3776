//! Server notices: what the administrators tell a user, in a room of its own
//! (<https://spec.matrix.org/v1.19/client-server-api/#server-notices>).
//!
//! A user's notices room is the one they are or were in whose creator is the server's own user. That user's localpart is one that
//! nobody can register, so the creator is proof enough and nothing else is stored.

mod send_server_notice;

use axum::routing::{post, put};
use comity_protocol::{
    auth::Membership,
    id::{OwnedRoomId, OwnedUserId, RoomId, UserId},
};
use comity_rooms::{RoomError, SERVER_LOCALPART};
use http::StatusCode;

use crate::{Api, ApiError, Routes};

pub(crate) fn routes() -> Routes {
    Routes::new()
        .at(
            "/_synapse/admin/v1/send_server_notice",
            post(send_server_notice::post),
        )
        .at(
            "/_synapse/admin/v1/send_server_notice/{txn_id}",
            put(send_server_notice::put),
        )
}

/// Who sends notices.
fn sender(api: &Api) -> Result<OwnedUserId, ApiError> {
    let id = format!("@{SERVER_LOCALPART}:{}", api.rooms.server_name());
    UserId::parse(id).map_err(|_| ApiError::internal("the server's own user id can't be read"))
}

/// A user's notices room, and their membership there.
async fn room_of(api: &Api, user: &UserId) -> Result<Option<(OwnedRoomId, Membership)>, ApiError> {
    let reader = api.rooms.tenant().reader();
    for (_, row) in api.rooms.memberships(&reader, user).await? {
        let Ok(room_id) = RoomId::parse(row.value.room_id.as_str()) else {
            continue;
        };
        if is_notices_room(api, &room_id).await? {
            return Ok(Some((room_id, row.value.membership())));
        }
    }
    Ok(None)
}

async fn is_notices_room(api: &Api, room_id: &RoomId) -> Result<bool, ApiError> {
    let sender = sender(api)?;
    match api.rooms.summary(room_id).await {
        Ok(room) => Ok(room.creators.first().map(String::as_str) == Some(sender.as_str())),
        Err(RoomError::UnknownRoom) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Refuses to decline the invite into the notices room; who has come in may leave.
///
/// # Errors
/// 403 `M_CANNOT_LEAVE_SERVER_NOTICE_ROOM`.
pub(crate) async fn may_leave(api: &Api, user: &UserId, room_id: &RoomId) -> Result<(), ApiError> {
    let member = api.rooms.member(user, room_id).await?;
    let invited = member.is_some_and(|row| row.value.membership() == Membership::Invite);
    if invited && is_notices_room(api, room_id).await? {
        return Err(ApiError::new(
            StatusCode::FORBIDDEN,
            "M_CANNOT_LEAVE_SERVER_NOTICE_ROOM",
            "The invite to the server's notices can't be declined",
        ));
    }
    Ok(())
}
