//! A user's rooms as lists show them, in order: kept for whoever slides, so that a window is taken off the top. Which of them have to be
//! looked at again is noted as the logs are followed.

use std::{cmp::Reverse, collections::BTreeSet, sync::Arc};

use comity_protocol::{auth::Membership, id::UserId};
use comity_rooms::{Outline, Place};
use comity_storage::{Pos, RoomKey};

use crate::index;

/// One of a user's rooms.
#[derive(Debug, Clone)]
pub(crate) struct Listed {
    pub room: RoomKey,
    pub place: index::Membership,
    /// The room's last change.
    pub changed: Pos,
    /// Up to where it was looked at.
    pub upto: Pos,
    /// What it is; `None` if it isn't here.
    pub outline: Option<Arc<Outline>>,
    /// How the user stands to it, if they aren't in it.
    pub stands: Option<Arc<Place>>,
    /// When something happened last that counts for the user.
    pub active: u64,
}

impl Listed {
    pub fn new(
        room: RoomKey,
        (place, changed): (index::Membership, Pos),
        upto: Pos,
        outline: Option<Arc<Outline>>,
        stands: Option<Arc<Place>>,
    ) -> Self {
        let active = match (&stands, &outline) {
            (Some(place), _) => place.since,
            (None, Some(outline)) => outline.active,
            (None, None) => 0,
        };
        Self {
            room,
            place,
            changed,
            upto,
            outline,
            stands,
            active,
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

    /// Its type, which never changes, and whether it is encrypted, or was when the user's place in it was set, if they aren't in it.
    pub fn kind(&self) -> (Option<&str>, bool) {
        let told = self.stands.as_ref().and_then(|place| place.told.as_ref());
        if let Some((room_type, encrypted)) = told {
            return (room_type.as_deref(), *encrypted);
        }
        let Some(outline) = &self.outline else {
            return (None, false);
        };
        let encrypted = match &self.stands {
            Some(place) => place.encrypted,
            None => outline.encrypted,
        };
        (outline.room_type.as_deref(), encrypted)
    }

    /// Whether it was looked at where the index has it now.
    fn is_current(&self, place: &index::Membership, changed: Pos) -> bool {
        self.place == *place && self.changed == changed && self.upto >= changed.max(place.pos)
    }
}

/// See the module.
#[derive(Default)]
pub(crate) struct RecentRooms {
    /// The last active first.
    listed: Arc<Vec<Listed>>,
    /// Those that may not be what they are there, or aren't there.
    moved: BTreeSet<RoomKey>,
}

impl RecentRooms {
    /// Of a user with these rooms, none of which was looked at.
    pub fn of(rooms: impl Iterator<Item = RoomKey>) -> Self {
        Self {
            listed: Arc::default(),
            moved: rooms.collect(),
        }
    }

    pub fn listed(&self) -> Arc<Vec<Listed>> {
        Arc::clone(&self.listed)
    }

    /// Those to be looked at again.
    pub fn moved(&self) -> impl Iterator<Item = &RoomKey> {
        self.moved.iter()
    }

    /// Something happened to a room.
    pub fn note(&mut self, room: RoomKey) {
        self.moved.insert(room);
    }

    /// Puts rooms in their places that were looked at. Those that changed meanwhile, as `now` has them, are looked at again.
    pub fn put<'a>(
        &mut self,
        looked: Vec<Listed>,
        now: impl Fn(RoomKey) -> Option<(&'a index::Membership, Pos)>,
    ) {
        for one in &looked {
            if now(one.room).is_some_and(|(place, changed)| one.is_current(place, changed)) {
                self.moved.remove(&one.room);
            } else {
                self.moved.insert(one.room);
            }
        }
        let rooms: BTreeSet<RoomKey> = looked.iter().map(|one| one.room).collect();
        let listed = Arc::make_mut(&mut self.listed);
        listed.retain(|one| !rooms.contains(&one.room));
        listed.extend(looked);
        // Equal stamps can't be of one store's life; whatever order they have is always the same.
        listed.sort_by_key(|one| (Reverse(one.active), one.room));
    }
}

#[cfg(test)]
mod tests {
    use comity_protocol::auth;

    use super::*;

    fn listed(room: RoomKey, changed: Pos, active: u64) -> Listed {
        let outline = Outline {
            active,
            ..Outline::default()
        };
        Listed::new(
            room,
            (place(), changed),
            changed,
            Some(outline.into()),
            None,
        )
    }

    fn place() -> index::Membership {
        index::Membership {
            room_id: "!a".into(),
            membership: auth::Membership::Join,
            pos: 1,
            forgotten: false,
            data: 0,
        }
    }

    /// Whatever order rooms were looked at in, they stand in that of their stamps, each once; and whoever read them keeps what they read.
    #[test]
    fn rooms_stand_in_the_order_of_their_stamps() {
        let rooms: Vec<RoomKey> = (0..10).map(|n| RoomKey::of(&n.to_string())).collect();
        let (joined, mut changed) = (place(), [5; 10]);
        let mut recent = RecentRooms::of(rooms.iter().copied());
        let mut active: Vec<u64> = (0..10).map(|n| n * 7 % 10).collect();
        let looked = |at: usize, changed: Pos, active: u64| listed(rooms[at], changed, active);
        let all = (0..10).map(|at| looked(at, 5, active[at]));
        recent.put(all.collect(), |_| Some((&joined, 5)));
        let before = recent.listed();
        for step in 0..50_usize {
            let at = step * 3 % 10;
            (changed[at], active[at]) = (6 + step as u64, 10 + step as u64);
            recent.note(rooms[at]);
            assert_eq!(recent.moved().collect::<Vec<_>>(), [&rooms[at]]);
            let now = changed[at];
            recent.put(vec![looked(at, now, active[at])], |_| Some((&joined, now)));
            let order: Vec<u64> = recent.listed().iter().map(|one| one.active).collect();
            let mut sorted = active.clone();
            sorted.sort_unstable_by_key(|active| Reverse(*active));
            assert_eq!(order, sorted);
        }
        assert!(before.iter().all(|one| one.active < 10));
        assert_eq!(recent.moved().count(), 0);
    }

    /// What was looked at while something else happened to it is looked at again.
    #[test]
    fn what_changed_meanwhile_is_looked_at_again() {
        let (room, joined) = (RoomKey::of("!a"), place());
        let left = index::Membership {
            membership: auth::Membership::Leave,
            pos: 8,
            ..joined.clone()
        };
        let early = Listed {
            upto: 4,
            ..listed(room, 5, 1)
        };
        for (looked, place, changed, again) in [
            (listed(room, 5, 1), &joined, 5, false),
            (listed(room, 5, 1), &joined, 6, true),
            (listed(room, 5, 1), &left, 5, true),
            (early, &joined, 5, true),
        ] {
            let mut recent = RecentRooms::of([room].into_iter());
            recent.put(vec![looked], |_| Some((place, changed)));
            assert_eq!(recent.moved().count(), usize::from(again));
        }
    }
}
