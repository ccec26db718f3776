//! What a user has not read.

use std::collections::BTreeMap;

use comity_protocol::id::UserId;
use comity_storage::{Home, Range, RoomKey};

use super::{Unread, turns};
use crate::{
    error::RoomError,
    num::EventNum,
    receipts::{counted_from, positions, scopes, thread_totals},
    tables::{
        Discounts, Headers, Hits, RoomNum, RoomPlace, Tally, ThreadOrder, Threads, Timeline, Total,
        Totals,
    },
    view::RoomView,
};

/// Where a count begins.
#[derive(Clone, Default)]
struct From {
    seq: i64,
    totals: Totals,
}

/// The rulesets by which a user's count goes on.
struct Course {
    /// The place of the ruleset at the beginning.
    first: u8,
    /// The turns since: after which event, the totals there, to which place.
    turns: Vec<(i64, Totals, u8)>,
}

/// A count in the making.
#[derive(Clone, Copy, Default)]
struct Sum {
    notify: i64,
    highlight: i64,
}

impl Sum {
    fn add(&mut self, from: Tally, to: Tally) {
        self.notify += i64::from(to.notify) - i64::from(from.notify);
        self.highlight += i64::from(to.highlight) - i64::from(from.highlight);
    }

    fn tally(self) -> Tally {
        let count = |n: i64| u32::try_from(n.max(0)).unwrap_or(u32::MAX);
        Tally {
            notify: count(self.notify),
            highlight: count(self.highlight),
        }
    }
}

impl Course {
    /// The same without its turns.
    fn begun(&self) -> Self {
        Self {
            first: self.first,
            turns: Vec::new(),
        }
    }

    /// The place of the ruleset by which an event was counted.
    fn place_of(&self, seq: i64) -> u8 {
        let before = self.turns.iter().rev().find(|(at, ..)| *at < seq);
        before.map_or(self.first, |(.., place)| *place)
    }

    /// What was counted from a place of the order to the head: stretch by stretch, each under its ruleset.
    fn sum(&self, from: &From, head: &Totals, of: impl Fn(Total) -> Tally) -> Sum {
        let (mut sum, mut place, mut at) = (Sum::default(), self.first, &from.totals);
        for (seq, totals, next) in &self.turns {
            if *seq > from.seq {
                sum.add(of(at.of(place)), of(totals.of(place)));
                at = totals;
            }
            place = *next;
        }
        sum.add(of(at.of(place)), of(head.of(place)));
        sum
    }
}

impl RoomView {
    /// What a user has not read in the room.
    ///
    /// # Errors
    /// The store can't be read.
    pub async fn unread(&self, user: &UserId) -> Result<Unread, RoomError> {
        let (room, reader) = (self.key(), self.reader());
        let head_at = RoomPlace {
            room,
            seq: self.seq(),
            sub: 0,
        };
        let (head, positions, turns) = futures_util::try_join!(
            async { Ok::<_, RoomError>(reader.get::<Timeline>(&head_at).await?) },
            positions(reader, user.as_str(), room),
            turns(reader, room, user.as_str()),
        )?;
        let head = head.map_or_else(Totals::default, |row| row.value.totals);
        let (mut whole, mut scoped) = (None::<From>, Vec::new());
        for (key, receipt) in positions {
            let from = From {
                seq: counted_from(&receipt),
                totals: receipt.totals,
            };
            if !key.thread.is_empty() {
                scoped.push((key.thread, from));
            } else if whole.as_ref().is_none_or(|whole| whole.seq < from.seq) {
                whole = Some(from);
            }
        }
        // Who never joined has nothing to read.
        let Some(whole) = whole else {
            return Ok(Unread::default());
        };
        scoped.retain(|(_, from)| from.seq > whole.seq);
        let hits = Range::of(Home::Room(room), |key| {
            key.str(user.as_str()).room(room);
        })
        .from(|key| {
            key.i64(whole.seq.saturating_add(1));
        })
        .until(|key| {
            key.i64(self.seq().saturating_add(1));
        });
        let ((main_from, threads_from), course, hits) = futures_util::try_join!(
            scopes(reader, room, scoped, |from| from.seq),
            self.course(turns, whole.seq),
            async { Ok(reader.scan::<Hits>(hits).await?) },
        )?;
        let main_from = main_from.unwrap_or_else(|| whole.clone());
        let mut main = course.sum(&main_from, &head, |total| total.main);
        let of_all = course.sum(&whole, &head, |total| total.all);
        let of_main = course.sum(&whole, &head, |total| total.main);
        let (discounts, mut threads) =
            futures_util::try_join!(self.discounts(whole.seq, &course), async {
                if of_all.notify == of_main.notify {
                    return Ok(BTreeMap::new());
                }
                self.threads_unread(&whole, &threads_from, &course).await
            })?;
        let begins = |thread: Option<u32>| match thread {
            None => main_from.seq,
            Some(root) => threads_from.get(&root).map_or(whole.seq, |from| from.seq),
        };
        for (seq, (thread, tally)) in &discounts {
            if *seq > begins(*thread) {
                let sum = match thread {
                    None => Some(&mut main),
                    Some(root) => threads.get_mut(root),
                };
                if let Some(sum) = sum {
                    sum.add(*tally, Tally::default());
                }
            }
        }
        for (key, row) in hits {
            if key.seq > begins(row.value.thread) && !discounts.contains_key(&key.seq) {
                let sum = match row.value.thread {
                    None => &mut main,
                    Some(root) => threads.entry(root).or_default(),
                };
                sum.notify += i64::from(row.value.notify);
                sum.highlight += i64::from(row.value.highlight);
            }
        }
        self.named(main.tally(), threads).await
    }

    /// How a user's count goes on after a place of the order, by their turns.
    async fn course(&self, turns: Vec<(i64, u8)>, from: i64) -> Result<Course, RoomError> {
        let room = self.key();
        let (before, mut since): (Vec<_>, Vec<_>) =
            turns.into_iter().partition(|(seq, _)| *seq <= from);
        since.retain(|(seq, _)| *seq <= self.seq());
        let places: Vec<RoomPlace> = since
            .iter()
            .map(|(seq, _)| RoomPlace {
                room,
                seq: *seq,
                sub: 0,
            })
            .collect();
        let rows = self.reader().get_many::<Timeline>(&places).await?;
        let turns = since.into_iter().zip(rows).map(|((seq, place), row)| {
            let totals = row.map_or_else(Totals::default, |row| row.value.totals);
            (seq, totals, place)
        });
        Ok(Course {
            first: before.last().map_or(0, |(_, place)| *place),
            turns: turns.collect(),
        })
    }

    /// What was counted in threads: of each that was written in since `whole` from there on, or from
    /// where the user has read it to.
    async fn threads_unread(
        &self,
        whole: &From,
        read: &BTreeMap<u32, From>,
        course: &Course,
    ) -> Result<BTreeMap<u32, Sum>, RoomError> {
        let (reader, room) = (self.reader(), self.key());
        let written = self.threads_after(whole.seq).await?;
        let roots: Vec<EventNum> = written.iter().map(|(root, _)| EventNum(*root)).collect();
        let before = thread_totals(reader, room, &roots, whole.seq).await?;
        let mut courses: Vec<Course> = roots.iter().map(|_| course.begun()).collect();
        for (seq, _, place) in &course.turns {
            let there = thread_totals(reader, room, &roots, *seq).await?;
            for (course, totals) in courses.iter_mut().zip(there) {
                course.turns.push((*seq, totals, *place));
            }
        }
        let mut threads = BTreeMap::new();
        for (((root, head), totals), course) in written.into_iter().zip(before).zip(courses) {
            let begin = From {
                seq: whole.seq,
                totals,
            };
            let from = read.get(&root).unwrap_or(&begin);
            threads.insert(root, course.sum(from, &head, |total| total.thread));
        }
        Ok(threads)
    }

    /// The threads written in after a place, with their totals.
    async fn threads_after(&self, seq: i64) -> Result<Vec<(u32, Totals)>, RoomError> {
        let room: RoomKey = self.key();
        let order = self.reader().scan::<ThreadOrder>(self.after(seq)).await?;
        let roots: Vec<RoomNum> = order
            .iter()
            .map(|(_, row)| RoomNum {
                room,
                num: row.value.0,
            })
            .collect();
        let rows = self.reader().get_many::<Threads>(&roots).await?;
        let total = |thread: Tally| Total {
            thread,
            ..Total::default()
        };
        let rows = roots.iter().zip(rows);
        Ok(rows
            .filter_map(|(key, row)| {
                let notifying = row?.value.notifying.into_iter();
                Some((key.num, Totals(notifying.map(total).collect())))
            })
            .collect())
    }

    /// The events after a place that count no more, since they were redacted: to which thread they
    /// belong, and what they had added to the totals of the user's ruleset then (threat E8).
    async fn discounts(
        &self,
        seq: i64,
        course: &Course,
    ) -> Result<BTreeMap<i64, (Option<u32>, Tally)>, RoomError> {
        let room = self.key();
        let rows = self.reader().scan::<Discounts>(self.after(seq)).await?;
        let places: Vec<RoomPlace> = rows
            .iter()
            .flat_map(|(key, _)| [key.seq - 1, key.seq])
            .map(|seq| RoomPlace { room, seq, sub: 0 })
            .collect();
        let entries = self.reader().get_many::<Timeline>(&places).await?;
        let mut discounts = BTreeMap::new();
        for ((key, _), entries) in rows.iter().zip(entries.chunks(2)) {
            let [before, Some(entry)] = entries else {
                continue;
            };
            let place = course.place_of(key.seq);
            let before = before
                .as_ref()
                .map_or_else(Tally::default, |row| row.value.totals.of(place).all);
            let mut added = Sum::default();
            added.add(before, entry.value.totals.of(place).all);
            discounts.insert(key.seq, (entry.value.thread, added.tally()));
        }
        Ok(discounts)
    }

    /// Rows by sequence number, after one and up to this position's.
    fn after(&self, seq: i64) -> Range {
        let room = self.key();
        Range::of(Home::Room(room), |key| {
            key.room(room);
        })
        .from(|key| {
            key.i64(seq.saturating_add(1));
        })
        .until(|key| {
            key.i64(self.seq().saturating_add(1));
        })
    }

    /// The counts, threads by their roots' event ids.
    async fn named(&self, main: Tally, sums: BTreeMap<u32, Sum>) -> Result<Unread, RoomError> {
        let room = self.key();
        let counted: Vec<(RoomNum, Tally)> = sums
            .into_iter()
            .map(|(num, sum)| (RoomNum { room, num }, sum.tally()))
            .filter(|(_, tally)| *tally != Tally::default())
            .collect();
        let roots: Vec<RoomNum> = counted.iter().map(|(root, _)| root.clone()).collect();
        let headers = self.reader().get_many::<Headers>(&roots).await?;
        let mut unread = Unread {
            total: main,
            main,
            threads: BTreeMap::new(),
        };
        for ((_, tally), header) in counted.into_iter().zip(headers) {
            unread.total = unread.total.plus(tally);
            if let Some(header) = header {
                unread.threads.insert(header.value.event_id, tally);
            }
        }
        Ok(unread)
    }
}
