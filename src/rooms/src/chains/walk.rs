//! Walking the cover, down and up, over rows read once.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    ChainError, ChainKey, ChainSource, EventNum, StateSet,
    rows::{Place, Placed, SEGMENT, Segment},
};

/// Rows read in one round trip at most.
const BATCH: usize = 1024;
/// Citing links read under one target in one round trip.
const CITING: usize = 256;

/// Per chain, how many of its events are meant, counted from its start.
pub(super) type Cover = BTreeMap<u32, u32>;

/// Per chain, positions from the first to before the second.
pub(super) type Spans = BTreeMap<u32, (u32, u32)>;

/// The rows a query has read.
pub(super) struct Walk<'a, S> {
    source: &'a S,
    segments: BTreeMap<(u32, u32), Segment>,
}

/// Sets a chain's count to `count` if it is lower; whether it was.
pub(super) fn raise(cover: &mut Cover, chain: u32, count: u32) -> bool {
    let now = cover.entry(chain).or_default();
    let lower = *now < count;
    *now = count.max(*now);
    lower
}

impl<'a, S: ChainSource> Walk<'a, S> {
    pub fn new(source: &'a S) -> Self {
        Self {
            source,
            segments: BTreeMap::new(),
        }
    }

    /// The places of events, all of which must be indexed.
    pub async fn places(&self, events: &[EventNum]) -> Result<Vec<Place>, ChainError<S::Error>> {
        let mut places = Vec::with_capacity(events.len());
        for events in events.chunks(BATCH) {
            let keys: Vec<_> = events.iter().map(|&num| ChainKey::Event(num)).collect();
            let rows = self.source.rows(&keys).await.map_err(ChainError::Source)?;
            for ((&num, key), row) in events.iter().zip(keys).zip(rows) {
                let row = row.ok_or(ChainError::NotIndexed(num))?;
                places.push(Placed::decode(&row).ok_or(ChainError::Damaged(key))?.place);
            }
        }
        Ok(places)
    }

    /// What the events at `from` reach: the union of their auth chains, without themselves unless
    /// one reaches another. Every event of the answer has been read.
    pub async fn descend(
        &mut self,
        from: impl IntoIterator<Item = Place>,
    ) -> Result<Cover, ChainError<S::Error>> {
        let (mut reached, mut followed, mut ahead) = (Cover::new(), Cover::new(), Cover::new());
        for place in from {
            raise(&mut reached, place.chain, place.position);
            raise(&mut ahead, place.chain, place.position.saturating_add(1));
        }
        while !ahead.is_empty() {
            let spans: Spans = ahead
                .into_iter()
                .map(|(chain, end)| (chain, (followed.get(&chain).copied().unwrap_or(0), end)))
                .filter(|(_, (start, end))| start < end)
                .collect();
            self.read(&spans).await?;
            ahead = Cover::new();
            for (&chain, &(start, end)) in &spans {
                raise(&mut followed, chain, end);
                for position in start..end {
                    for link in self.links(Place { chain, position }) {
                        raise(&mut reached, link.chain, link.position + 1);
                        raise(&mut ahead, link.chain, link.position + 1);
                    }
                }
            }
        }
        reached.retain(|_, count| *count > 0);
        Ok(reached)
    }

    /// Takes out of `spans` what the state reaches, by climbing from where each begins until an
    /// event of the state is met.
    ///
    /// An event that the state reaches need not be climbed from: whatever it reaches, the state
    /// reaches too. So the climb stays within the events of which the state knows nothing, and the
    /// first of the state above them.
    pub async fn subtract_reached<T>(
        &mut self,
        spans: &mut Spans,
        state: &T,
    ) -> Result<(), ChainError<S::Error>>
    where
        T: StateSet<Error = S::Error>,
    {
        spans.retain(|_, (start, end)| start < end);
        // Per chain, from where on events have been met; what the state reaches or holds.
        let (mut met, mut settled) = (Cover::new(), Cover::new());
        let (mut unseen, mut uncited) = (Vec::new(), Vec::new());
        for (&chain, &(start, _)) in spans.iter() {
            met.insert(chain, start + 1);
            unseen.push((chain, start + 1, u32::MAX));
            uncited.push((
                ChainKey::Cited(chain, start, 0, 0),
                ChainKey::Cited(chain, u32::MAX, 0, 0),
            ));
        }
        while !(spans.is_empty() || unseen.is_empty() && uncited.is_empty()) {
            let seen = self.look_up(&mut unseen, &settled).await?;
            let mut held = Vec::new();
            for batch in seen.chunks(BATCH) {
                let asked: Vec<_> = batch.iter().map(|(_, event)| *event).collect();
                let answers = state.contains(&asked).await.map_err(ChainError::Source)?;
                held.extend(
                    batch
                        .iter()
                        .zip(answers)
                        .filter(|(_, held)| *held)
                        .map(|((place, _), _)| *place),
                );
            }
            for (chain, count) in self.descend(held.iter().copied()).await? {
                raise(&mut settled, chain, count);
                if let Some((start, _)) = spans.get_mut(&chain) {
                    *start = count.max(*start);
                }
            }
            spans.retain(|_, (start, end)| start < end);
            // An event of the state may be in question itself: then what cites it still matters.
            for place in held
                .iter()
                .filter(|place| !spans.contains_key(&place.chain))
            {
                raise(&mut settled, place.chain, place.position + 1);
            }

            for citing in self.citing(&mut uncited, &settled).await? {
                let before = met.get(&citing.chain).copied().unwrap_or(u32::MAX);
                let from = citing
                    .position
                    .max(settled.get(&citing.chain).copied().unwrap_or(0));
                if from < before {
                    met.insert(citing.chain, from);
                    unseen.push((citing.chain, from, before));
                    let [first, last] = [from, before]
                        .map(|position| ChainKey::Cited(citing.chain, position, 0, 0));
                    uncited.push((first, last));
                }
            }
        }
        Ok(())
    }

    /// Of these spans of chains the events in one segment each, leaving the rest of the spans.
    async fn look_up(
        &mut self,
        unseen: &mut Vec<(u32, u32, u32)>,
        settled: &Cover,
    ) -> Result<Vec<(Place, (super::StateKeyNum, EventNum))>, ChainError<S::Error>> {
        let mut wanted: Vec<_> = std::mem::take(unseen);
        wanted.iter_mut().for_each(|(chain, start, _)| {
            *start = (*start).max(settled.get(chain).copied().unwrap_or(0))
        });
        wanted.retain(|(_, start, end)| start < end);
        let keys: BTreeSet<_> = wanted
            .iter()
            .map(|(chain, start, _)| (*chain, start / SEGMENT))
            .collect();
        self.fetch(keys.into_iter(), false).await?;
        let mut seen = Vec::new();
        for (chain, start, end) in wanted {
            let number = start / SEGMENT;
            // A chain may end before its next segment.
            let Some(segment) = self.segments.get(&(chain, number)) else {
                continue;
            };
            let positions = number.saturating_mul(SEGMENT)..;
            for (position, event) in positions.zip(&segment.events) {
                if (start..end).contains(&position) {
                    seen.push((
                        Place { chain, position },
                        (segment.key, EventNum(event.num)),
                    ));
                }
            }
            let next = (number + 1).saturating_mul(SEGMENT);
            if segment.events.len() as u32 == SEGMENT && next < end {
                unseen.push((chain, next, end));
            }
        }
        Ok(seen)
    }

    /// Who links into these ranges, a page each, leaving the rest of the ranges.
    async fn citing(
        &mut self,
        uncited: &mut Vec<(ChainKey, ChainKey)>,
        settled: &Cover,
    ) -> Result<Vec<Place>, ChainError<S::Error>> {
        let mut wanted = std::mem::take(uncited);
        for (first, _) in &mut wanted {
            if let ChainKey::Cited(chain, ..) = *first {
                *first = (*first).max(ChainKey::Cited(
                    chain,
                    settled.get(&chain).copied().unwrap_or(0),
                    0,
                    0,
                ));
            }
        }
        wanted.retain(|(first, last)| first < last);
        let mut citing = Vec::new();
        for ranges in wanted.chunks(BATCH) {
            let pages = self
                .source
                .scan(ranges, CITING)
                .await
                .map_err(ChainError::Source)?;
            for ((_, last), page) in ranges.iter().zip(pages) {
                for key in &page {
                    let ChainKey::Cited(_, _, chain, position) = *key else {
                        return Err(ChainError::Damaged(*key));
                    };
                    citing.push(Place { chain, position });
                }
                if page.len() >= CITING
                    && let Some(ChainKey::Cited(chain, position, by, at)) = page.last()
                {
                    // No event is at position u32::MAX, so this is the next key.
                    uncited.push((
                        ChainKey::Cited(*chain, *position, *by, at.saturating_add(1)),
                        *last,
                    ));
                }
            }
        }
        Ok(citing)
    }

    /// The links of an event that has been read.
    pub fn links(&self, place: Place) -> impl Iterator<Item = Place> + '_ {
        let segment = self.segments.get(&(place.chain, place.position / SEGMENT));
        let event =
            segment.and_then(|segment| segment.events.get((place.position % SEGMENT) as usize));
        event
            .into_iter()
            .flat_map(|event| event.links.iter().copied())
    }

    /// The events in these spans, all of which have been read.
    pub fn events(&self, spans: &Spans) -> BTreeSet<EventNum> {
        let places = spans
            .iter()
            .flat_map(|(&chain, &(start, end))| (start..end).map(move |at| (chain, at)));
        let event = |(chain, at): (u32, u32)| {
            let segment = self.segments.get(&(chain, at / SEGMENT))?;
            segment
                .events
                .get((at % SEGMENT) as usize)
                .map(|event| EventNum(event.num))
        };
        places.filter_map(event).collect()
    }

    /// Reads these spans of chains, which must exist.
    async fn read(&mut self, spans: &Spans) -> Result<(), ChainError<S::Error>> {
        let segments = |(&chain, &(start, end)): (&u32, &(u32, u32))| {
            (start / SEGMENT..end.div_ceil(SEGMENT)).map(move |number| (chain, number))
        };
        self.fetch(spans.iter().flat_map(segments), true).await?;
        for (&chain, &(_, end)) in spans {
            let last = end.saturating_sub(1);
            let segment = self.segments.get(&(chain, last / SEGMENT));
            if segment.is_none_or(|segment| segment.events.len() as u32 <= last % SEGMENT) {
                return Err(ChainError::Damaged(ChainKey::Segment(
                    chain,
                    last / SEGMENT,
                )));
            }
        }
        Ok(())
    }

    /// Reads segments that haven't been, some at a time, so that a damaged length stops at the first
    /// segment that doesn't exist.
    async fn fetch(
        &mut self,
        mut segments: impl Iterator<Item = (u32, u32)>,
        must_exist: bool,
    ) -> Result<(), ChainError<S::Error>> {
        loop {
            let unread = segments
                .by_ref()
                .filter(|at| !self.segments.contains_key(at));
            let batch: Vec<_> = unread.take(BATCH).collect();
            if batch.is_empty() {
                return Ok(());
            }
            let keys: Vec<_> = batch
                .iter()
                .map(|&(chain, number)| ChainKey::Segment(chain, number))
                .collect();
            let rows = self.source.rows(&keys).await.map_err(ChainError::Source)?;
            for ((at, key), row) in batch.into_iter().zip(keys).zip(rows) {
                match row {
                    Some(row) => {
                        let segment = Segment::decode(&row).ok_or(ChainError::Damaged(key))?;
                        self.segments.insert(at, segment);
                    }
                    None if must_exist => return Err(ChainError::Damaged(key)),
                    None => {}
                }
            }
        }
    }
}
