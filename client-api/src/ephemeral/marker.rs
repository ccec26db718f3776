//! Moving one's markers in a room, by whichever of the two endpoints.

use comity_protocol::{
    auth::Membership,
    id::{EventId, OwnedEventId, RoomId, UserId, event_id},
};
use comity_rooms::ReceiptKind;

use crate::{Api, ApiError};

pub(super) fn read_event_id(text: &str) -> Result<OwnedEventId, ApiError> {
    event_id(text).ok_or_else(|| ApiError::invalid_param("Malformed event id"))
}

/// Moves a receipt, forward only.
pub(super) async fn receipt(
    api: &Api,
    user: &UserId,
    room_id: &RoomId,
    kind: ReceiptKind,
    event_id: &EventId,
    thread: Option<&str>,
) -> Result<(), ApiError> {
    api.rooms
        .set_receipt(user, room_id, kind, event_id, thread)
        .await?;
    Ok(())
}

/// Moves the fully read marker to an event of the room.
///
/// <https://spec.matrix.org/v1.19/client-server-api/#fully-read-markers>
pub(super) async fn fully_read(
    api: &Api,
    user: &UserId,
    room_id: &RoomId,
    event_id: &EventId,
) -> Result<(), ApiError> {
    let member = api.rooms.member(user, room_id).await?;
    if member.is_none_or(|row| row.value.membership() != Membership::Join) {
        return Err(ApiError::forbidden("You are not in this room"));
    }
    let view = api.rooms.view(room_id).await?;
    if view.event(event_id).await?.is_none() {
        return Err(ApiError::not_found("There is no such event in this room"));
    }
    api.accounts
        .set_fully_read(user.as_str(), room_id.as_str(), event_id.as_str())
        .await?;
    Ok(())
}
