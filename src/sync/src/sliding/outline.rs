//! What lists need of rooms, kept in memory: for each room of the user when it was active and what kind of room it is. Rows are read
//! only of rooms that changed since.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use comity_protocol::{auth::Membership, id::UserId};
use comity_rooms::{Outline, Place};
use comity_storage::{Home, Pos, Reader, RoomKey};
use parking_lot::Mutex;

use crate::{
    Sync, SyncError, index,
    tables::{Hash, hash},
};

/// Rooms kept, and places of users; beyond, all are forgotten and read again.
const KEPT: usize = 200_000;

/// By room, with the position of its lane up to which it was read.
type Rooms = HashMap<RoomKey, (Pos, Option<Arc<Outline>>)>;
/// By user (hashed, so that nothing is copied to look) and room, with the position that set the membership.
type Places = HashMap<(Hash, RoomKey), (Pos, Arc<Place>)>;

/// See the module.
#[derive(Default)]
pub(crate) struct Outlines {
    rooms: Mutex<Rooms>,
    places: Mutex<Places>,
}

/// One of a user's rooms.
#[derive(Debug, Clone)]
pub(crate) struct Listed {
    pub room: RoomKey,
    pub place: index::Membership,
    /// The room's last change.
    pub changed: Pos,
    /// What it is; `None` if it isn't here.
    pub outline: Option<Arc<Outline>>,
    /// How the user stands to it, if they aren't in it.
    pub stands: Option<Arc<Place>>,
}

impl Listed {
    /// When something happened last that counts for the user.
    pub fn active(&self) -> u64 {
        match (&self.stands, &self.outline) {
            (Some(place), _) => place.since,
            (None, Some(outline)) => outline.active,
            (None, None) => 0,
        }
    }

    pub fn is(&self, membership: Membership) -> bool {
        self.place.membership == membership
    }

    pub fn is_gone(&self) -> bool {
        self.is(Membership::Leave) || self.is(Membership::Ban)
    }

    /// Whether someone else removed the user, who was in it once.
    pub fn was_removed(&self, user: &UserId) -> bool {
        let place = self.stands.as_ref().filter(|place| place.was_in);
        let sender = place.and_then(|place| place.sender.as_ref());
        self.is_gone() && sender.is_some_and(|sender| sender != user.as_str())
    }

    /// Its type, and whether it is encrypted.
    pub fn kind(&self) -> (Option<&str>, bool) {
        let told = self.stands.as_ref().and_then(|place| place.told.as_ref());
        match (told, &self.outline) {
            (Some((room_type, encrypted)), _) => (room_type.as_deref(), *encrypted),
            (None, Some(outline)) => (outline.room_type.as_deref(), outline.encrypted),
            (None, None) => (None, false),
        }
    }
}

impl Sync {
    /// The user's rooms, the last active first.
    pub(super) async fn listed(
        &self,
        user: &UserId,
        reader: &Reader,
    ) -> Result<Vec<Listed>, SyncError> {
        let rooms = self.0.index.all_of(user);
        let outlines = &self.0.outlines;
        let mut listed: Vec<Listed> = Vec::with_capacity(rooms.len());
        let (mut unread, mut unplaced) = (BTreeSet::new(), BTreeSet::new());
        let of_user = hash(user.as_str());
        {
            let (known, places) = (outlines.rooms.lock(), outlines.places.lock());
            for (room, place, changed) in rooms {
                let outline = known
                    .get(&room)
                    .filter(|(at, _)| *at >= changed.max(place.pos));
                if outline.is_none() {
                    unread.insert(room);
                }
                let joined = place.is_joined();
                let stands = places
                    .get(&(of_user, room))
                    .filter(|(pos, _)| !joined && *pos == place.pos);
                if stands.is_none() && !joined {
                    unplaced.insert(room);
                }
                let outline = outline.and_then(|(_, outline)| outline.clone());
                let stands = stands.map(|(_, place)| place.clone());
                listed.push(Listed {
                    room,
                    place,
                    changed,
                    outline,
                    stands,
                });
            }
        }
        if !unread.is_empty() || !unplaced.is_empty() {
            let unread: Vec<RoomKey> = unread.into_iter().collect();
            let unplaced: Vec<RoomKey> = unplaced.into_iter().collect();
            let rooms = &self.0.rooms;
            let (read, placed) = futures_util::try_join!(
                rooms.outlines(reader, &unread),
                rooms.places(reader, user, &unplaced),
            )?;
            let read: HashMap<RoomKey, Option<Arc<Outline>>> = unread
                .into_iter()
                .zip(read.into_iter().map(|outline| outline.map(Arc::new)))
                .collect();
            let placed: HashMap<RoomKey, Arc<Place>> = unplaced
                .into_iter()
                .zip(placed.into_iter().map(Arc::new))
                .collect();
            let (mut known, mut places) = (outlines.rooms.lock(), outlines.places.lock());
            if known.len() > KEPT {
                known.clear();
            }
            if places.len() > KEPT {
                places.clear();
            }
            for one in &mut listed {
                if let Some(outline) = read.get(&one.room) {
                    let at = reader.bound(Home::Room(one.room));
                    known.insert(one.room, (at, outline.clone()));
                    one.outline = outline.clone();
                }
                if let Some(place) = placed.get(&one.room) {
                    let key = (of_user, one.room);
                    places.insert(key, (one.place.pos, place.clone()));
                    one.stands = Some(place.clone());
                }
            }
        }
        // Equal stamps can't be of one store's life; whatever order they have is always the same.
        listed.sort_by_key(|one| (std::cmp::Reverse(one.active()), one.room));
        Ok(listed)
    }
}
