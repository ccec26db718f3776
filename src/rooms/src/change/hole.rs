//! Holes in the room's order: events that follow others which aren't here.
//!
//! A hole stands before the live event that follows what is missing. What is fetched for it gets
//! places there: `(seq, -1)`, `(seq, -2)` … back from that event.

use std::collections::BTreeSet;

use comity_storage::{Expect, Home, Range};

use super::{Case, Change, Heard, Known};
use crate::{
    error::RoomError,
    live::totals_after,
    num::EventNum,
    tables::{self, Entry, FollowedBy, Gap, RoomNum, RoomPlace, RoomSeq, Totals},
};

/// Holes looked at, back from the latest, for the one before our join.
const HOLES: usize = 16;

impl Change {
    /// Remembers that an event, which is about to take the next place, follows others that aren't
    /// here: they are followed when they come, and before it is a hole. `prev` is what the room has
    /// heard of those it names; `by` says whether it is the join by which we come in.
    pub(crate) async fn follow(
        &mut self,
        known: &Known,
        prev: &[Option<Heard>],
        by: FollowedBy,
    ) -> Result<(), RoomError> {
        let named = known.prev.iter().zip(known.event.prev_events());
        let (missing, ids): (Vec<EventNum>, Vec<String>) = named
            .zip(prev)
            .filter(|(_, heard)| heard.as_ref().is_none_or(is_missing))
            .map(|((num, id), _)| (*num, id.to_string()))
            .unzip();
        self.mark_followed(&missing, by).await?;
        let live = self.live()?;
        let key = RoomSeq {
            room: live.room,
            seq: live.head.seq + 1,
        };
        if !missing.is_empty() {
            let gap = Gap {
                missing: ids,
                lowest: 0,
                by,
            };
            self.batch.put::<tables::Gaps>(&key, &gap);
        }
        Ok(())
    }

    /// Events that aren't here are followed by one that is. Of those that the join or what came before it follows too that stays
    /// so: once an event is of our past, an old fork that names it as well doesn't make it news.
    pub(crate) async fn mark_followed(
        &mut self,
        missing: &[EventNum],
        by: FollowedBy,
    ) -> Result<(), RoomError> {
        let room = self.live()?.room;
        for num in missing {
            let before = self.followed(*num).await?;
            let by = FollowedBy {
                entry: by.entry || before.is_some_and(|before| before.entry),
            };
            self.batch
                .put::<tables::Followed>(&RoomNum { room, num: num.0 }, &by);
        }
        Ok(())
    }

    /// By what an event is known to be followed that wasn't here then.
    pub(crate) async fn followed(&self, num: EventNum) -> Result<Option<FollowedBy>, RoomError> {
        let live = self.live()?;
        let at = RoomNum {
            room: live.room,
            num: num.0,
        };
        let row = live.reader().get::<tables::Followed>(&at).await?;
        Ok(row.map(|row| row.value))
    }

    /// Whether an event that follows these comes before the join by which we came in, as far as we see: its line goes back to an earlier
    /// stay past what we don't know yet, and meets nothing of this one. Who makes it may not have heard of us; what brings the two
    /// together follows both, so that it needn't be an end of the graph. Taken for one it would be a fork, with a state of long ago
    /// that could undo the join.
    pub(crate) async fn is_earlier(&self, prev: &[EventNum]) -> Result<bool, RoomError> {
        let live = self.live()?;
        let is_end = |num: &EventNum| live.head.extremities.contains(&num.0);
        if prev.is_empty() || prev.iter().any(is_end) {
            return Ok(false);
        }
        let Some(entered) = self.entered().await? else {
            return Ok(false);
        };
        let (room, reader) = (live.room, live.reader());
        for num in prev {
            let at = RoomNum { room, num: num.0 };
            let status = reader.get::<tables::Statuses>(&at).await?;
            let place = status.and_then(|row| row.value.place);
            let is_earlier = match place {
                Some(place) if place < (entered, 0) => true,
                Some(_) => self.followed(*num).await?.is_some_and(|by| by.entry),
                None => self.earlier.contains(num),
            };
            if !is_earlier {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The event of [`Self::is_earlier`], which is part of the room.
    pub(crate) async fn put_earlier(&mut self, case: &mut Case) -> Result<(), RoomError> {
        let num = case.known.num;
        self.mark_followed(&[num], FollowedBy { entry: true })
            .await?;
        self.earlier.insert(num);
        (case.followed, case.is_past) = (true, true);
        Ok(())
    }

    /// The place of the join by which we came in, while it isn't known what it follows.
    async fn entered(&self) -> Result<Option<i64>, RoomError> {
        let live = self.live()?;
        let range = Range::of(Home::Room(live.room), |key| {
            key.room(live.room);
        });
        let range = range.reverse().limit(HOLES);
        let rows = live.reader().scan::<tables::Gaps>(range).await?;
        let entry = rows.into_iter().find(|(_, row)| row.value.by.entry);
        let Some((key, hole)) = entry else {
            return Ok(None);
        };
        let missing = self.heard(&hole.value.missing).await?;
        let is_open =
            missing.iter().any(Option::is_none) || missing.iter().flatten().any(is_missing);
        Ok(is_open.then_some(key.seq))
    }

    /// Takes up an event of the past among what others are judged by.
    pub(crate) async fn take_up(&mut self, known: &Known) -> Result<(), RoomError> {
        self.remember(known);
        self.index(known).await
    }

    /// Gives an event of the past its place. The end of the graph, the state and what is counted stay
    /// as they are. `among` are the events of the same run.
    pub(crate) async fn accept_past(
        &mut self,
        case: Case,
        place: (i64, i64),
        among: &BTreeSet<EventNum>,
    ) -> Result<(), RoomError> {
        let (num, event) = (case.known.num, case.known.event.clone());
        let (seq, sub) = place;
        let relation = self.relation_of(&event).await?;
        let thread = relation.as_ref().and_then(|relation| relation.thread);
        let live = self.live()?;
        let room = live.room;
        let before = RoomPlace {
            room,
            seq: seq - 1,
            sub: 0,
        };
        let before = live.reader().get::<tables::Timeline>(&before).await?;
        let totals = before.map_or_else(Totals::default, |row| totals_after(&row.value.totals));
        self.write(&case, Some(place), None).await?;
        if case.redacted_by.is_some() {
            // It may have been part of the current state before its place was known.
            self.forget_state(num, &event).await?;
        }
        let entry = Entry {
            num: num.0,
            thread,
            totals,
        };
        self.batch
            .put::<tables::Timeline>(&RoomPlace { room, seq, sub }, &entry);
        if let Some(relation) = relation {
            self.put_relation(num, &event, relation, &[], place).await?;
        }
        if let Some(target) = event.redacts() {
            let target = self.name(target.as_str()).await?;
            if !among.contains(&target) {
                self.redact(&case.known).await?;
            }
        }
        Ok(())
    }

    /// The hole before a live event.
    pub(crate) async fn hole(&self, seq: i64) -> Result<Option<Gap>, RoomError> {
        let live = self.live()?;
        let key = RoomSeq {
            room: live.room,
            seq,
        };
        let row = live.reader().get::<tables::Gaps>(&key).await?;
        Ok(row.map(|row| row.value))
    }

    /// The hole before a live event is another now, or filled.
    pub(crate) async fn set_hole(&mut self, seq: i64, gap: Option<Gap>) -> Result<(), RoomError> {
        let live = self.live()?;
        let key = RoomSeq {
            room: live.room,
            seq,
        };
        let row = live.reader().get::<tables::Gaps>(&key).await?;
        let expected = row.map_or(Expect::Absent, |row| Expect::At(row.pos));
        self.batch.expect::<tables::Gaps>(&key, expected);
        match gap {
            Some(gap) => self.batch.put::<tables::Gaps>(&key, &gap),
            None => self.batch.delete::<tables::Gaps>(&key),
        };
        Ok(())
    }
}

/// Whether nothing is known of an event but its name, or that it is part of a state.
fn is_missing(heard: &Heard) -> bool {
    heard.status.value.root_before.is_empty()
}
