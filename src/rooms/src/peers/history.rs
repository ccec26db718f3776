//! History for other servers: backwards through the graph.
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#backfilling-and-retrieving-missing-events>

use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use comity_protocol::{
    event::Event,
    id::{EventId, OwnedEventId},
};

use super::PeerView;
use crate::{
    error::RoomError,
    num::EventNum,
    tables::{Headers, RoomNum, Statuses, Verdict},
    view::{Eyes, Found, RoomView, Span},
};

/// Events in one answer of history at the most.
const MAX_BACKFILL: usize = 100;
/// Events that fill a gap at the most.
const MAX_MISSING: usize = 20;
/// Ids that one request may start or end at.
const MAX_IDS: usize = 100;
/// Events looked at in one walk, those included that are not handed out.
const MAX_WALK: usize = 2_000;
/// Entries of the order read ahead, since parents are mostly near their children.
const AHEAD: usize = 64;

/// What a walk reads of an event.
struct Node {
    depth: u64,
    prev: Vec<u32>,
    is_shown: bool,
}

/// A walk backwards, greatest depth first.
struct Walk<'a> {
    view: &'a RoomView,
    nodes: BTreeMap<u32, Node>,
}

impl PeerView {
    /// Events and what came before them, newest first, 100 at the most. Ids that aren't known are
    /// passed over.
    ///
    /// <https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1backfillroomid>
    ///
    /// # Errors
    /// The store can't be read.
    pub async fn backfill(
        &self,
        from: &[OwnedEventId],
        limit: usize,
    ) -> Result<Vec<Event>, RoomError> {
        let from = self.nums(from).await?;
        let mut walk = Walk::new(&self.view);
        let limit = limit.min(MAX_BACKFILL);
        let nums = walk.back(from, &BTreeSet::new(), 0, limit).await?;
        self.shown(self.view.load(&nums).await?).await
    }

    /// What lies between events that a server has and those it has just heard of, oldest first, 20
    /// at the most; those nearest to the latest where there are more.
    ///
    /// <https://spec.matrix.org/v1.19/server-server-api/#post_matrixfederationv1get_missing_eventsroomid>
    ///
    /// # Errors
    /// The store can't be read.
    pub async fn missing_events(
        &self,
        earliest: &[OwnedEventId],
        latest: &[OwnedEventId],
        limit: usize,
        min_depth: u64,
    ) -> Result<Vec<Event>, RoomError> {
        let latest = self.nums_owed(latest).await?;
        let mut known: BTreeSet<u32> = self.nums(earliest).await?.into_iter().collect();
        known.extend(&latest);
        let mut walk = Walk::new(&self.view);
        walk.look_at(&latest).await?;
        let parents = latest
            .iter()
            .filter_map(|num| walk.nodes.get(num))
            .flat_map(|node| node.prev.iter().copied())
            .collect();
        let limit = limit.min(MAX_MISSING);
        let mut nums = walk.back(parents, &known, min_depth, limit).await?;
        nums.reverse();
        self.shown(self.view.load(&nums).await?).await
    }

    /// The event next to a time that the server may read: the earliest at or after it, or backwards
    /// the latest at or before it.
    ///
    /// <https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1timestamp_to_eventroomid>
    ///
    /// # Errors
    /// The store can't be read.
    pub async fn near(&self, ts: i64, backwards: bool) -> Result<Option<Event>, RoomError> {
        let found = self.view.nearest(ts, backwards, self).await?;
        Ok(found.map(|found| found.event))
    }

    /// The numbers of those of the events that the server may ask about.
    async fn nums_owed(&self, ids: &[OwnedEventId]) -> Result<Vec<u32>, RoomError> {
        let nums: Vec<EventNum> = self.nums(ids).await?.into_iter().map(EventNum).collect();
        if self.is_in {
            return Ok(nums.into_iter().map(|num| num.0).collect());
        }
        let found = self.owed(self.view.load(&nums).await?).await?;
        Ok(found.into_iter().map(|found| found.num.0).collect())
    }

    /// The numbers of those of the events that are here.
    async fn nums(&self, ids: &[OwnedEventId]) -> Result<Vec<u32>, RoomError> {
        let mut nums = Vec::new();
        for id in ids.iter().take(MAX_IDS) {
            let id: &EventId = id;
            nums.extend(self.view.num(id).await?.map(|num| num.0));
        }
        Ok(nums)
    }
}

impl Eyes for PeerView {
    async fn seen(&self, found: Vec<Found>) -> Result<Vec<Found>, RoomError> {
        let found = self.owed(found).await?;
        let visible = self.visible(&found).await?;
        let seen = found.into_iter().zip(visible);
        Ok(seen
            .filter(|(_, visible)| *visible)
            .map(|(found, _)| found)
            .collect())
    }
}

impl<'a> Walk<'a> {
    fn new(view: &'a RoomView) -> Self {
        Self {
            view,
            nodes: BTreeMap::new(),
        }
    }

    /// From these events backwards, without those in `stop` and what lies behind them alone.
    async fn back(
        &mut self,
        from: Vec<u32>,
        stop: &BTreeSet<u32>,
        min_depth: u64,
        limit: usize,
    ) -> Result<Vec<EventNum>, RoomError> {
        let mut met = stop.clone();
        let mut heap = BinaryHeap::new();
        let mut next = from;
        let mut found = Vec::new();
        while found.len() < limit && met.len() < stop.len() + MAX_WALK {
            next.retain(|num| met.insert(*num));
            self.look_at(&next).await?;
            for num in std::mem::take(&mut next) {
                if let Some(node) = self.nodes.get(&num).filter(|node| node.depth >= min_depth) {
                    heap.push((node.depth, num));
                }
            }
            let Some((_, num)) = heap.pop() else { break };
            if let Some(node) = self.nodes.get(&num) {
                next.clone_from(&node.prev);
                if node.is_shown {
                    found.push(EventNum(num));
                }
            }
        }
        Ok(found)
    }

    /// Reads events that have their place in the graph, and what the order has just before them.
    async fn look_at(&mut self, nums: &[u32]) -> Result<(), RoomError> {
        let unread = |nums: &[u32], nodes: &BTreeMap<u32, Node>| {
            let unread = nums.iter().filter(|num| !nodes.contains_key(num));
            unread.copied().collect::<Vec<u32>>()
        };
        let wanted = unread(nums, &self.nodes);
        if wanted.is_empty() {
            return Ok(());
        }
        let place = self.read(&wanted).await?;
        if place.is_some() {
            let ahead = self.view.entries(Span {
                before: place,
                ..Span::latest(AHEAD)
            });
            let ahead: Vec<u32> = ahead.await?.iter().map(|(_, entry)| entry.num).collect();
            self.read(&unread(&ahead, &self.nodes)).await?;
        }
        Ok(())
    }

    /// Reads events; the last place that one of them has.
    async fn read(&mut self, nums: &[u32]) -> Result<Option<(i64, i64)>, RoomError> {
        let room = self.view.key();
        let keys: Vec<RoomNum> = nums.iter().map(|num| RoomNum { room, num: *num }).collect();
        let reader = self.view.reader();
        let (headers, statuses) = futures_util::try_join!(
            reader.get_many::<Headers>(&keys),
            reader.get_many::<Statuses>(&keys)
        )?;
        let mut last = None;
        for ((num, header), status) in nums.iter().zip(headers).zip(statuses) {
            let (Some(header), Some(status)) = (header, status) else {
                continue;
            };
            let (header, status) = (header.value, status.value);
            let is_here = match status.verdict {
                Verdict::Accepted => status.place.is_some_and(|(seq, _)| seq <= self.view.seq()),
                Verdict::SoftFailed | Verdict::Rejected => !status.root_before.is_empty(),
                Verdict::Named | Verdict::Outlier => false,
            };
            if !is_here {
                continue;
            }
            last = last.max(status.place);
            let node = Node {
                depth: header.depth,
                prev: header.prev,
                is_shown: status.verdict != Verdict::Rejected,
            };
            self.nodes.insert(*num, node);
        }
        Ok(last)
    }
}
