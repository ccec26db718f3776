//! What keys ask of rooms: who shares one. Neither knows the other; here one is put to the other.

use std::collections::BTreeMap;

use async_trait::async_trait;
use comity_keys::Neighbours;
use comity_protocol::{auth::Membership, id::UserId};
use comity_rooms::{RoomError, Rooms};
use comity_storage::{Heads, Home, Pos, ReadError, Reader, RoomKey};
use futures_util::future::try_join_all;

/// Users looked at side by side.
const CHUNK: usize = 32;

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
        viewer: &UserId,
        users: &[(&UserId, Heads)],
    ) -> Result<Vec<bool>, ReadError> {
        let mut near = Vec::with_capacity(users.len());
        if users.is_empty() {
            return Ok(near);
        }
        let reader = self.0.tenant().reader();
        let lanes = self.0.tenant().lanes();
        let mine = self.joined(&reader, viewer).await?;
        for chunk in users.chunks(CHUNK) {
            let theirs = chunk.iter().map(|(user, _)| self.joined(&reader, user));
            for ((_, since), theirs) in chunk.iter().zip(try_join_all(theirs).await?) {
                near.push(theirs.iter().any(|(room, pos)| {
                    let since = since.get(lanes.of(Home::Room(*room).slot()));
                    *pos <= since && mine.get(room).is_some_and(|mine| *mine <= since)
                }));
            }
        }
        Ok(near)
    }
}

impl OfRooms {
    /// The rooms that a user is in, with the position of their membership.
    async fn joined(
        &self,
        reader: &Reader,
        user: &UserId,
    ) -> Result<BTreeMap<RoomKey, Pos>, ReadError> {
        let rows = self.0.memberships(reader, user).await.map_err(read)?;
        let rows = rows.into_iter();
        let joined = rows.filter(|(_, row)| row.value.membership() == Membership::Join);
        Ok(joined.map(|(room, row)| (room, row.pos)).collect())
    }
}

fn read(error: RoomError) -> ReadError {
    match error {
        RoomError::Read(error) => error,
        _ => ReadError::Damaged(comity_storage::Damaged("a membership can't be read")),
    }
}
