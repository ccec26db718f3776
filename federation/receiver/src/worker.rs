//! The work on a line: its events go to the rooms' door in the order they came, and what they rest
//! on is fetched where it is missing.
//!
//! One worker a line, for as long as there is something in it. Workers of a room meet at the door,
//! which takes one event at a time and gives the room back in between. What can't be had holds up
//! nothing: its event [waits](crate::waiting).

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Weak},
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
    policy::Words,
    tables::{InLine, Line, Staged},
};

/// Events taken at a time.
const BATCH: usize = 50;
/// How long to wait before something is tried again that the store failed in; doubled each time.
const RETRY: Duration = Duration::from_millis(250);
/// The longest of these waits.
const LONGEST_RETRY: Duration = Duration::from_secs(60);

/// What a staged event is now.
enum Checkable {
    /// As it was checked.
    Now(Signed),
    /// It can't be had, or be checked.
    Later,
    /// None of this room.
    Never,
}

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
    async fn step(
        self: &Arc<Self>,
        line: &Line,
        after: &mut Option<InLine>,
    ) -> Result<bool, RoomError> {
        let next = self.staging.next(line, after.as_ref(), BATCH).await?;
        let (Some(first), Some(last)) = (next.first(), next.last()) else {
            return Ok(!self.staging.end(line).await);
        };
        let last = last.key.clone();
        // Of a room that isn't heard any more nobody here is to see them.
        if let Some(view) = self.room(&first.staged.room_id).await? {
            let events = next.iter().map(|next| (&next.staged, next.held.clone()));
            let wanting = self.judge(&view, &line.origin, events, true).await?;
            let staged = next.iter().map(|next| &next.staged);
            let waits = staged.filter(|staged| wanting.contains(&staged.event_id));
            self.let_wait(line, waits.cloned().collect()).await?;
        }
        self.staging.done(line, &next).await?;
        *after = Some(last);
        Ok(true)
    }

    /// Events of a line that rest on what can't be had now; the others go on.
    async fn let_wait(self: &Arc<Self>, line: &Line, events: Vec<Staged>) -> Result<(), RoomError> {
        if !events.is_empty() && self.waiting.add(line.room, &line.origin, events).await? {
            self.begin_waiting(line.room);
        }
        Ok(())
    }

    /// A room whose events are news here.
    pub(crate) async fn room(&self, room_id: &str) -> Result<Option<RoomView>, RoomError> {
        let Ok(room_id) = <&RoomId>::try_from(room_id) else {
            return Ok(None);
        };
        match self.rooms.view(room_id).await {
            Ok(view) if view.head().is_heard() => Ok(Some(view)),
            Ok(_) | Err(RoomError::UnknownRoom) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// An event as it is to be judged, checked again after a restart or a wait, or fetched by its id.
    async fn event(&self, view: &RoomView, origin: &OwnedServerName, staged: &Staged) -> Checkable {
        let pdu = match &staged.json {
            Some(json) => RawValue::from_string(json.clone()).ok(),
            None => match comity_protocol::id::event_id(&staged.event_id) {
                Some(event_id) => match self.fetcher.peers.event(origin, &event_id).await {
                    Ok(pdu) => Some(pdu),
                    Err(_) => return Checkable::Later,
                },
                None => None,
            },
        };
        let pdus = pdu.into_iter().collect();
        let checks = &self.fetcher.checks;
        let checked = checks.checked(view.version(), view.room_id(), Limits::New, pdus);
        let mut checked = checked.await;
        let is_it = |event: &Signed| event.event().event_id().as_str() == staged.event_id;
        match checked.signed.pop().filter(is_it) {
            Some(event) => Checkable::Now(event),
            // It was acknowledged, so that nobody will send it again.
            None if checked.is_busy || !checked.unheard.is_empty() => Checkable::Later,
            None => Checkable::Never,
        }
    }

    /// Brings events that a server sent to the door, until each has its verdict or is known to rest on
    /// what can't be had; the ids of these. Those are tried again, and whole states waited for, while it `is_patient`.
    pub(crate) async fn judge(
        &self,
        view: &RoomView,
        origin: &OwnedServerName,
        staged: impl Iterator<Item = (&Staged, Option<Signed>)>,
        is_patient: bool,
    ) -> Result<BTreeSet<String>, RoomError> {
        let mut wanting = BTreeSet::new();
        let mut events = Vec::new();
        for (staged, held) in staged {
            let event = match held {
                Some(event) => Checkable::Now(event),
                None => self.event(view, origin, staged).await,
            };
            match event {
                Checkable::Now(event) => events.push(event),
                Checkable::Later => drop(wanting.insert(staged.event_id.clone())),
                Checkable::Never => {}
            }
        }
        let given_up = self.settle(view, origin, events, is_patient).await?;
        wanting.extend(given_up.into_iter().map(|id| id.to_string()));
        Ok(wanting)
    }

    async fn settle(
        &self,
        view: &RoomView,
        origin: &OwnedServerName,
        mut events: Vec<Signed>,
        is_patient: bool,
    ) -> Result<BTreeSet<OwnedEventId>, RoomError> {
        let room_id = view.room_id();
        let mut given_up: BTreeSet<OwnedEventId> = BTreeSet::new();
        let words = Arc::<Words>::default();
        while !events.is_empty() {
            let arrivals = events.iter().map(|event| Arrival {
                event: event.clone(),
                way: Way::New,
            });
            let arrivals = arrivals.collect();
            let came = (self.fetcher).bring(&self.rooms, room_id, arrivals, &words, None);
            let outcomes = Box::pin(came).await?;
            let mut wanting: BTreeMap<OwnedEventId, _> = outcomes
                .into_iter()
                .filter_map(|(event_id, outcome)| match outcome {
                    Outcome::Wanted(wanted) => Some((event_id, wanted)),
                    Outcome::Settled(_) | Outcome::Unasked(_) | Outcome::Refused(_) => None,
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
            let _turn = self.searches.turn(origin).await;
            let search = Search::new(&self.fetcher, view.clone(), origin, &first).await?;
            let search = search.patient(is_patient, words.clone());
            if !search.complete(first, wanted).await? {
                tracing::debug!(%event_id, "what an event rests on can't be had");
                given_up.insert(event_id);
            }
        }
        Ok(given_up)
    }
}
