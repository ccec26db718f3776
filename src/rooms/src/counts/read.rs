//! What a user has not read.

use std::collections::BTreeMap;

use comity_protocol::id::UserId;
use comity_storage::{Home, Range, RoomKey};

use super::Unread;
use crate::{
    error::RoomError,
    num::EventNum,
    receipts::{positions, thread_total},
    tables::{
        EventNums, Headers, Hits, RoomNum, RoomPlace, RoomText, Tally, Threads, Timeline, Totals,
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
                seq: if receipt.sub < 0 {
                    receipt.seq - 1
                } else {
                    receipt.seq
                },
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
        let (main_from, threads_from) = self.scopes(scoped).await?;
        let main_from = main_from.unwrap_or(whole);
        let mut main = Sum::between(main_from.totals.main, head.main);
        let mut threads: BTreeMap<u32, Sum> = BTreeMap::new();
        let of_all = Sum::between(whole.totals.all, head.all);
        let of_main = Sum::between(whole.totals.main, head.main);
        if of_all.notify != of_main.notify {
            for (root, total) in self.threads_after(whole.seq).await? {
                let from = match threads_from.get(&root) {
                    Some(from) => from.totals.thread,
                    None => thread_total(reader, room, EventNum(root), whole.seq).await?,
                };
                threads.insert(root, Sum::between(from, total));
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
            let from = match row.value.thread {
                None => main_from.seq,
                Some(root) => threads_from.get(&root).map_or(whole.seq, |from| from.seq),
            };
            if key.seq > from {
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

    /// The positions in the main timeline and in threads, by the roots' numbers.
    async fn scopes(
        &self,
        scoped: Vec<(String, From)>,
    ) -> Result<(Option<From>, BTreeMap<u32, From>), RoomError> {
        let room = self.key();
        let named: Vec<RoomText> = scoped
            .iter()
            .map(|(name, _)| RoomText {
                room,
                name: name.clone(),
            })
            .collect();
        let nums = self.reader().get_many::<EventNums>(&named).await?;
        let (mut main, mut threads) = (None::<From>, BTreeMap::<u32, From>::new());
        for ((name, from), num) in scoped.into_iter().zip(nums) {
            let root = match name.strip_prefix('#') {
                Some(root) => root.parse().ok(),
                None => num.map(|row| row.value.0),
            };
            match root {
                _ if name == "main" => {
                    main = main.filter(|known| known.seq >= from.seq).or(Some(from));
                }
                Some(root) => {
                    let known = threads.entry(root).or_insert(from);
                    if known.seq < from.seq {
                        *known = from;
                    }
                }
                None => {}
            }
        }
        Ok((main, threads))
    }

    /// The threads written in after a place, with their totals.
    async fn threads_after(&self, seq: i64) -> Result<Vec<(u32, Tally)>, RoomError> {
        let room: RoomKey = self.key();
        let range = Range::of(Home::Room(room), |key| {
            key.room(room);
        });
        let rows = self.reader().scan::<Threads>(range).await?;
        Ok(rows
            .into_iter()
            .filter(|(_, row)| row.value.latest_seq > seq)
            .map(|(key, row)| (key.num, row.value.notifying))
            .collect())
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
