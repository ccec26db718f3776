//! What lists need of rooms, kept in memory for all users: when a room was active and what kind of room it is. Rows are read only of rooms
//! that changed since.

use std::{collections::HashMap, sync::Arc};

use comity_protocol::id::UserId;
use comity_rooms::{Outline, Place};
use comity_storage::{Home, Pos, Reader, RoomKey};
use parking_lot::Mutex;

use crate::{Sync, SyncError, index::Moved, recent_rooms::Listed};

/// Rooms kept; beyond, all are forgotten and read again.
const KEPT: usize = 200_000;

/// By room, with the position of its lane up to which it was read.
type Known = HashMap<RoomKey, (Pos, Option<Arc<Outline>>)>;

/// See the module.
#[derive(Default)]
pub(crate) struct Outlines(Mutex<Known>);

impl Outlines {
    /// Those of the rooms that didn't change since they were read.
    fn of(&self, moved: &[Moved]) -> Known {
        let known = self.0.lock();
        let current = moved.iter().filter_map(|(room, place, changed)| {
            let one = known.get(room)?;
            (one.0 >= place.pos.max(*changed)).then(|| (*room, one.clone()))
        });
        current.collect()
    }

    fn keep(&self, read: &Known) {
        let mut known = self.0.lock();
        if known.len() > KEPT {
            known.clear();
        }
        known.extend(read.iter().map(|(room, one)| (*room, one.clone())));
    }
}

impl Sync {
    /// The user's rooms, the last active first. Those are looked at that something happened to since they were.
    pub(super) async fn listed(
        &self,
        user: &UserId,
        reader: &Reader,
    ) -> Result<Arc<Vec<Listed>>, SyncError> {
        let (listed, moved) = self.0.index.recent(user);
        if moved.is_empty() {
            return Ok(listed);
        }
        // Apart: mostly nothing has to be read.
        let looked = Box::pin(self.look_at(user, reader, &listed, moved)).await?;
        drop(listed);
        Ok(self.0.index.relist(user, looked))
    }

    async fn look_at(
        &self,
        user: &UserId,
        reader: &Reader,
        before: &[Listed],
        moved: Vec<Moved>,
    ) -> Result<Vec<Listed>, SyncError> {
        let mut outlines = self.0.outlines.of(&moved);
        let stood = |one: &Listed| Some((one.room, (one.place.pos, one.stands.clone()?)));
        let mut stands: HashMap<RoomKey, (Pos, Arc<Place>)> =
            before.iter().filter_map(stood).collect();
        let (mut unread, mut unplaced) = (Vec::new(), Vec::new());
        for (room, place, _) in &moved {
            if !outlines.contains_key(room) {
                unread.push(*room);
            }
            let stood = stands.get(room).is_some_and(|(pos, _)| *pos == place.pos);
            if !place.is_joined() && !stood {
                unplaced.push(*room);
            }
        }
        let (read, placed) = futures_util::try_join!(
            self.0.rooms.outlines(reader, &unread),
            self.0.rooms.places(reader, user, &unplaced),
        )?;
        let read = unread.into_iter().zip(read).map(|(room, outline)| {
            let upto = reader.bound(Home::Room(room));
            (room, (upto, outline.map(Arc::new)))
        });
        let read: Known = read.collect();
        self.0.outlines.keep(&read);
        outlines.extend(read);
        let placed = unplaced.into_iter().zip(placed);
        stands.extend(placed.map(|(room, place)| (room, (0, Arc::new(place)))));
        let looked = moved.into_iter().map(|(room, place, changed)| {
            let (upto, outline) = outlines.remove(&room).unwrap_or_default();
            let stands = stands.remove(&room).filter(|_| !place.is_joined());
            let stands = stands.map(|(_, stands)| stands);
            Listed::new(room, (place, changed), upto, outline, stands)
        });
        Ok(looked.collect())
    }
}
