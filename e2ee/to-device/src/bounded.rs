//! Queues that hold so much and no more.
//!
//! Each row carries running totals, so the rows at both ends say how full a queue is. Rows are only added at its end and taken
//! from its beginning.

use comity_storage::{Pos, Range, ReadError, Reader, Row, Table};

use crate::tables::Queued;

/// How much a queue holds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bound {
    pub items: u64,
    pub bytes: u64,
}

impl Bound {
    /// This part of it: one in so many.
    pub(crate) const fn part(self, of: u64) -> Self {
        Self {
            items: self.items / of,
            bytes: self.bytes / of,
        }
    }

    /// Whether it takes another of this size beside those, of so many bytes together.
    pub(crate) fn takes(self, items: u64, bytes: u64, size: usize) -> bool {
        items < self.items && bytes.saturating_add(size as u64) <= self.bytes
    }
}

/// How full a queue is, and the totals from which the next goes on.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Load {
    items: u64,
    bytes: u64,
    last_nth: u64,
    last_bytes: u64,
    /// Place of the next among those of one commit.
    index: u32,
    /// The position at which its first was put there.
    pub(crate) since: Option<Pos>,
}

impl Load {
    /// How full the queues are whose rows these ranges hold; two rows of each are read.
    pub(crate) async fn of<T: Table<Value = Queued<I>>, I>(
        reader: &Reader,
        queues: Vec<Range>,
        size: impl Fn(&I) -> usize,
    ) -> Result<Vec<Self>, ReadError> {
        if queues.is_empty() {
            return Ok(Vec::new());
        }
        let firsts = queues.iter().map(|queue| queue.clone().limit(1));
        let lasts = queues.iter().map(|queue| queue.clone().reverse().limit(1));
        let ranges: Vec<Range> = firsts.chain(lasts).collect();
        let mut rows = reader.scan_many::<T>(ranges).await?.into_iter();
        let mut end = || {
            let row = rows.next().and_then(|mut rows| rows.pop());
            row.map(|(_, row)| row)
        };
        let firsts: Vec<_> = queues.iter().map(|_| end()).collect();
        let lasts: Vec<_> = queues.iter().map(|_| end()).collect();
        let loads = firsts.into_iter().zip(lasts).map(|ends| match ends {
            (Some(Row { value: first, pos }), Some(Row { value: last, .. })) => Self {
                items: last.nth.saturating_sub(first.nth) + 1,
                bytes: last.bytes.saturating_sub(first.bytes) + size(&first.item) as u64,
                last_nth: last.nth,
                last_bytes: last.bytes,
                index: 0,
                since: Some(pos),
            },
            _ => Self::default(),
        });
        Ok(loads.collect())
    }

    /// Whether it holds no more than this, and so many bytes of so many more.
    pub(crate) fn fits(&self, bound: Bound, items: usize, bytes: usize) -> bool {
        self.items + items as u64 <= bound.items && self.bytes + bytes as u64 <= bound.bytes
    }

    /// Puts one more at the end: its place in its commit and what its row holds, unless the queue is full.
    pub(crate) fn add<I>(
        &mut self,
        bound: Bound,
        size: usize,
        item: I,
    ) -> Option<(u32, Queued<I>)> {
        if !bound.takes(self.items, self.bytes, size) {
            return None;
        }
        let size = size as u64;
        self.items += 1;
        self.bytes += size;
        self.last_nth += 1;
        self.last_bytes += size;
        let index = self.index;
        self.index += 1;
        let row = Queued {
            nth: self.last_nth,
            bytes: self.last_bytes,
            item,
        };
        Some((index, row))
    }
}
