//! History for a hole: a run of events that ends where the hole begins.
//!
//! What happened long ago is judged by its auth events and by the state before it, not by today's
//! state; it gets its place before the live event that waited for it, and changes neither the end of
//! the graph nor the room's state. A run is one batch: a hole is filled by as much as came, or not.

use std::collections::{BTreeMap, BTreeSet};

use comity_protocol::{
    event::{Event, Signed},
    id::{EventId, OwnedEventId, OwnedServerName, RoomId},
};
use comity_storage::{Home, Range};

use super::{Arrival, Way, order::parents_first};
use crate::{
    change::{Case, Change, Known},
    error::RoomError,
    event::read_id,
    log,
    num::EventNum,
    rooms::Rooms,
    tables::{Gap, Gaps, RoomSeq, Verdict},
    view::{RoomView, Span},
};

/// Events of one run at the most.
const MAX_RUN: usize = 100;

/// A hole in the room's order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hole {
    /// The live event before which it is.
    pub seq: i64,
    /// The latest events that are missing.
    pub missing: Vec<OwnedEventId>,
    /// Servers that may have them.
    pub servers: Vec<OwnedServerName>,
}

/// Events for a hole.
#[derive(Debug, Clone)]
pub struct Run {
    /// The live event before which the hole is.
    pub seq: i64,
    /// The events, in any order: those that the hole misses and what came before them. Others are
    /// not looked at.
    pub events: Vec<Signed>,
    /// The state before the earliest of them, as another server has it; it stands in for parents
    /// that aren't here.
    pub state: Vec<OwnedEventId>,
}

/// What became of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Filled {
    /// So many events have their place now.
    Placed(usize),
    /// These have to come first, as [`Way::Outlier`]; nothing is stored.
    Wanted(Vec<OwnedEventId>),
}

impl Rooms {
    /// Fills a hole with a run of history.
    ///
    /// # Errors
    /// [`RoomError::UnknownRoom`] of a room that we aren't in, and those of the store.
    pub async fn fill(&self, room_id: &RoomId, run: Run) -> Result<Filled, RoomError> {
        let mut change = self.change(room_id).await?;
        let Some(gap) = change.hole(run.seq).await? else {
            return Ok(Filled::Placed(0));
        };
        let filled = Box::pin(change.fill(run, gap)).await?;
        if change.has_moved() {
            change.commit().await?;
        }
        Ok(filled)
    }

    /// The room with what other servers have of the history before a place, if a page of `wanted`
    /// events would come upon a hole and they can be asked. One attempt; without success the room as
    /// it is.
    ///
    /// # Errors
    /// The store can't be read.
    pub async fn with_history(
        &self,
        view: RoomView,
        before: (i64, i64),
        wanted: usize,
    ) -> Result<RoomView, RoomError> {
        let Ok(elsewhere) = self.elsewhere("history is not fetched") else {
            return Ok(view);
        };
        let Some(hole) = view.hole_within(before, wanted).await? else {
            return Ok(view);
        };
        if hole.servers.is_empty() || hole.missing.is_empty() {
            return Ok(view);
        }
        match elsewhere.backfill(view.room_id(), &hole).await {
            Ok(()) => self.view(view.room_id()).await,
            Err(error) => {
                tracing::debug!(room_id = %view.room_id(), %error, "history could not be fetched");
                Ok(view)
            }
        }
    }
}

impl RoomView {
    /// The first live event, going back from `end`, before which history is missing, and after
    /// `after`.
    ///
    /// # Errors
    /// The store can't be read.
    pub async fn last_hole(&self, after: i64, end: (i64, i64)) -> Result<Option<i64>, RoomError> {
        let room = self.key();
        let until = if end.1 == i64::MIN {
            end.0
        } else {
            end.0.saturating_add(1)
        };
        let range = Range::of(Home::Room(room), |key| {
            key.room(room);
        })
        .from(|key| {
            key.i64(after.saturating_add(1));
        })
        .until(|key| {
            key.i64(until.min(self.seq() + 1).max(after.saturating_add(1)));
        });
        let rows = self.reader().scan::<Gaps>(range.reverse().limit(1)).await?;
        Ok(rows.first().map(|(key, _)| key.seq))
    }

    /// The lowest place that history fetched for the hole before a live event has; `None` where there
    /// is no hole (any more).
    pub(crate) async fn lowest_place(&self, seq: i64) -> Result<Option<i64>, RoomError> {
        let room = self.key();
        let gap = self.reader().get::<Gaps>(&RoomSeq { room, seq }).await?;
        Ok(gap.map(|row| row.value.lowest))
    }

    /// The hole that a page of `wanted` events before a place would come upon.
    async fn hole_within(
        &self,
        before: (i64, i64),
        wanted: usize,
    ) -> Result<Option<Hole>, RoomError> {
        let Some(seq) = self.last_hole(0, before).await? else {
            return Ok(None);
        };
        let span = Span {
            after: Some((seq, i64::MIN)),
            before: Some(before),
            unknown_at: None,
            backwards: true,
            limit: wanted,
        };
        if self.entries(span).await?.len() >= wanted {
            return Ok(None);
        }
        let key = RoomSeq {
            room: self.key(),
            seq,
        };
        let Some(gap) = self.reader().get::<Gaps>(&key).await? else {
            return Ok(None);
        };
        let missing = read_ids(&gap.value.missing)?;
        let servers = self.other_servers().await?;
        Ok(Some(Hole {
            seq,
            missing,
            servers,
        }))
    }
}

impl Change {
    async fn fill(&mut self, run: Run, gap: Gap) -> Result<Filled, RoomError> {
        let Run { seq, events, state } = run;
        let missing = read_ids(&gap.missing)?;
        // It is that event's state.
        let earliest = events.iter().map(Signed::event);
        let earliest = earliest.min_by_key(|event| (event.depth(), event.event_id()));
        let earliest = earliest.map(|event| event.event_id().to_owned());
        let events = behind(&missing, events);
        let way = Way::History(state);
        let wanted = self.wanted_by(&events, &way).await?;
        if !wanted.is_empty() {
            return Ok(Filled::Wanted(wanted));
        }
        let mut accepted: BTreeMap<EventNum, Case> = BTreeMap::new();
        let mut order = Vec::new();
        let mut named: BTreeSet<OwnedEventId> = missing.iter().cloned().collect();
        for event in events {
            let is_earliest = earliest.as_deref() == Some(event.event_id());
            let Some(case) = self.judge_past(event, &way, is_earliest).await? else {
                continue;
            };
            named.extend(case.known.event.prev_events().iter().cloned());
            if case.known.verdict == Verdict::Accepted {
                self.take_up(&case.known).await?;
                order.push(case.known.num);
                accepted.insert(case.known.num, case);
            } else {
                self.keep_rows(case).await?;
            }
        }
        self.redact_among(&mut accepted).await?;
        let placed = order.len();
        let lowest = gap.lowest - i64::try_from(placed).unwrap_or(i64::MAX);
        let among: BTreeSet<EventNum> = order.iter().copied().collect();
        for (sub, num) in (lowest..).zip(order) {
            if let Some(case) = accepted.remove(&num) {
                self.accept_past(case, (seq, sub), &among).await?;
            }
        }
        let named: Vec<OwnedEventId> = named.into_iter().collect();
        let still = self.without_place(&named).await?;
        if placed == 0 && still == missing {
            if self.has_moved() {
                // What was rejected has its number.
                self.put_head()?;
            }
            return Ok(Filled::Placed(0));
        }
        self.begin();
        for id in &still {
            let num = self.name(id.as_str()).await?;
            self.mark_followed(&[num], gap.by).await?;
        }
        let left = (!still.is_empty()).then(|| Gap {
            missing: still.iter().map(ToString::to_string).collect(),
            lowest,
            by: gap.by,
        });
        self.set_hole(seq, left).await?;
        self.put_head()?;
        if placed > 0 {
            let fetched = log::Fetched {
                seq,
                lowest,
                end: gap.lowest,
            };
            let room_id = self.room_id()?.to_owned();
            let record = log::record(log::kind::FETCHED, room_id.as_str(), &fetched)?;
            self.batch().log(record);
        }
        Ok(Filled::Placed(placed))
    }

    /// What redactions of a run take back of it.
    async fn redact_among(
        &mut self,
        accepted: &mut BTreeMap<EventNum, Case>,
    ) -> Result<(), RoomError> {
        let redactions: Vec<Known> = accepted
            .values()
            .filter(|case| case.known.event.redacts().is_some())
            .map(|case| case.known.clone())
            .collect();
        for redaction in redactions {
            let Some(target) = redaction.event.redacts() else {
                continue;
            };
            let target = accepted
                .values_mut()
                .find(|case| case.known.event.event_id() == target);
            if let Some(case) = target
                && case.redacted_by.is_none()
                && self.may_redact(&redaction, &case.known.event).await?
            {
                case.redacted_by = Some(redaction.num);
                case.known.event = case.known.event.redact();
            }
        }
        Ok(())
    }

    /// What events of a run need that neither the room nor the run has.
    async fn wanted_by(&self, events: &[Event], way: &Way) -> Result<Vec<OwnedEventId>, RoomError> {
        let given: &[OwnedEventId] = match way {
            Way::History(state) => state,
            _ => &[],
        };
        let among: BTreeSet<&EventId> = events.iter().map(Event::event_id).collect();
        let auth = events.iter().flat_map(|event| event.auth_events());
        let needed: BTreeSet<&OwnedEventId> = auth
            .filter(|id| !among.contains(&***id))
            .chain(given)
            .collect();
        let ids: Vec<String> = needed.iter().map(ToString::to_string).collect();
        let heard = self.heard(&ids).await?;
        let unknown = needed.into_iter().zip(heard).filter(|(_, heard)| {
            let verdict = heard.as_ref().map(crate::change::Heard::verdict);
            verdict.is_none_or(|verdict| verdict == Verdict::Named)
        });
        Ok(unknown.map(|(id, _)| id.clone()).collect())
    }

    /// Those of the events that have no place in the graph, neither stored nor in this change.
    async fn without_place(&self, ids: &[OwnedEventId]) -> Result<Vec<OwnedEventId>, RoomError> {
        let names: Vec<String> = ids.iter().map(ToString::to_string).collect();
        let mut left = Vec::new();
        for (id, heard) in ids.iter().zip(self.heard(&names).await?) {
            let root = heard.map(|heard| heard.root_before()).transpose()?;
            if root.flatten().is_none() {
                left.push(id.clone());
            }
        }
        Ok(left)
    }
}

/// Of a run the events that a hole misses, and those before them; parents first.
fn behind(missing: &[OwnedEventId], events: Vec<Signed>) -> Vec<Event> {
    let arrivals = events.into_iter().map(|event| Arrival {
        event,
        way: Way::New,
    });
    let (ordered, _cyclic) = parents_first(arrivals.collect());
    let ordered: Vec<Event> = ordered
        .into_iter()
        .map(|arrival| arrival.event.into_event())
        .collect();
    let events: BTreeMap<&EventId, &Event> = ordered
        .iter()
        .map(|event| (event.event_id(), event))
        .collect();
    let mut wanted = BTreeSet::new();
    let mut ahead: Vec<&EventId> = missing.iter().map(|id| &**id).collect();
    while let Some(id) = ahead.pop() {
        if let Some(event) = events.get(id)
            && wanted.len() < MAX_RUN
            && wanted.insert(id.to_owned())
        {
            ahead.extend(event.prev_events().iter().map(|id| &**id));
        }
    }
    ordered
        .into_iter()
        .filter(|event| wanted.remove(event.event_id()))
        .collect()
}

fn read_ids(ids: &[String]) -> Result<Vec<OwnedEventId>, RoomError> {
    ids.iter().map(|id| read_id(id)).collect()
}
