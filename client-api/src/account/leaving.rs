//! What a deactivated account leaves behind in rooms.

use async_trait::async_trait;
use comity_accounts::{AccountError, LeaveRooms};
use comity_protocol::{
    auth::Membership,
    id::{RoomId, UserId},
};
use comity_rooms::{RoomError, Rooms};

/// Leaves the rooms of deactivated accounts.
pub(crate) struct Leaving<'a>(pub &'a Rooms);

#[async_trait]
impl LeaveRooms for Leaving<'_> {
    async fn leave_all(&self, user_id: &str, erase: bool) -> Result<(), AccountError> {
        let user = <&UserId>::try_from(user_id)
            .map_err(|_| AccountError::Internal("an account's user id can't be read"))?;
        for membership in [Membership::Join, Membership::Invite, Membership::Knock] {
            let rooms = self.0.rooms_with(user, membership).await.map_err(failed)?;
            for room_id in rooms {
                match self.0.leave(user, &room_id, None).await {
                    // A room that can't be left holds up no other.
                    Ok(_) | Err(RoomError::Rejected(_) | RoomError::Forbidden(_)) => {}
                    Err(error) => return Err(failed(error)),
                }
            }
        }
        if erase {
            let reader = self.0.tenant().reader();
            for (_, member) in self.0.memberships(&reader, user).await.map_err(failed)? {
                let room_id = <&RoomId>::try_from(member.value.room_id.as_str())
                    .map_err(|_| AccountError::Internal("a room's id can't be read"))?;
                match self.0.erase(user, room_id).await {
                    Ok(()) | Err(RoomError::UnknownRoom) => {}
                    Err(error) => return Err(failed(error)),
                }
            }
        }
        Ok(())
    }
}

fn failed(error: RoomError) -> AccountError {
    match error {
        RoomError::Read(error) => error.into(),
        RoomError::Commit(error) => error.into(),
        other => {
            tracing::error!(cause = %other, "a room could not be left");
            AccountError::Internal("a room could not be left")
        }
    }
}
