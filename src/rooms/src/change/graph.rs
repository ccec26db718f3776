//! The forward end of the graph: what our next event follows, what an accepted event changes.

use std::collections::BTreeSet;

use comity_protocol::event::{MAX_PREV_EVENTS, Reference};

use super::{Change, fork::Difference, place::Case};
use crate::{
    error::RoomError,
    live::Tip,
    num::EventNum,
    state::AnyRoot,
    tables::{self, RoomNum, Verdict},
};

/// Extremities at the most. A fork beyond is kept as if soft-failed: what a server can make others
/// resolve with each event has to end somewhere (threat D11).
pub(super) const FORKS: usize = 1_000;
/// Events looked at on the way from an event to the extremities it covers.
const BEHIND: usize = 1_000;

impl Change {
    /// What our next event follows, and the state before it: all extremities and the room's state,
    /// unless there are more than an event may have parents.
    pub(super) async fn tips(&mut self) -> Result<(Vec<Tip>, AnyRoot), RoomError> {
        let live = self.live()?;
        let chosen = chosen(&live.head.extremities);
        let all = chosen.len() == live.head.extremities.len();
        let cached = live.tips.iter().map(|tip| tip.num);
        let tips = if cached.eq(chosen.iter().copied()) {
            live.tips.clone()
        } else {
            let tip = |known: super::Known| Tip {
                num: known.num,
                reference: Reference::to(&known.event),
            };
            let tips: Vec<Tip> = self.known(&chosen).await?.into_iter().map(tip).collect();
            self.live_mut()?.tips.clone_from(&tips);
            tips
        };
        let root = if all {
            self.live()?.root
        } else {
            let roots = self.after(&chosen).await?;
            self.resolve(&roots).await?
        };
        Ok((tips, root))
    }

    /// Takes an accepted event into the graph: the extremities and the room's state after it. Says
    /// where the state differs now.
    pub(super) async fn advance(&mut self, case: &Case) -> Result<Difference, RoomError> {
        let event = &case.known;
        let after = self.state_after(event).await?;
        let extremities = self
            .extremities_with(event, case.followed, case.is_past)
            .await?;
        let live = self.live_mut()?;
        live.after.insert(event.num, after);
        let old = live.root;
        let alone = extremities == [event.num];
        let root = if alone {
            after
        } else {
            let roots = self.after(&extremities).await?;
            self.resolve(&roots).await?
        };
        let difference = if root == old {
            Difference::new()
        } else {
            self.difference(old, root).await?
        };
        let live = self.live_mut()?;
        live.root_changed |= root != old;
        live.root = root;
        live.head.root = root.encode();
        live.head.extremities = extremities.iter().map(|num| num.0).collect();
        let depth = event.event.depth();
        live.head.depth = if alone {
            live.tips = vec![Tip {
                num: event.num,
                reference: Reference::to(&event.event),
            }];
            depth
        } else {
            live.head.depth.max(depth)
        };
        Ok(difference)
    }

    /// Whether the room has as many forks as it may, and this event is one more.
    pub(crate) fn is_fork_too_many(&self, prev: &[EventNum]) -> Result<bool, RoomError> {
        let extremities = &self.live()?.head.extremities;
        let follows_one = prev.iter().any(|num| extremities.contains(&num.0));
        Ok(extremities.len() >= FORKS && !follows_one)
    }

    /// The extremities when this event is accepted, in the order in which they came. It covers
    /// those it follows, also by way of events that aren't part of the room. If others are known to
    /// follow it, all stay: what followed it was placed on the state that another server claimed,
    /// and must not come to stand alone for having its parents filled in (threat D5). Not so before our own time: there was no other state
    /// than the one that we came in with, and what is fetched of the past, oldest first, ends where that began.
    async fn extremities_with(
        &self,
        event: &super::Known,
        followed: bool,
        is_past: bool,
    ) -> Result<Vec<EventNum>, RoomError> {
        let mut left: Vec<EventNum> = self
            .live()?
            .head
            .extremities
            .iter()
            .copied()
            .map(EventNum)
            .collect();
        // A room that is entered anew begins with the join, whatever is known to follow that from an earlier stay.
        if left.is_empty() {
            return Ok(vec![event.num]);
        }
        if followed && !is_past {
            return Ok(left);
        }
        let mut seen = BTreeSet::from([event.num]);
        let mut ahead = event.prev.clone();
        while !ahead.is_empty() && seen.len() < BEHIND {
            ahead.retain(|num| seen.insert(*num));
            let inner: Vec<EventNum> = ahead
                .iter()
                .filter(|num| !left.contains(num))
                .copied()
                .collect();
            left.retain(|num| !ahead.contains(num));
            ahead = self.behind_unaccepted(&inner).await?;
        }
        if !followed {
            left.push(event.num);
        }
        Ok(left)
    }

    /// The parents of those among these events that have their place and aren't accepted.
    async fn behind_unaccepted(&self, events: &[EventNum]) -> Result<Vec<EventNum>, RoomError> {
        let live = self.live()?;
        let (room, reader) = (live.room, live.reader());
        let at: Vec<RoomNum> = events
            .iter()
            .filter(|num| !self.in_hand.contains_key(num))
            .map(|num| RoomNum { room, num: num.0 })
            .collect();
        let in_hand = events.iter().filter_map(|num| self.in_hand.get(num));
        let in_hand = in_hand.filter(|known| is_unaccepted(known.verdict));
        let in_hand: Vec<EventNum> = in_hand.flat_map(|known| known.prev.clone()).collect();
        let statuses = reader.get_many::<tables::Statuses>(&at).await?;
        let unaccepted: Vec<RoomNum> = at
            .into_iter()
            .zip(statuses)
            .filter(|(_, status)| {
                let status = status.as_ref();
                status.is_some_and(|row| is_unaccepted(row.value.verdict))
            })
            .map(|(at, _)| at)
            .collect();
        let headers = reader.get_many::<tables::Headers>(&unaccepted).await?;
        Ok(headers
            .into_iter()
            .flatten()
            .flat_map(|row| row.value.prev)
            .map(EventNum)
            .chain(in_hand)
            .collect())
    }
}

fn is_unaccepted(verdict: Verdict) -> bool {
    matches!(verdict, Verdict::Rejected | Verdict::SoftFailed)
}

/// The parents of our next event: where there are too many extremities, those that wait longest and
/// the latest. Depth has no say, since its sender chooses it.
fn chosen(extremities: &[u32]) -> Vec<EventNum> {
    let half = MAX_PREV_EVENTS / 2;
    let latest = extremities.len().saturating_sub(half);
    let wanted = |at: usize| extremities.len() <= MAX_PREV_EVENTS || at < half || at >= latest;
    let chosen = extremities.iter().enumerate().filter(|(at, _)| wanted(*at));
    chosen.map(|(_, num)| EventNum(*num)).collect()
}
