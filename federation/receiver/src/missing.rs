//! What an event rests on and isn't here, fetched from those who should have it.
//!
//! First the way back to what we know, by `/get_missing_events`; where that doesn't reach, the state
//! before the oldest of what was found, by `/state_ids`, and the events of it, by `/state` if they
//! are many and one by one if they are few; auth events likewise. All of it is bounded in number and
//! time, whatever the answers say (threats D7, D8), and only what the event does rest on is kept: an
//! answer that is stuffed with other events adds nothing.
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#backfilling-and-retrieving-missing-events>

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use comity_federation_client::{PeerError, Peers};
use comity_protocol::{
    event::{Limits, Signed},
    id::{EventId, OwnedEventId, OwnedServerName, RoomId, ServerName},
};
use comity_rooms::{
    Arrival, Filled, Hole, Outcome, RoomError, RoomView, Rooms, Run, Wanted, Way, num::EventNum,
};
use futures_util::{StreamExt, stream};
use parking_lot::Mutex;
use serde_json::value::RawValue;
use tokio::time::{Instant, timeout_at};

use crate::{Checks, Entering, policy::Words};

/// Ancestors fetched for one event (D8).
const ANCESTORS: usize = 1_024;
/// Bytes of them kept until they reach what we know.
const ANCESTOR_BYTES: usize = 16 << 20;
/// Ancestors asked for at a time; most servers answer with 20 at most.
const AT_A_TIME: usize = 100;
/// Answers awaited on the way back: a server that gives little at a time may not keep us for long (D8).
const ROUNDS: usize = 12;
/// Events without known parents whose state is asked for, for one event.
const ENDS: usize = 10;
/// Extremities of ours, and events of theirs, named in a request.
const NAMED: usize = 20;
/// Events of a state that another server may claim.
pub(crate) const STATE: usize = 200_000;
/// Events of state and auth chains fetched one by one, for one event.
const SINGLY: usize = 256;
/// So many missing events of a state are fetched one by one; of more, the whole state is.
const FEW: usize = 32;
/// Requests for single events under way at a time.
const PARALLEL: usize = 8;
/// Servers asked, and those of whom they are chosen.
const SERVERS: usize = 4;
const CANDIDATES: usize = 100;
/// How long the search for one event may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// Fetches what rooms lack. Cheap to clone.
#[derive(Clone)]
pub struct Fetcher {
    /// Whom to ask.
    pub peers: Peers,
    /// What passes for an answer.
    pub checks: Checks,
    /// The rooms that are being entered.
    pub entering: Entering,
}

/// A search for what is missing in one place of a room.
pub(crate) struct Search<'a> {
    fetcher: &'a Fetcher,
    view: RoomView,
    /// Whom to ask, in this order.
    servers: Vec<OwnedServerName>,
    pub(crate) until: Instant,
    /// Single events that may still be fetched.
    singly: usize,
    /// Whether this is tried again, so that a state which may be had whole later isn't taken as it is.
    is_patient: bool,
    /// Servers that gave no answer when they were asked for the keys by which events were signed.
    unheard: Mutex<BTreeSet<OwnedServerName>>,
    /// Whether events weren't looked at for load.
    times_busy: AtomicU32,
    /// What policy servers said of them.
    words: Arc<Words>,
}

/// Events by their ids.
pub(crate) type Events = BTreeMap<OwnedEventId, Signed>;

impl<'a> Search<'a> {
    /// A search for what an event rests on. It asks the server it came from first, then the one that
    /// made the event, then others in the room; who hasn't answered lately comes last.
    pub async fn new(
        fetcher: &'a Fetcher,
        view: RoomView,
        origin: &ServerName,
        event: &Signed,
    ) -> Result<Self, RoomError> {
        let sender = event.event().sender().server_name().to_owned();
        let others = view.servers().await?;
        let servers = [origin.to_owned(), sender].into_iter().chain(others);
        // Those that answer first.
        let (mut there, mut away) = (Vec::new(), Vec::new());
        for server in servers.take(CANDIDATES) {
            let backoff = fetcher.peers.backoff();
            match backoff.until(&server).await? {
                None => there.push(server),
                Some(_) => away.push(server),
            }
        }
        there.append(&mut away);
        Ok(Self::among(fetcher, view, there))
    }

    pub(crate) fn among(
        fetcher: &'a Fetcher,
        view: RoomView,
        candidates: impl IntoIterator<Item = OwnedServerName>,
    ) -> Self {
        let mut servers = Vec::new();
        for server in candidates {
            let is_new = !servers.contains(&server) && server != view.rooms().server_name();
            if is_new && servers.len() < SERVERS {
                servers.push(server);
            }
        }
        Self {
            fetcher,
            view,
            servers,
            until: Instant::now() + PATIENCE,
            singly: SINGLY,
            is_patient: false,
            unheard: Mutex::default(),
            times_busy: AtomicU32::default(),
            words: Arc::default(),
        }
    }

    /// The same for an event that is tried again, if it is; with what was said already.
    pub fn patient(self, is_patient: bool, words: Arc<Words>) -> Self {
        Self {
            is_patient,
            words,
            ..self
        }
    }

    /// Fetches what the event rests on and brings it, then the event, to the door. Answers whether
    /// the event has its verdict now.
    pub async fn complete(mut self, event: Signed, wanted: Wanted) -> Result<bool, RoomError> {
        let event_id = event.event().event_id().to_owned();
        let mut have = Events::from([(event_id.clone(), event)]);
        if !wanted.prev.is_empty() {
            self.ancestors(wanted.prev, &mut have).await?;
        }
        for _ in 0..=ENDS {
            let wanting = self.bring(&mut have, &Way::New).await?;
            if !have.contains_key(&event_id) {
                return Ok(true);
            }
            let lacks_auth = |id: &&OwnedEventId| !have.contains_key(*id);
            let auth = wanting.iter().find_map(|(id, wanted)| {
                let absent: BTreeSet<_> = wanted.auth.iter().filter(lacks_auth).cloned().collect();
                (!absent.is_empty()).then(|| (id.clone(), absent))
            });
            if let Some((wanting, absent)) = auth {
                if self.auth_events(&wanting, absent).await? == 0 {
                    return Ok(false);
                }
                continue;
            }
            // What we have of the way back begins with this event: its state says what came before.
            let is_end = |wanted: &Wanted| wanted.prev.iter().any(|id| !have.contains_key(id));
            let end = wanting.iter().find(|(_, wanted)| is_end(wanted));
            let Some(end) = end.and_then(|(id, _)| have.remove(id)) else {
                return Ok(false);
            };
            let is_last = end.event().event_id() == event_id;
            let is_in = self.beyond(end).await?;
            if is_last || !is_in {
                return Ok(is_in);
            }
        }
        Ok(false)
    }

    /// The way back from the one event at hand to what we know, as far as it can be had.
    async fn ancestors(
        &mut self,
        missing: Vec<OwnedEventId>,
        have: &mut Events,
    ) -> Result<(), RoomError> {
        let earliest = self.extremities().await?;
        let mut missing: BTreeSet<OwnedEventId> = missing.into_iter().collect();
        let (mut left, mut bytes, mut rounds) = (ANCESTORS, 0, ROUNDS);
        let (peers, room_id) = (&self.fetcher.peers, self.view.room_id());
        for server in &self.servers {
            while !missing.is_empty() && left > 0 && rounds > 0 && bytes < ANCESTOR_BYTES {
                rounds -= 1;
                let latest = ends(have, &missing);
                let limit = left.min(AT_A_TIME);
                let request = peers.missing_events(server, room_id, &earliest, &latest, limit, 0);
                let Some(pdus) = self.answer(request).await else {
                    break;
                };
                let answered = self.signed(pdus, limit, Limits::New).await;
                let mut found = descended_from(&missing, answered, have);
                if found.is_empty() {
                    break;
                }
                left = left.saturating_sub(found.len());
                missing.retain(|id| !found.contains_key(id));
                let wanting = self.bring(&mut found, &Way::New).await?;
                bytes += found.values().map(size).sum::<usize>();
                have.append(&mut found);
                let wanted = wanting.into_values().flat_map(|wanted| wanted.prev);
                missing.extend(wanted.filter(|id| !have.contains_key(id)));
            }
        }
        Ok(())
    }

    /// Brings an event with the state that a server says the room had before it.
    async fn beyond(&mut self, end: Signed) -> Result<bool, RoomError> {
        let event_id = end.event().event_id().to_owned();
        for server in self.servers.clone() {
            let times_busy = self.times_busy.load(Ordering::Relaxed);
            let request = (self.fetcher.peers).state_ids(&server, self.view.room_id(), &event_id);
            let Some(ids) = self.answer(request).await else {
                continue;
            };
            let state: BTreeSet<OwnedEventId> = ids.pdu_ids.into_iter().take(STATE).collect();
            let Some(mut missing) = self.missing_with(&end, &state).await? else {
                return Ok(true);
            };
            // Few are fetched one by one; what isn't handed out so, to whom the event puts out, is part of the state all the same.
            let ways: &[bool] = if missing.len() > FEW {
                &[true]
            } else {
                &[false, true]
            };
            for whole in ways {
                let at_hand = if *whole {
                    self.whole_state(&server, &event_id).await
                } else {
                    Events::new()
                };
                self.outliers(missing, at_hand).await?;
                let Some(still) = self.missing_with(&end, &state).await? else {
                    return Ok(true);
                };
                missing = still;
            }
            // What of this server's wasn't looked at would be left out for good.
            let was_busy = self.times_busy.load(Ordering::Relaxed) != times_busy;
            if was_busy || (self.is_patient && self.may_be_had_later().await?) {
                continue;
            }
            // What can't be had is no state for us, nor has ours to shrink for it (D5).
            let state = state.difference(&missing).cloned().collect();
            if self.missing_with(&end, &state).await?.is_none() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Fetches what comes before a hole.
    async fn fill(mut self, hole: &Hole) -> Result<(), RoomError> {
        let missing: Vec<OwnedEventId> = hole.missing.iter().take(NAMED).cloned().collect();
        for server in self.servers.clone() {
            let room_id = self.view.room_id();
            let request = (self.fetcher.peers).backfill(&server, room_id, &missing, AT_A_TIME);
            let Some(pdus) = self.answer(request).await else {
                continue;
            };
            let events = self.signed(pdus, AT_A_TIME, Limits::Past).await;
            let Some(earliest) = events.values().min_by_key(|event| event.event().depth()) else {
                continue;
            };
            let earliest = earliest.event();
            let mut state = Vec::new();
            if !earliest.is_state("m.room.create", "") {
                let request = (self.fetcher.peers).state_ids(&server, room_id, earliest.event_id());
                let Some(ids) = self.answer(request).await else {
                    continue;
                };
                state.extend(ids.pdu_ids.into_iter().take(STATE));
            }
            let earliest = earliest.event_id().to_owned();
            let mut run = Run {
                seq: hole.seq,
                events: events.into_values().collect(),
                state,
            };
            let rooms = self.view.rooms().clone();
            let room_id = self.view.room_id().to_owned();
            for attempt in 0..3 {
                let wanted = match rooms.fill(&room_id, run.clone()).await? {
                    Filled::Placed(0) => break,
                    Filled::Placed(_) => return Ok(()),
                    Filled::Wanted(wanted) => wanted.into_iter().collect::<BTreeSet<_>>(),
                };
                if attempt == 0 {
                    let chain = self.state_if_many(&server, &earliest, &wanted).await;
                    self.outliers(wanted, chain).await?;
                } else {
                    run.state.retain(|id| !wanted.contains(id));
                }
            }
        }
        Ok(())
    }

    /// The whole state before an event, if so much of it is missing that it is worth the while.
    pub(crate) async fn state_if_many(
        &self,
        server: &ServerName,
        event_id: &EventId,
        missing: &BTreeSet<OwnedEventId>,
    ) -> Events {
        if missing.len() <= FEW {
            return Events::new();
        }
        self.whole_state(server, event_id).await
    }

    /// Whether events weren't looked at for load.
    pub(crate) fn was_busy(&self) -> bool {
        self.times_busy.load(Ordering::Relaxed) > 0
    }

    /// Whether events couldn't be checked that may be later.
    pub(crate) async fn may_be_had_later(&self) -> Result<bool, RoomError> {
        if self.was_busy() {
            return Ok(true);
        }
        let unheard = self.unheard.lock().clone();
        Ok(self.fetcher.may_tell_keys(&unheard).await?)
    }

    async fn whole_state(&self, server: &ServerName, event_id: &EventId) -> Events {
        let request = (self.fetcher.peers).state(server, self.view.room_id(), event_id);
        let answer = self.answer(request).await;
        let pdus = answer.map(|state| [state.pdus, state.auth_chain].concat());
        self.past(pdus.unwrap_or_default()).await
    }

    /// Brings an event with a state before it; what of it isn't here, or `None` once the event has
    /// its verdict.
    async fn missing_with(
        &self,
        end: &Signed,
        state: &BTreeSet<OwnedEventId>,
    ) -> Result<Option<BTreeSet<OwnedEventId>>, RoomError> {
        let way = Way::Beyond(state.iter().cloned().collect());
        let mut events = Events::from([(end.event().event_id().to_owned(), end.clone())]);
        let wanting = self.bring(&mut events, &way).await?;
        let wanted = wanting.into_values().next();
        Ok(wanted.map(|wanted| wanted.auth.into_iter().collect()))
    }

    /// Fetches auth events that an event lacks, with theirs; how many came in.
    async fn auth_events(
        &mut self,
        event_id: &EventId,
        missing: BTreeSet<OwnedEventId>,
    ) -> Result<usize, RoomError> {
        let mut chain = Events::new();
        for server in &self.servers {
            let request = (self.fetcher.peers).event_auth(server, self.view.room_id(), event_id);
            if let Some(pdus) = self.answer(request).await {
                chain = self.past(pdus).await;
                break;
            }
        }
        self.outliers(missing, chain).await
    }

    /// Brings these events as outliers, with what they rest on: from what is at hand, else fetched
    /// one by one. How many came in that were lacking.
    pub(crate) async fn outliers(
        &mut self,
        mut wanted: BTreeSet<OwnedEventId>,
        mut at_hand: Events,
    ) -> Result<usize, RoomError> {
        // Each is brought until it has its verdict and no more: what rests on something that nobody has would bring it for ever.
        let (mut done, mut lacked) = (BTreeSet::new(), wanted.clone());
        loop {
            let is_absent = |id: &&OwnedEventId| !at_hand.contains_key(*id) && !done.contains(*id);
            let absent = wanted.iter().filter(is_absent);
            let mut fetched = self.singly(absent.cloned().collect()).await;
            let nothing_new = fetched.is_empty();
            at_hand.append(&mut fetched);
            let mut needed = needed_for(&wanted, &at_hand);
            let ids: Vec<OwnedEventId> = needed.keys().cloned().collect();
            let wanting = self.bring(&mut needed, &Way::Outlier).await?;
            let before = done.len();
            for id in ids.into_iter().filter(|id| !needed.contains_key(id)) {
                at_hand.remove(&id);
                done.insert(id);
            }
            wanted = wanting.into_values().flat_map(|w| w.auth).collect();
            if wanted.is_empty() || (nothing_new && done.len() == before) {
                return Ok(done.intersection(&lacked).count());
            }
            lacked.extend(wanted.iter().cloned());
            wanted.extend(needed.into_keys());
        }
    }

    /// These events, as far as someone has them and they are what they are said to be.
    async fn singly(&mut self, ids: Vec<OwnedEventId>) -> Events {
        let most = ids.len().min(self.singly);
        self.singly -= most;
        let this = &*self;
        let fetches = ids.into_iter().take(most).map(|id| async move {
            for server in &this.servers {
                let request = this.fetcher.peers.event(server, &id);
                let Some(pdu) = this.answer(request).await else {
                    continue;
                };
                let mut signed = this.past(vec![pdu]).await;
                if let Some(found) = signed.remove_entry(&id) {
                    return Some(found);
                }
            }
            None
        });
        let fetched = stream::iter(fetches).buffered(PARALLEL);
        fetched.filter_map(std::future::ready).collect().await
    }

    /// Brings events to the door; takes out those that have their verdict or are refused, and
    /// answers what the others lack.
    async fn bring(
        &self,
        events: &mut Events,
        way: &Way,
    ) -> Result<BTreeMap<OwnedEventId, Wanted>, RoomError> {
        let mut arrivals: Vec<Arrival> = events
            .values()
            .map(|event| Arrival {
                event: event.clone(),
                way: way.clone(),
            })
            .collect();
        // Of those that don't rest on each other the older come first.
        arrivals.sort_by_key(|arrival| arrival.event.event().depth());
        let (rooms, room_id) = (self.view.rooms(), self.view.room_id());
        let until = Some(self.until);
        let came = (self.fetcher).bring(rooms, room_id, arrivals, &self.words, until);
        let outcomes = Box::pin(came).await?;
        let mut wanting = BTreeMap::new();
        for (event_id, outcome) in outcomes {
            match outcome {
                Outcome::Wanted(wanted) => drop(wanting.insert(event_id, wanted)),
                Outcome::Settled(_) | Outcome::Unasked(_) | Outcome::Refused(_) => {
                    drop(events.remove(&event_id));
                }
            }
        }
        Ok(wanting)
    }

    /// The ends of the graph as we have it.
    async fn extremities(&self) -> Result<Vec<OwnedEventId>, RoomError> {
        let ends = &self.view.head().extremities;
        let nums: Vec<_> = ends.iter().take(NAMED).map(|num| EventNum(*num)).collect();
        let found = self.view.load(&nums).await?;
        let ids = found.iter().map(|found| found.event.event_id().to_owned());
        Ok(ids.collect())
    }

    async fn signed(&self, mut pdus: Vec<Box<RawValue>>, most: usize, limits: Limits) -> Events {
        pdus.truncate(most);
        let (version, room_id) = (self.view.version(), self.view.room_id());
        let checks = &self.fetcher.checks;
        let checked = checks.checked(version, room_id, limits, pdus).await;
        let unheard = checked.unheard.into_iter().map(|(_, server)| server);
        self.unheard.lock().extend(unheard);
        let times = u32::from(checked.is_busy);
        self.times_busy.fetch_add(times, Ordering::Relaxed);
        let signed = checked.signed.into_iter();
        signed
            .map(|event| (event.event().event_id().to_owned(), event))
            .collect()
    }

    /// Events of the room's past.
    async fn past(&self, pdus: Vec<Box<RawValue>>) -> Events {
        self.signed(pdus, STATE, Limits::Past).await
    }

    /// An answer, if it comes in time.
    pub(crate) async fn answer<T>(
        &self,
        request: impl Future<Output = Result<T, PeerError>>,
    ) -> Option<T> {
        match timeout_at(self.until, request).await {
            Ok(Ok(answer)) => Some(answer),
            Ok(Err(error)) => {
                tracing::debug!(%error, "an event's ancestry could not be had");
                None
            }
            Err(_) => None,
        }
    }
}

impl Fetcher {
    /// Fetches the history that a hole in a room's order stands for, as much as comes at a time.
    ///
    /// <https://spec.matrix.org/v1.19/server-server-api/#backfilling-and-retrieving-missing-events>
    ///
    /// # Errors
    /// The rooms'; that nothing could be had is none.
    pub async fn backfill(
        &self,
        rooms: &Rooms,
        room_id: &RoomId,
        hole: &Hole,
    ) -> Result<(), RoomError> {
        let view = rooms.view(room_id).await?;
        let search = Search::among(self, view, hole.servers.iter().cloned());
        search.fill(hole).await
    }
}

fn size(event: &Signed) -> usize {
    event.event().json().len()
}

/// Those of our events that rest on something missing, as many as a request may name.
fn ends(have: &Events, missing: &BTreeSet<OwnedEventId>) -> Vec<OwnedEventId> {
    have.iter()
        .filter(|(_, event)| {
            let mut prev = event.event().prev_events().iter();
            prev.any(|id| missing.contains(id))
        })
        .map(|(id, _)| id.clone())
        .take(NAMED)
        .collect()
}

/// What of an answer was asked for: the missing events, and what they rest on.
fn descended_from(missing: &BTreeSet<OwnedEventId>, mut answered: Events, have: &Events) -> Events {
    let mut found = Events::new();
    let mut wanted: VecDeque<OwnedEventId> = missing.iter().cloned().collect();
    while let Some(id) = wanted.pop_front() {
        let Some(event) = answered.remove(&id) else {
            continue;
        };
        if !have.contains_key(&id) {
            wanted.extend(event.event().prev_events().iter().cloned());
            found.insert(id, event);
        }
    }
    found
}

/// These events and what they are authorised by, as far as it is at hand.
fn needed_for(wanted: &BTreeSet<OwnedEventId>, at_hand: &Events) -> Events {
    let mut needed = Events::new();
    let mut next: Vec<&OwnedEventId> = wanted.iter().collect();
    while let Some(id) = next.pop() {
        if let (Some(event), false) = (at_hand.get(id), needed.contains_key(id)) {
            needed.insert(id.clone(), event.clone());
            next.extend(event.event().auth_events());
        }
    }
    needed
}
