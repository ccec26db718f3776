//! What keys ask of rooms: who shares one. Neither knows the other; here one is put to the other.

use async_trait::async_trait;
use comity_keys::Neighbours;
use comity_protocol::{auth::Membership, id::UserId};
use comity_rooms::{RoomError, Rooms};
use comity_storage::{Heads, Home, ReadError};

/// See the module.
pub(crate) struct OfRooms(pub Rooms);

#[async_trait]
impl Neighbours for OfRooms {
    async fn is_near(&self, user: &UserId) -> Result<bool, ReadError> {
        let joined = self.0.rooms_with(user, Membership::Join).await;
        if !joined.map_err(read)?.is_empty() {
            return Ok(true);
        }
        // Where members aren't known yet, whoever is of a server said to be there may be one.
        let reader = self.0.tenant().reader();
        let partial = self.0.partial_rooms(&reader).await.map_err(read)?;
        let server = user.server_name();
        Ok(partial
            .iter()
            .any(|(_, servers)| servers.iter().any(|named| *named == server)))
    }

    async fn are_since(
        &self,
        user: &UserId,
        other: &UserId,
        since: &Heads,
    ) -> Result<bool, ReadError> {
        let reader = self.0.tenant().reader();
        let lanes = self.0.tenant().lanes();
        let (of_user, of_other) = futures_util::try_join!(
            self.0.memberships(&reader, user),
            self.0.memberships(&reader, other),
        )
        .map_err(read)?;
        let stays = |room, row: &comity_storage::Row<comity_rooms::tables::Member>| {
            let lane = lanes.of(Home::Room(room).slot());
            row.value.membership() == Membership::Join && row.pos <= since.get(lane)
        };
        Ok(of_user
            .iter()
            .filter(|(room, row)| stays(*room, row))
            .any(|(room, _)| {
                of_other
                    .iter()
                    .any(|(of, row)| of == room && stays(*of, row))
            }))
    }
}

fn read(error: RoomError) -> ReadError {
    match error {
        RoomError::Read(error) => error,
        _ => ReadError::Damaged(comity_storage::Damaged("a membership can't be read")),
    }
}
