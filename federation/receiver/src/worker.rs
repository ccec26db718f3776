//! The work on a line: its events go to the rooms' door in the order they came, and what they rest
//! on is fetched where it is missing.
//!
//! One worker a line, for as long as there is something in it. Workers of a room meet at the door,
//! which takes one event at a time and gives the room back in between.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Weak,
    time::Duration,
};

use comity_protocol::{
    event::{Limits, Signed},
    id::{OwnedEventId, OwnedServerName, RoomId},
};
use comity_rooms::{Arrival, Outcome, RoomError, RoomView, Way};
use serde_json::value::RawValue;

use crate::{
    Inner,
    missing::Search,
    staging::Next,
    tables::{InLine, Line},
};

/// Events taken at a time.
const BATCH: usize = 50;
/// How long to wait before something is tried again that the store failed in; doubled each time.
const RETRY: Duration = Duration::from_millis(250);
/// The longest of these waits.
const LONGEST_RETRY: Duration = Duration::from_secs(60);

/// Works on a line until it is empty, or the receiver is gone.
pub(crate) async fn work(receiver: Weak<Inner>, line: Line) {
    let mut after: Option<InLine> = None;
    let mut wait = RETRY;
    while let Some(inner) = receiver.upgrade() {
        match inner.step(&line, &mut after).await {
            Ok(true) => wait = RETRY,
            Ok(false) => return,
            Err(error) => {
                tracing::warn!(%error, "staged events could not be judged");
                drop(inner);
                tokio::time::sleep(wait).await;
                wait = (wait * 2).min(LONGEST_RETRY);
            }
        }
    }
}

impl Inner {
    /// Judges the next events of a line; answers whether there may be more.
    async fn step(&self, line: &Line, after: &mut Option<InLine>) -> Result<bool, RoomError> {
        let next = self.staging.next(line, after.as_ref(), BATCH).await?;
        let (Some(first), Some(last)) = (next.first(), next.last()) else {
            return Ok(!self.staging.end(line).await);
        };
        let last = last.key.clone();
        // Of a room that was left in the meantime nobody here is to see them.
        if let Some(view) = self.room(&first.staged.room_id).await? {
            let events = self.events(&view, &line.origin, &next).await;
            self.judge(&view, &line.origin, events).await?;
        }
        self.staging.done(line, &next).await?;
        *after = Some(last);
        Ok(true)
    }

    /// A room that this server is in.
    async fn room(&self, room_id: &str) -> Result<Option<RoomView>, RoomError> {
        let Ok(room_id) = <&RoomId>::try_from(room_id) else {
            return Ok(None);
        };
        match self.rooms.view(room_id).await {
            Ok(view) if crate::takes_part(&view) => Ok(Some(view)),
            Ok(_) | Err(RoomError::UnknownRoom) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The events as they are to be judged: as they were checked when they came, or checked again
    /// after a restart, or fetched by their id.
    async fn events(
        &self,
        view: &RoomView,
        origin: &OwnedServerName,
        next: &[Next],
    ) -> Vec<Signed> {
        let mut events = Vec::with_capacity(next.len());
        for next in next {
            if let Some(held) = &next.held {
                events.push(held.clone());
                continue;
            }
            let pdu = match &next.staged.json {
                Some(json) => RawValue::from_string(json.clone()).ok(),
                None => {
                    let event_id = comity_protocol::id::event_id(&next.staged.event_id);
                    match event_id {
                        Some(event_id) => self.fetcher.peers.event(origin, &event_id).await.ok(),
                        None => None,
                    }
                }
            };
            let pdus = pdu.into_iter().collect();
            let signed = self
                .fetcher
                .checks
                .signed(view.version(), view.room_id(), Limits::New, pdus)
                .await;
            events.extend(
                signed
                    .into_iter()
                    .filter(|event| event.event().event_id().as_str() == next.staged.event_id),
            );
        }
        events
    }

    /// Brings events to the door until each has its verdict, or what it rests on can't be had.
    async fn judge(
        &self,
        view: &RoomView,
        origin: &OwnedServerName,
        mut events: Vec<Signed>,
    ) -> Result<(), RoomError> {
        let room_id = view.room_id();
        let mut given_up: BTreeSet<OwnedEventId> = BTreeSet::new();
        while !events.is_empty() {
            let arrivals = events.iter().map(|event| Arrival {
                event: event.clone(),
                way: Way::New,
            });
            let outcomes = self.rooms.receive(room_id, arrivals.collect()).await?;
            let mut wanting: BTreeMap<OwnedEventId, _> = outcomes
                .into_iter()
                .filter_map(|(event_id, outcome)| match outcome {
                    Outcome::Wanted(wanted) => Some((event_id, wanted)),
                    Outcome::Settled(_) | Outcome::Refused(_) => None,
                })
                .collect();
            // What follows an event that was given up is given up with it.
            events.retain(|event| {
                let event_id = event.event().event_id();
                let Some(wanted) = wanting.get(event_id) else {
                    return false;
                };
                let hopeless = wanted.prev.iter().any(|id| given_up.contains(id));
                if hopeless {
                    given_up.insert(event_id.to_owned());
                }
                !hopeless
            });
            if events.is_empty() {
                break;
            }
            let first = events.remove(0);
            let event_id = first.event().event_id().to_owned();
            let Some(wanted) = wanting.remove(&event_id) else {
                continue;
            };
            let search = Search::new(&self.fetcher, view.clone(), origin, &first).await?;
            if !search.complete(first, wanted).await? {
                tracing::debug!(%event_id, "what an event rests on can't be had");
                given_up.insert(event_id);
            }
        }
        Ok(())
    }
}
