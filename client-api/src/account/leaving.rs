//! What a deactivated account leaves behind, in rooms and in files.

use async_trait::async_trait;
use comity_accounts::{AccountError, LeaveRooms};
use comity_media::{Media, MediaError};
use comity_protocol::{
    auth::Membership,
    id::{RoomId, UserId},
};
use comity_rooms::{RoomError, Rooms};

/// Files removed at a time.
const FILES: usize = 1_000;

/// Leaves the rooms of deactivated accounts, and removes the files of those that are erased: whether an event names a file, and who
/// could see it, isn't known of what is encrypted, and a file is no event.
pub(crate) struct Leaving<'a> {
    pub rooms: &'a Rooms,
    pub media: &'a Media,
}

#[async_trait]
impl LeaveRooms for Leaving<'_> {
    async fn leave_all(&self, user_id: &str, erase: bool) -> Result<(), AccountError> {
        let user = <&UserId>::try_from(user_id)
            .map_err(|_| AccountError::Internal("an account's user id can't be read"))?;
        for membership in [Membership::Join, Membership::Invite, Membership::Knock] {
            let rooms = self
                .rooms
                .rooms_with(user, membership)
                .await
                .map_err(failed)?;
            for room_id in rooms {
                match self.rooms.leave(user, &room_id, None).await {
                    // A room that can't be left holds up no other, whether by its rules or by its policy server, which may be
                    // silent for good.
                    Ok(_)
                    | Err(
                        RoomError::Rejected(_)
                        | RoomError::Forbidden(_)
                        | RoomError::NotRecommended(_)
                        | RoomError::PolicyServerSilent
                        | RoomError::LimitExceeded { .. },
                    ) => {}
                    Err(error) => return Err(failed(error)),
                }
            }
        }
        if erase {
            let reader = self.rooms.tenant().reader();
            for (_, member) in self
                .rooms
                .memberships(&reader, user)
                .await
                .map_err(failed)?
            {
                let room_id = <&RoomId>::try_from(member.value.room_id.as_str())
                    .map_err(|_| AccountError::Internal("a room's id can't be read"))?;
                match self.rooms.erase(user, room_id).await {
                    Ok(()) | Err(RoomError::UnknownRoom) => {}
                    Err(error) => return Err(failed(error)),
                }
            }
            while !(self.media.remove_of(user, FILES).await)
                .map_err(not_removed)?
                .is_empty()
            {}
        }
        Ok(())
    }
}

fn not_removed(error: MediaError) -> AccountError {
    match error {
        MediaError::Read(error) => error.into(),
        MediaError::Commit(error) => error.into(),
        other => {
            tracing::error!(cause = %other, "a file could not be removed");
            AccountError::Internal("a file could not be removed")
        }
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
