//! The room's order, and its head: where the next event goes.

use std::collections::{BTreeMap, BTreeSet};

use comity_storage::ReadError;

use super::{Broken, Room, Walk, events::place};
use crate::{
    live::totals_after,
    num::EventNum,
    state::AnyRoot,
    tables::{
        EventNums, Gaps, Headers, Mode, Partials, RoomNum, RoomText, Tally, Timeline, Totals,
        Verdict,
    },
};

impl Walk<'_> {
    /// Live events have each sequence number once, fetched history stands before them without gaps, and each
    /// entry is where its event says that it is.
    pub(super) async fn order(&mut self, room: &mut Room) -> Result<(), ReadError> {
        let mut holes = self.holes(room).await?;
        let mut entries = room.pages::<Timeline>();
        // The live event that comes next, the last one's totals, the last place of history before the next.
        let (mut next, mut totals, mut past) = (1, Totals::default(), None::<i64>);
        while let Some(page) = self.page(&mut entries).await? {
            for (key, row) in page {
                let (at, entry) = ((key.seq, key.sub), row.value);
                let where_is = format!("place {}, {}", at.0, at.1);
                if key.seq != next {
                    self.say(room, Broken::SeqGap, &where_is);
                    (next, past) = (key.seq, None);
                }
                let lowest = holes.remove(&key.seq).filter(|lowest| *lowest < 0);
                let expected = past.map(|past| past + 1).or(lowest);
                if (expected.is_some() || key.sub >= 0) && expected.unwrap_or(0) != key.sub {
                    self.say(room, Broken::HistoryGap, &where_is);
                }
                let before = totals_after(&totals);
                let goes_on = if key.sub < 0 {
                    past = Some(key.sub);
                    entry.totals == before
                } else {
                    next = key.seq + 1;
                    past = None;
                    let goes_on = goes_on(&before, &entry.totals, entry.thread.is_some());
                    totals = entry.totals;
                    goes_on
                };
                if !goes_on {
                    self.say(room, Broken::Totals, &where_is);
                }
                room.events.threaded += usize::from(entry.thread.is_some());
                let fits = room.events.get_mut(entry.num).is_some_and(|kept| {
                    let verdict = kept.verdict;
                    let shown = matches!(verdict, Some(Verdict::Accepted | Verdict::Rejected));
                    shown && kept.place == place(at) && !std::mem::replace(&mut kept.entered, true)
                });
                if !fits {
                    self.say(room, Broken::Place, &where_is);
                }
            }
        }
        if next - 1 != room.head.seq {
            self.say(room, Broken::HeadSeq, format_args!("seq {}", next - 1));
        }
        let astray: Vec<EventNum> = room
            .events
            .iter()
            .filter(|(_, kept)| kept.place != 0 && !kept.entered)
            .map(|(num, _)| num)
            .collect();
        for num in astray {
            self.say_of(room, Broken::Place, num);
        }
        Ok(())
    }

    /// The holes, by the live events before which they are: the lowest place of what was fetched for each.
    async fn holes(&mut self, room: &Room) -> Result<BTreeMap<i64, i64>, ReadError> {
        let mut holes = BTreeMap::new();
        let mut gaps = room.pages::<Gaps>();
        while let Some(page) = self.page(&mut gaps).await? {
            for (key, row) in page {
                let gap = row.value;
                let missing = gap.missing.iter().map(|name| RoomText {
                    room: room.key,
                    name: name.clone(),
                });
                let missing: Vec<RoomText> = missing.collect();
                let named = self.reader.get_many::<EventNums>(&missing).await?;
                let is_live = (1..=room.head.seq).contains(&key.seq);
                if !is_live || missing.is_empty() || named.iter().any(Option::is_none) {
                    self.say(room, Broken::Hole, format_args!("seq {}", key.seq));
                }
                holes.insert(key.seq, gap.lowest);
            }
        }
        Ok(holes)
    }

    /// The ends of the graph, and what kind of state the room has.
    pub(super) async fn head(&mut self, room: &Room) -> Result<(), ReadError> {
        let head = &room.head;
        let ends: Vec<RoomNum> = head.extremities.iter().map(|num| room.num(*num)).collect();
        let headers = self.reader.get_many::<Headers>(&ends).await?;
        let mut met = BTreeSet::new();
        for (num, header) in head.extremities.iter().zip(headers) {
            let is_part = room.events.get(*num).verdict == Some(Verdict::Accepted);
            let Some(header) = header.filter(|_| is_part && met.insert(*num)) else {
                self.say_of(room, Broken::Extremity, EventNum(*num));
                continue;
            };
            if header.value.depth > head.depth {
                self.say_of(room, Broken::Depth, EventNum(*num));
            }
            for covered in &header.value.prev {
                if head.extremities.contains(covered) {
                    self.say_of(room, Broken::Covered, EventNum(*covered));
                }
            }
        }
        if (head.mode == Mode::Stub) != head.extremities.is_empty() {
            self.say(room, Broken::Extremity, "the head");
        }
        let partial = self
            .reader
            .get::<Partials>(&room.in_room())
            .await?
            .is_some();
        let is_whole = AnyRoot::decode(&head.root).is_ok_and(|root| !root.is_partial());
        let fits = match head.mode {
            Mode::Joined => is_whole && !partial,
            Mode::Partial => partial,
            // The row stays in a room that was left before it was complete.
            Mode::Stub | Mode::Left => true,
        };
        if !fits {
            self.say(room, Broken::Mode, "the head");
        }
        Ok(())
    }
}

/// Whether running totals are those before with at most one event more, which a thread keeps from the main timeline. By which
/// rules it counted can't be known any more: they, and the room as it was then, are kept nowhere.
fn goes_on(before: &Totals, after: &Totals, in_thread: bool) -> bool {
    let places = before.0.len().max(after.0.len());
    (0..).take(places).all(|place: u8| {
        let (before, after) = (before.of(place), after.of(place));
        let all = step(before.all, after.all);
        let main = step(before.main, after.main);
        let of_main = if in_thread { Some((0, 0)) } else { all };
        all.is_some() && main == of_main
    })
}

/// What an event added; `None` where that is more than one, or less than nothing.
fn step(before: Tally, after: Tally) -> Option<(u32, u32)> {
    let notify = after.notify.checked_sub(before.notify)?;
    let highlight = after.highlight.checked_sub(before.highlight)?;
    (notify <= 1 && highlight <= 1).then_some((notify, highlight))
}
