//! Whose keys a client has to look at anew, and whose it need follow no longer.
//!
//! A change of a user's list is written once, whoever is to hear of it; who comes and who goes is told by the difference of two
//! states. Both are put together here, by the reader, with the rooms it shares.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#e2e-extensions-to-sync>

use std::collections::BTreeSet;

use comity_protocol::{
    auth::Membership,
    id::{OwnedServerName, RoomId, UserId},
};
use comity_rooms::{Moved, RoomError, state::AnyRoot};
use comity_storage::{Heads, Home, Reader, RoomKey};
use futures_util::future::try_join_all;
use tokio::sync::OnceCell;

use crate::{Sync, SyncError, answer::DeviceLists, index::Membership as Place, token::SyncToken};

/// Rooms, or users, looked at side by side.
const CHUNK: usize = 32;

/// The rooms that a user is in.
struct Mine<'a> {
    user: &'a UserId,
    rooms: BTreeSet<RoomKey>,
    /// Rooms whose members aren't known yet, with the servers said to be there, once it was asked.
    partial: OnceCell<Vec<(RoomKey, Vec<OwnedServerName>)>>,
}

impl Sync {
    /// What of the lists that a user follows changed between two tokens.
    ///
    /// <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3keyschanges>
    ///
    /// # Errors
    /// The store can't be read.
    pub async fn key_changes(
        &self,
        user: &UserId,
        from: &SyncToken,
        to: &SyncToken,
    ) -> Result<DeviceLists, SyncError> {
        let (from, to) = (self.kept(from), self.clamp(to));
        drop(self.0.index.user(&self.0.rooms, user).await?);
        self.0.index.reached(&to.heads).await;
        let reader = self.0.rooms.tenant().reader().at(to.heads);
        self.device_lists(user, &from.heads, &reader).await
    }

    /// What of the lists that a user follows changed after `from`, as far as `to` may see.
    pub(crate) async fn device_lists(
        &self,
        user: &UserId,
        from: &Heads,
        to: &Reader,
    ) -> Result<DeviceLists, SyncError> {
        let rooms = self.0.index.rooms_of(user, |room, place, changed| {
            self.may_have_changed(room, place, changed, Some(from))
        });
        let mut changed = BTreeSet::new();
        let mut left = BTreeSet::new();
        for chunk in rooms.chunks(CHUNK) {
            let moved = chunk
                .iter()
                .map(|(room, place)| self.moved(user, *room, place, from, to));
            for moved in try_join_all(moved).await? {
                changed.extend(moved.came);
                left.extend(moved.went);
            }
        }
        let of_lists = match self.0.index.lists_after(from, to.heads()) {
            Some(changed) => changed,
            None => self.0.keys.changed_since(to, from).await?,
        };
        let mut others = BTreeSet::new();
        for of_list in of_lists {
            match of_list.only {
                Some(only) if only == user.as_str() => _ = changed.insert(of_list.user),
                Some(_) => {}
                None => _ = others.insert(of_list.user),
            }
        }
        left.remove(user.as_str());
        if others.is_empty() && left.is_empty() {
            return Ok(DeviceLists::of(changed, left));
        }
        let mine = Mine {
            user,
            rooms: self.joined_rooms(user),
            partial: OnceCell::new(),
        };
        let asked: Vec<String> = others
            .union(&left)
            .filter(|other| left.contains(*other) || !changed.contains(*other))
            .cloned()
            .collect();
        for chunk in asked.chunks(CHUNK) {
            let shares = chunk.iter().map(|other| self.shares(&mine, other, to));
            for (other, shares) in chunk.iter().zip(try_join_all(shares).await?) {
                if !shares {
                    changed.remove(other);
                } else if others.contains(other) {
                    changed.insert(other.clone());
                }
                if shares {
                    left.remove(other);
                }
            }
        }
        Ok(DeviceLists::of(changed, left))
    }

    /// Who came into a room and who went, in the eyes of a user: when they come all come, when they go all go.
    async fn moved(
        &self,
        user: &UserId,
        room: RoomKey,
        place: &Place,
        from: &Heads,
        to: &Reader,
    ) -> Result<Moved, SyncError> {
        let from = to.at(from.clone());
        let (then, now) = futures_util::try_join!(
            self.joined_root(user, room, place, &from),
            self.joined_root(user, room, place, to),
        )?;
        let Some(room_id) = RoomId::parse(&*place.room_id).ok().filter(|_| then != now) else {
            return Ok(Moved::default());
        };
        let view = match self.0.rooms.view_at(to, &room_id).await {
            Err(RoomError::UnknownRoom) => return Ok(Moved::default()),
            view => view?,
        };
        let now = now.unwrap_or(AnyRoot::EMPTY);
        let moved = view.moved(then.unwrap_or(AnyRoot::EMPTY), now).await?;
        let came_back = then.is_some() && moved.came.iter().any(|came| came == user.as_str());
        if came_back {
            // What the others did meanwhile went by.
            return Ok(Moved {
                went: moved.went,
                ..view.moved(AnyRoot::EMPTY, now).await?
            });
        }
        Ok(moved)
    }

    /// The state of a room that a user is in, at a reader's bound.
    async fn joined_root(
        &self,
        user: &UserId,
        room: RoomKey,
        place: &Place,
        reader: &Reader,
    ) -> Result<Option<AnyRoot>, SyncError> {
        let bound = reader.bound(Home::Room(room));
        if place.pos <= bound {
            if !place.is_joined() {
                return Ok(None);
            }
            return Ok(self.0.rooms.root_at(reader, room).await?);
        }
        let Ok(room_id) = RoomId::parse(&*place.room_id) else {
            return Ok(None);
        };
        let view = match self.0.rooms.view_at(reader, &room_id).await {
            Err(RoomError::UnknownRoom) => return Ok(None),
            view => view?,
        };
        let is_joined = view.membership(user).await? == Membership::Join;
        Ok(is_joined.then(|| view.root()))
    }

    fn joined_rooms(&self, user: &UserId) -> BTreeSet<RoomKey> {
        let joined = |_: RoomKey, place: &Place, _: u64| place.is_joined();
        let rooms = self.0.index.rooms_of(user, joined).into_iter();
        rooms.map(|(room, _)| room).collect()
    }

    /// Whether another user is in a room with the user, or is the same.
    async fn shares(
        &self,
        mine: &Mine<'_>,
        other: &str,
        reader: &Reader,
    ) -> Result<bool, SyncError> {
        if mine.user == other {
            return Ok(true);
        }
        if let Some(shares) = self.0.index.shares(mine.user, other) {
            return Ok(shares);
        }
        let Ok(other) = <&UserId>::try_from(other) else {
            return Ok(false);
        };
        let theirs = self.0.rooms.memberships(reader, other).await?;
        let shares = theirs.iter().any(|(room, row)| {
            row.value.membership() == Membership::Join && mine.rooms.contains(room)
        });
        if shares || other.server_name() == self.0.rooms.server_name() {
            return Ok(shares);
        }
        // Where members aren't known yet, whoever is of a server said to be there may be one, unless it is known of them.
        let partial = || self.0.rooms.partial_rooms(reader);
        let partial = mine.partial.get_or_try_init(partial).await?;
        Ok(partial.iter().any(|(room, servers)| {
            let server = other.server_name();
            let is_known = theirs.iter().any(|(known, _)| known == room);
            let may_be = !is_known && mine.rooms.contains(room);
            may_be && servers.iter().any(|named| *named == server)
        }))
    }
}
