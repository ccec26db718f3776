//! The room's order: pages of it, from either end.

use comity_protocol::id::UserId;
use comity_storage::{Home, KeyWriter, Pos, Range};

use super::{Found, RoomView};
use crate::{
    error::RoomError,
    num::EventNum,
    tables::{self, Entry, RoomPlace, Verdict},
};

/// Entries looked at beyond what was asked for, so that hidden ones don't end a page.
const SLACK: usize = 16;
/// Places probed in one step of a search.
const PROBES: i64 = 16;
/// Events looked at for the one next to a time, at the most, and in one go.
const NEAR: usize = 8_192;
const NEAR_PAGE: usize = 256;

/// A stretch of the room's order: places are `(seq, sub)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// Only after this place.
    pub after: Option<(i64, i64)>,
    /// Only before this place.
    pub before: Option<(i64, i64)>,
    /// Backwards only: those after the last live entry that a reader at this position of the room's lane
    /// knew.
    pub unknown_at: Option<Pos>,
    /// From the end.
    pub backwards: bool,
    /// Events at the most.
    pub limit: usize,
}

impl Span {
    /// The latest events, newest first.
    pub fn latest(limit: usize) -> Self {
        Self {
            after: None,
            before: None,
            unknown_at: None,
            backwards: true,
            limit,
        }
    }
}

/// Whoever looks at events. (An async closure's future can't be said to be `Send`.)
pub(crate) trait Eyes: Sync {
    /// Those that they may see.
    fn seen(&self, found: Vec<Found>)
    -> impl Future<Output = Result<Vec<Found>, RoomError>> + Send;
}

struct UserEyes<'a> {
    view: &'a RoomView,
    user: &'a UserId,
}

impl Eyes for UserEyes<'_> {
    async fn seen(&self, found: Vec<Found>) -> Result<Vec<Found>, RoomError> {
        self.view.only_visible(found, self.user).await
    }
}

impl RoomView {
    /// The entries of a stretch, in the order asked, as rows: nothing of the events is read.
    ///
    /// # Errors
    /// The store can't be read.
    pub async fn entries(&self, span: Span) -> Result<Vec<((i64, i64), Entry)>, RoomError> {
        let range = self.placed(span, |key| {
            key.room(self.room);
        });
        let rows = self.reader.scan::<tables::Timeline>(range).await?;
        // Positions grow along the live entries.
        let known =
            |key: &RoomPlace, pos| key.sub == 0 && span.unknown_at.is_some_and(|at| pos <= at);
        Ok(rows
            .into_iter()
            .take_while(|(key, row)| !known(key, row.pos))
            .map(|(RoomPlace { seq, sub, .. }, row)| ((seq, sub), row.value))
            .collect())
    }

    /// The rows with a place in a stretch of the order, of those that begin with `prefix`.
    pub(super) fn placed(&self, span: Span, prefix: impl FnOnce(&mut KeyWriter)) -> Range {
        let end = (self.head.seq + 1, i64::MIN);
        let before = span.before.map_or(end, |before| before.min(end));
        let mut range = Range::of(Home::Room(self.room), prefix)
            .until(|key| {
                key.i64(before.0).i64(before.1);
            })
            .limit(span.limit);
        if let Some((seq, sub)) = span.after {
            range = range.from(|key| {
                key.i64(seq).i64(sub.saturating_add(1));
            });
        }
        if span.backwards {
            range = range.reverse();
        }
        range
    }

    /// The events of a stretch, in the order asked; and whether the stretch has more.
    ///
    /// # Errors
    /// The store can't be read.
    pub async fn timeline(&self, span: Span) -> Result<(Vec<Found>, bool), RoomError> {
        let mut span = Span {
            limit: span.limit.saturating_add(1),
            ..span
        };
        let wanted = span.limit;
        let mut found: Vec<Found> = Vec::new();
        loop {
            let entries = self.entries(span).await?;
            let exhausted = entries.len() < span.limit;
            let last = entries.last().map(|(place, _)| *place);
            let nums: Vec<EventNum> = entries
                .iter()
                .map(|(_, entry)| EventNum(entry.num))
                .collect();
            found.extend(
                self.load(&nums)
                    .await?
                    .into_iter()
                    .filter(|found| found.status.verdict == Verdict::Accepted),
            );
            if exhausted || found.len() >= wanted {
                break;
            }
            if span.backwards {
                span.before = last;
            } else {
                span.after = last;
            }
            span.limit = (wanted - found.len()).saturating_add(SLACK);
        }
        let more = found.len() >= wanted;
        found.truncate(wanted - 1);
        Ok((found, more))
    }

    /// The last live event's sequence number that a reader at position `pos` of the room's lane
    /// knew. Positions grow along the order, so a search with 16 probes a step finds it.
    ///
    /// # Errors
    /// The store can't be read.
    pub async fn seq_at(&self, pos: u64) -> Result<i64, RoomError> {
        // Known at `low`, or nothing was; not known from `high` on.
        let (mut low, mut high) = (0, self.head.seq + 1);
        while high - low > 1 {
            let probes = self.probes(low, high);
            let rows = self.reader.get_many::<tables::Timeline>(&probes).await?;
            for (probe, row) in probes.iter().zip(rows) {
                match row {
                    Some(row) if row.pos <= pos => low = probe.seq,
                    _ => {
                        high = probe.seq;
                        break;
                    }
                }
            }
        }
        Ok(low)
    }

    /// The live event at a sequence number.
    ///
    /// # Errors
    /// The store can't be read.
    pub async fn at(&self, seq: i64) -> Result<Option<Found>, RoomError> {
        let key = RoomPlace {
            room: self.room,
            seq,
            sub: 0,
        };
        let Some(row) = self.reader.get::<tables::Timeline>(&key).await? else {
            return Ok(None);
        };
        let found = self.load(&[EventNum(row.value.num)]).await?.pop();
        Ok(found.filter(|found| self.holds(found)))
    }

    /// The event next to a time that the user may see: the earliest at or after it, or backwards the
    /// latest at or before it.
    ///
    /// # Errors
    /// The store can't be read.
    pub async fn near(
        &self,
        ts: i64,
        backwards: bool,
        user: &UserId,
    ) -> Result<Option<Found>, RoomError> {
        let eyes = UserEyes { view: self, user };
        if let Some(found) = self.nearest(ts, backwards, &eyes).await? {
            return Ok(Some(found));
        }
        // Who sees little of what was before they came is shown what they do see.
        let joined = self.standing(user).await?.since;
        if backwards {
            return Ok(None);
        }
        let span = Span {
            after: Some((joined - 1, i64::MAX - 1)),
            before: None,
            unknown_at: None,
            backwards,
            limit: NEAR_PAGE,
        };
        self.nearest_in(span, ts, &eyes).await
    }

    /// The event next to a time, of those that these eyes see.
    ///
    /// Times are claims of the senders and need not grow with the order, but mostly do. So the place of
    /// the time is searched for, and the order gone through from a little before it, page by page; of
    /// the first page that has such events the one closest in time is taken.
    pub(crate) async fn nearest(
        &self,
        ts: i64,
        backwards: bool,
        eyes: &impl Eyes,
    ) -> Result<Option<Found>, RoomError> {
        let place = self.seq_of_time(ts).await?;
        let aside = i64::try_from(NEAR_PAGE / 2).unwrap_or(0);
        let mut span = Span {
            after: None,
            before: None,
            unknown_at: None,
            backwards,
            limit: NEAR_PAGE,
        };
        if backwards {
            span.before = Some((place.saturating_add(aside), i64::MIN));
        } else {
            span.after = Some((place.saturating_sub(aside), i64::MIN));
        }
        self.nearest_in(span, ts, eyes).await
    }

    async fn nearest_in(
        &self,
        mut span: Span,
        ts: i64,
        eyes: &impl Eyes,
    ) -> Result<Option<Found>, RoomError> {
        let backwards = span.backwards;
        let fits = |at: i64| if backwards { at <= ts } else { at >= ts };
        for _ in 0..NEAR / NEAR_PAGE {
            let entries = self.entries(span).await?;
            let Some((last, _)) = entries.last() else {
                return Ok(None);
            };
            let last = *last;
            let keys: Vec<_> = entries
                .iter()
                .map(|(_, entry)| tables::RoomNum {
                    room: self.room,
                    num: entry.num,
                })
                .collect();
            let headers = self.reader.get_many::<tables::Headers>(&keys).await?;
            let nums: Vec<EventNum> = keys
                .iter()
                .zip(headers)
                .filter(|(_, header)| header.as_ref().is_some_and(|header| fits(header.value.ts)))
                .map(|(key, _)| EventNum(key.num))
                .collect();
            let mut found = self.load(&nums).await?;
            found.retain(|found| self.holds(found));
            let closest = eyes
                .seen(found)
                .await?
                .into_iter()
                .min_by_key(|found| found.event.origin_server_ts().abs_diff(ts));
            if closest.is_some() {
                return Ok(closest);
            }
            if backwards {
                span.before = Some(last);
            } else {
                span.after = Some(last);
            }
        }
        Ok(None)
    }

    /// The sequence number of the first live event at or after a time, as if times grew with the order;
    /// one past the last where all are before it.
    async fn seq_of_time(&self, ts: i64) -> Result<i64, RoomError> {
        let (mut low, mut high) = (0, self.head.seq + 1);
        while high - low > 1 {
            let probes = self.probes(low, high);
            let entries = self.reader.get_many::<tables::Timeline>(&probes).await?;
            let (places, nums): (Vec<i64>, Vec<tables::RoomNum>) = probes
                .iter()
                .zip(entries)
                .filter_map(|(probe, row)| Some((probe.seq, row?.value.num)))
                .map(|(seq, num)| {
                    let room = self.room;
                    (seq, tables::RoomNum { room, num })
                })
                .unzip();
            let headers = self.reader.get_many::<tables::Headers>(&nums).await?;
            let (mut below, mut above) = (None, None);
            for (seq, header) in places.into_iter().zip(headers) {
                if header.is_some_and(|header| header.value.ts < ts) {
                    below = Some(seq);
                } else {
                    above = Some(seq);
                    break;
                }
            }
            if below.is_none() && above.is_none() {
                break;
            }
            (low, high) = (below.unwrap_or(low), above.unwrap_or(high));
        }
        Ok(high)
    }

    /// Places spread over those between two, the last of them next to the upper end.
    fn probes(&self, low: i64, high: i64) -> Vec<RoomPlace> {
        let step = ((high - low) / PROBES).max(1);
        (1..=PROBES)
            .map(|n| low + n * step)
            .take_while(|seq| *seq < high)
            .map(|seq| RoomPlace {
                room: self.room,
                seq,
                sub: 0,
            })
            .collect()
    }
}
