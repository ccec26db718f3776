//! Holes in the room's order: events that follow others which aren't here.
//!
//! A hole stands before the live event that follows what is missing. What is fetched for it gets
//! places there: `(seq, -1)`, `(seq, -2)` … back from that event.

use std::collections::BTreeSet;

use comity_storage::Expect;

use super::{Case, Change, Heard, Known};
use crate::{
    error::RoomError,
    live::totals_after,
    num::EventNum,
    tables::{self, Entry, FollowedBy, Gap, RoomNum, RoomPlace, RoomSeq, Totals},
};

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
        let is_missing = |heard: &Heard| heard.status.value.root_before.is_empty();
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
