//! Who may find whom: users who share a room, and those in a room that is open to everybody.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#user-directory>

use std::collections::BTreeSet;

use comity_protocol::{
    auth::Membership,
    id::{OwnedUserId, UserId},
};
use comity_storage::RoomKey;

use crate::{
    error::RoomError,
    rooms::Rooms,
    tables::{InRoom, Summaries},
};

impl Rooms {
    /// The first `most` of `others` whom `user` may find, in the order given; never the user.
    ///
    /// # Errors
    /// The store can't be read.
    pub async fn findable(
        &self,
        user: &UserId,
        others: &[OwnedUserId],
        most: usize,
    ) -> Result<Vec<OwnedUserId>, RoomError> {
        let mine: BTreeSet<RoomKey> = self.joined_keys(user).await?.into_iter().collect();
        let mut findable = Vec::new();
        for other in others.iter().filter(|other| **other != user) {
            if findable.len() >= most {
                break;
            }
            let theirs = self.joined_keys(other).await?;
            if theirs.iter().any(|room| mine.contains(room)) || self.any_open(&theirs).await? {
                findable.push(other.clone());
            }
        }
        Ok(findable)
    }

    async fn joined_keys(&self, user: &UserId) -> Result<Vec<RoomKey>, RoomError> {
        let rows = self.memberships(&self.tenant().reader(), user).await?;
        let joined = rows
            .into_iter()
            .filter(|(_, row)| row.value.membership() == Membership::Join);
        Ok(joined.map(|(room, _)| room).collect())
    }

    /// Whether everybody may join or read one of these rooms.
    async fn any_open(&self, rooms: &[RoomKey]) -> Result<bool, RoomError> {
        let keys: Vec<InRoom> = rooms.iter().map(|room| InRoom { room: *room }).collect();
        let rows = self.tenant().reader().get_many::<Summaries>(&keys).await?;
        let mut summaries = rows.into_iter().flatten().map(|row| row.value);
        Ok(summaries.any(|room| room.join_rule() == "public" || room.world_readable()))
    }
}
