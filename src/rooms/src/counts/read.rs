//! What a user has not read.

use std::collections::BTreeMap;

use comity_protocol::id::UserId;
use comity_storage::{Home, Range, RoomKey};

use super::Unread;
use crate::{
    error::RoomError,
    num::EventNum,
    receipts::{counted_from, positions, scopes, thread_totals},
    tables::{
        Discounts, Headers, Hits, RoomNum, RoomPlace, Tally, ThreadOrder, Threads, Timeline, Totals,
    },
    view::RoomView,
};

/// Where a count begins.
#[derive(Clone, Copy, Default)]
struct From {
    seq: i64,
    totals: Totals,
}

/// A count in the making.
#[derive(Clone, Copy, Default)]
struct Sum {
    notify: i64,
    highlight: i64,
}

impl Sum {
    fn between(from: Tally, to: Tally) -> Self {
        Self {
            notify: i64::from(to.notify) - i64::from(from.notify),
            highlight: i64::from(to.highlight) - i64::from(from.highlight),
        }
    }

    fn tally(self) -> Tally {
        let count = |n: i64| u32::try_from(n.max(0)).unwrap_or(u32::MAX);
        Tally {
            notify: count(self.notify),
            highlight: count(self.highlight),
        }
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
        let (head, positions) = futures_util::try_join!(
            async { Ok::<_, RoomError>(reader.get::<Timeline>(&head_at).await?) },
            positions(reader, user.as_str(), room)
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
            } else if whole.is_none_or(|whole| whole.seq < from.seq) {
                whole = Some(from);
            }
        }
        // Who never joined has nothing to read.
        let Some(whole) = whole else {
            return Ok(Unread::default());
        };
        scoped.retain(|(_, from)| from.seq > whole.seq);
        let (main_from, threads_from) = scopes(reader, room, scoped, |from| from.seq).await?;
        let main_from = main_from.unwrap_or(whole);
        let mut main = Sum::between(main_from.totals.main, head.main);
        let mut threads: BTreeMap<u32, Sum> = BTreeMap::new();
        let of_all = Sum::between(whole.totals.all, head.all);
        let of_main = Sum::between(whole.totals.main, head.main);
        if of_all.notify != of_main.notify {
            let written = self.threads_after(whole.seq).await?;
            let unread = written
                .iter()
                .map(|(root, _)| EventNum(*root))
                .filter(|root| !threads_from.contains_key(&root.0));
            let unread: Vec<EventNum> = unread.collect();
            let before = thread_totals(reader, room, &unread, whole.seq).await?;
            let before: BTreeMap<EventNum, Tally> = unread.into_iter().zip(before).collect();
            for (root, total) in written {
                let from = match threads_from.get(&root) {
                    Some(from) => from.totals.thread,
                    None => before.get(&EventNum(root)).copied().unwrap_or_default(),
                };
                threads.insert(root, Sum::between(from, total));
            }
        }
        let begins = |thread: Option<u32>| match thread {
            None => main_from.seq,
            Some(root) => threads_from.get(&root).map_or(whole.seq, |from| from.seq),
        };
        let discounts = self.discounts(whole.seq).await?;
        for (seq, (thread, tally)) in &discounts {
            if *seq > begins(*thread) {
                let sum = match thread {
                    None => Some(&mut main),
                    Some(root) => threads.get_mut(root),
                };
                if let Some(sum) = sum {
                    sum.notify -= i64::from(tally.notify);
                    sum.highlight -= i64::from(tally.highlight);
                }
            }
        }
        let hits = Range::of(Home::Room(room), |key| {
            key.str(user.as_str()).room(room);
        })
        .from(|key| {
            key.i64(whole.seq.saturating_add(1));
        })
        .until(|key| {
            key.i64(self.seq().saturating_add(1));
        });
        for (key, row) in reader.scan::<Hits>(hits).await? {
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

    /// The threads written in after a place, with their totals.
    async fn threads_after(&self, seq: i64) -> Result<Vec<(u32, Tally)>, RoomError> {
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
        let rows = roots.iter().zip(rows);
        Ok(rows
            .filter_map(|(key, row)| Some((key.num, row?.value.notifying)))
            .collect())
    }

    /// The events after a place that count no more, since they were redacted: to which thread they
    /// belong, and what they had added to the totals (threat E8).
    async fn discounts(&self, seq: i64) -> Result<BTreeMap<i64, (Option<u32>, Tally)>, RoomError> {
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
            let before = before
                .as_ref()
                .map_or_else(Tally::default, |row| row.value.totals.all);
            let added = Sum::between(before, entry.value.totals.all).tally();
            discounts.insert(key.seq, (entry.value.thread, added));
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
