//! What is kept beside the state follows the *difference* of two states, whatever made them differ:
//! an event, or the resolution of forks.

use std::collections::{BTreeMap, BTreeSet};

use comity_protocol::{
    auth::{AuthFact, MemberContent, Membership},
    id::UserId,
};
use comity_storage::RoomKey;

use super::{Change, Known, auth::fact_of, fork::Difference};
use crate::{
    error::RoomError,
    log,
    num::{EventNum, StateKeyNum},
    tables::{self, InRoom, Member, Mode, RoomText, Summary, UserRoom},
};

/// A membership that is another now.
pub(crate) struct Moved {
    user: String,
    before: Membership,
    membership: Membership,
    /// The event that says so.
    pub num: Option<EventNum>,
}

impl Moved {
    pub fn user(&self) -> &str {
        &self.user
    }

    /// Whether the user was not in the room before, and is now.
    pub fn joined(&self) -> bool {
        self.membership == Membership::Join && self.before != Membership::Join
    }

    /// Whether the user is in the room, or was just before.
    fn was_in(&self) -> bool {
        [self.before, self.membership].contains(&Membership::Join)
    }

    pub fn into_entry(self) -> (String, String) {
        (self.user, self.membership.as_str().to_owned())
    }
}

impl Change {
    /// Brings membership rows and the room's summary up to the state, which differs so. Says whose
    /// membership changed.
    pub(crate) async fn derive(
        &mut self,
        difference: &Difference,
        seq: i64,
    ) -> Result<Vec<Moved>, RoomError> {
        if difference.is_empty() {
            return Ok(Vec::new());
        }
        let keys: Vec<StateKeyNum> = difference.keys().copied().collect();
        let mut names = BTreeMap::new();
        self.name_keys(&keys, &mut names).await?;
        let events = self.events_of(difference).await?;
        let live = self.live()?;
        let (room, mut summary) = (live.room, live.summary.clone());
        let (mut moved, mut came_back) = (Vec::new(), false);
        for (key, (new, old)) in difference {
            let Some((event_type, state_key)) = names.remove(key) else {
                continue;
            };
            let event = new.as_ref().and_then(|num| events.get(num));
            summary.set(&event_type, &state_key, event.map(|known| &known.event));
            if key.is_member() {
                let before = self.told(*key, *old, &events)?;
                let membership = event.map_or_else(Membership::default, membership_of);
                summary.member(before, membership, self.is_ours(&state_key));
                if !self.waits_beside(&state_key, membership, event).await? {
                    moved.push(Moved {
                        user: state_key,
                        before,
                        membership,
                        num: *new,
                    });
                }
            }
            let fact = match event {
                Some(known) => fact_of(known.num, &known.event)?,
                None => None,
            };
            let facts = &mut self.live_mut()?.facts;
            match fact {
                Some(fact) => facts.insert(*key, fact),
                None => facts.remove(key),
            };
        }
        self.put_members(room, &moved, seq).await?;
        if summary != self.live()?.summary {
            came_back = self.come_or_go(&summary)?;
            if let Some(by) = &summary.replacement
                && self.live()?.summary.replacement.as_ref() != Some(by)
            {
                let replaced = log::Replaced { by: by.clone() };
                let room_id = self.live()?.room_id.to_string();
                let record = log::record(log::kind::REPLACED, &room_id, &replaced)?;
                self.batch.log(record);
            }
            self.batch
                .put::<tables::Summaries>(&InRoom { room }, &summary);
            self.live_mut()?.summary = summary;
        }
        if came_back {
            Box::pin(self.end_out_of_band()).await?;
        } else if self.live()?.head.mode == Mode::Left {
            self.end_beside(&moved)?;
        }
        Ok(moved)
    }

    /// The room is left with our last user, and ours again with the first who is in it: whom a resolution of forks put out, another may
    /// bring back. Says whether it has.
    fn come_or_go(&mut self, summary: &Summary) -> Result<bool, RoomError> {
        let live = self.live_mut()?;
        // The others go on without us. Where nobody is left the room stays as it is, and ours.
        let others = summary.joined > 0 || live.head.mode == Mode::Partial;
        let comes_back = summary.ours > 0 && live.head.mode == Mode::Left;
        if comes_back {
            live.head.mode = Mode::Joined;
        } else if summary.ours == 0 && others && live.summary.ours > 0 {
            live.head.mode = Mode::Left;
            live.head.left_at = live.head.next_num;
            self.end_partial()?;
        }
        Ok(comes_back)
    }

    /// Whether a user of ours was invited to a room that we aren't in, or has knocked on it, after they left it by this event, which comes
    /// late: that stands. An event made since ends it. Which was made first the events say themselves: both are mostly of one server, and
    /// our clock may be another.
    async fn waits_beside(
        &self,
        user: &str,
        membership: Membership,
        event: Option<&Known>,
    ) -> Result<bool, RoomError> {
        let live = self.live()?;
        let is_out = matches!(membership, Membership::Leave | Membership::Ban);
        if live.head.mode != Mode::Left || !is_out || !self.is_ours(user) {
            return Ok(false);
        }
        let room = live.room;
        let name = user.to_owned();
        let beside = RoomText { room, name };
        let beside = live.reader().get::<tables::OutOfBands>(&beside).await?;
        let Some(beside) = beside.map(|row| row.value) else {
            return Ok(false);
        };
        let member = UserRoom {
            user: user.to_owned(),
            room,
        };
        let member = live.reader().get::<tables::Members>(&member).await?;
        // One that the state speaks of, too, is the state's.
        let is_beside = member
            .is_some_and(|row| row.value.num == 0 && row.value.membership == beside.membership);
        let waits = matches!(beside.membership.as_str(), "invite" | "knock");
        let said = event.map_or(i64::MIN, |known| known.event.origin_server_ts());
        Ok(is_beside && waits && said < beside.made)
    }

    /// In a room that we aren't in, what it says of a user of ours itself ends what was kept beside it: but an invite or a knock, of which
    /// that says more.
    fn end_beside(&mut self, moved: &[Moved]) -> Result<(), RoomError> {
        let room = self.live()?.room;
        let waits =
            |moved: &&Moved| matches!(moved.membership, Membership::Invite | Membership::Knock);
        for moved in moved.iter().filter(|moved| !waits(moved)) {
            if self.is_ours(&moved.user) {
                let name = moved.user.clone();
                self.batch
                    .delete::<tables::OutOfBands>(&RoomText { room, name });
            }
        }
        Ok(())
    }

    /// The events that are in the state now, and those memberships they took the place of that
    /// aren't remembered.
    async fn events_of(
        &self,
        difference: &Difference,
    ) -> Result<BTreeMap<EventNum, Known>, RoomError> {
        let facts = &self.live()?.facts;
        let is_told =
            |key: &StateKeyNum, num: EventNum| facts.get(key).is_some_and(|fact| fact.num == num);
        let old = difference
            .iter()
            .filter(|(key, _)| key.is_member())
            .filter_map(|(key, (_, old))| old.filter(|num| !is_told(key, *num)));
        let nums: Vec<EventNum> = difference
            .values()
            .filter_map(|(new, _)| *new)
            .chain(old)
            .collect();
        let known = self.known(&nums).await?;
        Ok(known.into_iter().map(|known| (known.num, known)).collect())
    }

    /// What an event said of a membership.
    fn told(
        &self,
        key: StateKeyNum,
        num: Option<EventNum>,
        events: &BTreeMap<EventNum, Known>,
    ) -> Result<Membership, RoomError> {
        let Some(num) = num else {
            return Ok(Membership::default());
        };
        if let Some(known) = events.get(&num) {
            return Ok(membership_of(known));
        }
        let fact = self.live()?.facts.get(&key);
        Ok(match fact.map(|fact| &fact.fact) {
            Some(AuthFact::Membership(_, membership)) => *membership,
            _ => Membership::default(),
        })
    }

    /// Whether a user, by their id, is of this server.
    pub(crate) fn is_ours(&self, user: &str) -> bool {
        <&UserId>::try_from(user).is_ok_and(|user| self.rooms.is_local(user))
    }

    async fn put_members(
        &mut self,
        room: RoomKey,
        moved: &[Moved],
        seq: i64,
    ) -> Result<(), RoomError> {
        let key = |moved: &Moved| UserRoom {
            user: moved.user.clone(),
            room,
        };
        // Of others it doesn't matter whether they were in; of most of ours what they do says so.
        let asked = |moved: &&Moved| self.is_ours(&moved.user) && !moved.was_in();
        let asked: Vec<UserRoom> = moved.iter().filter(asked).map(key).collect();
        let were_in: BTreeSet<String> = if asked.is_empty() {
            BTreeSet::new()
        } else {
            // What this batch wrote isn't in them: nobody enters and is put out again in one.
            let reader = self.live()?.reader();
            let rows = reader.get_many::<tables::Members>(&asked).await?;
            let rows = asked.into_iter().zip(rows);
            rows.filter(|(_, row)| row.as_ref().is_some_and(|row| row.value.was_in))
                .map(|(key, _)| key.user)
                .collect()
        };
        for moved in moved {
            let is_ours = self.is_ours(&moved.user);
            if moved.num.is_none() && !is_ours {
                self.batch.delete::<tables::Members>(&key(moved));
                continue;
            }
            // Of a user of ours whom a resolution of forks put out it says that they are: they were told that they were in.
            let member = Member {
                room_id: self.live()?.room_id.to_string(),
                membership: moved.membership.as_str().to_owned(),
                num: moved.num.map_or(0, |num| num.0),
                seq,
                forgotten: false,
                since: self.live()?.head.active,
                was_in: is_ours && (moved.was_in() || were_in.contains(&moved.user)),
            };
            self.batch.put::<tables::Members>(&key(moved), &member);
        }
        Ok(())
    }
}

fn membership_of(known: &Known) -> Membership {
    let content = MemberContent::read(known.event.content().get());
    content.membership.unwrap_or_default()
}
