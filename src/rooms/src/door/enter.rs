//! Entering a room that another server has let us into: the answer to our `send_join`.
//!
//! The state is somebody's claim, and may be large; or it comes without its members, and is partial until
//! they have come ([`super::complete`]). Its events come in as every outlier does, each by
//! the events that authorise it, in batches that nobody sees: until the last one the room is what it
//! was before, unknown or left. What isn't allowed, is another room's, or rests on a cycle is passed
//! over (threat C5); without the room's own create event there is nothing to enter. What only can't be
//! checked yet is waited for in the room, whose state is partial too until then: a state that lacked it
//! would be another than the others' for good. The last batch
//! places the join on the state that is left, and opens a hole before it, for what came earlier.
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#joining-rooms>

use std::collections::{BTreeMap, BTreeSet};

use comity_protocol::{
    auth::{AuthEntry, AuthState, check_auth, check_auth_events},
    event::{Event, Signed},
    id::{OwnedEventId, OwnedServerName, RoomId, create_event_of_room},
    room_version::RoomVersion,
};
use comity_storage::{Expect, Home, RoomKey};

use super::order::authority_first;
use crate::{
    change::{Change, Heard, Known, Placed, fact_of},
    error::RoomError,
    live::{Fact, Live},
    log,
    num::EventNum,
    rooms::Rooms,
    state::AnyRoot,
    tables::{self, FollowedBy, InRoom, Info, Mode, Verdict},
};

/// Events stored in one batch.
const CHUNK: usize = 500;

/// What a server answered when it let a user of ours in.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The room's version.
    pub version: RoomVersion,
    /// The join, as it is part of the room.
    pub join: Signed,
    /// The state before it.
    pub state: Vec<Signed>,
    /// The events that these rest on.
    pub auth_chain: Vec<Signed>,
    /// Where the state isn't whole, since members were left out of it or some of it couldn't be checked
    /// yet: the servers said to be in the room, the one that answered first. The room is partial then,
    /// until it is completed ([`Rooms::complete_state`]).
    pub omitted: Option<Vec<OwnedServerName>>,
    /// Events of the state that couldn't be checked, for nobody told the keys that signed them;
    /// memberships needn't be named.
    pub unchecked: Vec<OwnedEventId>,
}

/// What came of an entry.
#[derive(Debug)]
pub enum Entered {
    /// The room is ours by this join.
    Placed(Placed),
    /// It was ours already. There the join is news, to be received as others are.
    Before(Signed),
}

/// The events of an entry that were stored, by their ids.
#[derive(Default)]
struct Taken {
    events: BTreeMap<OwnedEventId, Known>,
    facts: BTreeMap<EventNum, Fact>,
    create: Option<OwnedEventId>,
}

impl Rooms {
    /// Makes a room ours by the answer to a join of a user of ours, unless it is ours already.
    ///
    /// # Errors
    /// [`RoomError::Invalid`] for an answer that makes no room, [`RoomError::Rejected`] where the join
    /// isn't allowed by the state that came with it. Nothing of the room is seen then.
    pub async fn enter(&self, room_id: &RoomId, entry: Entry) -> Result<Entered, RoomError> {
        let Entry {
            version,
            join,
            state,
            auth_chain,
            omitted,
            unchecked,
        } = entry;
        let is_ours = |event: &Event| event.version() == version && event.room_id() == room_id;
        if !is_ours(join.event()) || !self.is_local(join.event().sender()) {
            return Err(RoomError::Invalid("the join is none of this room"));
        }
        let listed: BTreeSet<OwnedEventId> = state
            .iter()
            .map(|signed| signed.event().event_id().to_owned())
            .collect();
        let state_events = state.iter().map(Signed::event);
        let rest = state_events.filter(|event| event.event_type() != "m.room.member");
        let rest = rest.map(|event| event.event_id().to_owned());
        let rest: BTreeSet<OwnedEventId> = rest.chain(unchecked).collect();
        let create = match create_event_of_room(room_id) {
            Some(create) if version.rules().room_id_is_create_hash => create,
            _ => create_of(&state)?,
        };
        let all = auth_chain.into_iter().chain(state);
        let all: Vec<Signed> = all.filter(|signed| is_ours(signed.event())).collect();
        // Without it nothing else could be judged, and what is rejected stays so.
        let has_create = |signed: &Signed| signed.event().event_id() == create;
        if !listed.contains(&create) || !all.iter().any(has_create) {
            return Err(RoomError::Invalid(
                "the state lacks the room's create event",
            ));
        }
        let (mut ordered, _cyclic) = authority_first(all);
        // All rest on it, whether they name it or not.
        ordered.sort_by_key(|signed| signed.event().event_id() != create);
        let mut taken = Taken::default();
        let mut met = BTreeSet::new();
        let mut ordered = ordered
            .into_iter()
            .map(Signed::into_event)
            .filter(|event| event.state_key().is_some() && met.insert(event.event_id().to_owned()));
        loop {
            let chunk: Vec<Event> = ordered.by_ref().take(CHUNK).collect();
            if chunk.is_empty() {
                break;
            }
            let mut change = self.entering(room_id, version).await?;
            if change.live()?.head.mode.takes_part() {
                return Ok(Entered::Before(join));
            }
            if let Some(known) = change.state_event("m.room.create", "").await?
                && known.event_id() != create
            {
                return Err(RoomError::Invalid("the state is another room's"));
            }
            Box::pin(change.take_state(chunk, &create, &mut taken)).await?;
            if change.has_moved() {
                change.commit().await?;
            }
        }
        drop(ordered);
        let mut change = self.entering(room_id, version).await?;
        if change.live()?.head.mode.takes_part() {
            // Another user of ours was faster.
            return Ok(Entered::Before(join));
        }
        // What the join rests on may be known from an earlier stay, and isn't always sent again.
        let own = std::slice::from_ref(join.event());
        change.take_known(own, &create, &mut taken).await?;
        let omitted = omitted.map(|servers| {
            let lacks = rest.iter().filter(|id| !taken.events.contains_key(*id));
            (servers, lacks.map(ToString::to_string).collect())
        });
        let placed = Box::pin(change.settle(join, &listed, taken, omitted)).await?;
        change.commit().await?;
        Ok(Entered::Placed(placed))
    }

    /// Takes a room to be entered: as it is, or as one of which nothing is known yet.
    async fn entering(&self, room_id: &RoomId, version: RoomVersion) -> Result<Change, RoomError> {
        match self.hold(room_id).await {
            Err(RoomError::UnknownRoom) => {}
            change => {
                let change = change?;
                return if change.version()? == version {
                    Ok(change)
                } else {
                    Err(RoomError::Invalid("the room is of another version"))
                };
            }
        }
        let room = RoomKey::of(room_id.as_str());
        let writer = self.tenant().lane(Home::Room(room)).clone();
        let mut guard = self.cell(room).lock_owned().await;
        if guard.is_some() || Live::load(room, writer.clone()).await?.is_some() {
            drop(guard);
            return self.hold(room_id).await;
        }
        let info = Info {
            room_id: room_id.to_string(),
            version,
        };
        *guard = Some(Live::born(
            room_id.to_owned(),
            info.clone(),
            Mode::Stub,
            writer,
        ));
        let mut change = Change::new(self.clone(), guard)?;
        change.begin();
        let key = InRoom { room };
        change
            .batch()
            .expect::<tables::Infos>(&key, Expect::Absent)
            .put::<tables::Infos>(&key, &info);
        Ok(change)
    }
}

/// The one create event that a state claims, in room versions whose ids don't name it.
fn create_of(state: &[Signed]) -> Result<OwnedEventId, RoomError> {
    let creates = state.iter().map(Signed::event);
    let mut creates = creates.filter(|event| event.is_state("m.room.create", ""));
    match (creates.next(), creates.next()) {
        (Some(create), None) => Ok(create.event_id().to_owned()),
        _ => Err(RoomError::Invalid("the state has not one m.room.create")),
    }
}

impl Change {
    /// Stores events of an entry, which come after those that authorise them.
    async fn take_state(
        &mut self,
        events: Vec<Event>,
        create: &OwnedEventId,
        taken: &mut Taken,
    ) -> Result<(), RoomError> {
        let ids: Vec<String> = events
            .iter()
            .map(|event| event.event_id().to_string())
            .collect();
        let heard = self.heard(&ids).await?;
        self.take_known(&events, create, taken).await?;
        for (event, from) in events.into_iter().zip(heard) {
            let settled = from
                .as_ref()
                .filter(|from| from.verdict() != Verdict::Named);
            if let Some(from) = settled {
                for known in self.known(&[from.num]).await? {
                    taken.put(known, create)?;
                }
                continue;
            }
            let mut auth = Vec::with_capacity(event.auth_events().len());
            for id in event.auth_events() {
                auth.extend(taken.events.get(id).map(|known| known.num));
            }
            // What can't be checked isn't believed.
            if auth.len() < event.auth_events().len() {
                continue;
            }
            let is_create = event.event_type() == "m.room.create";
            if is_create && event.event_id() != create {
                continue;
            }
            self.begin();
            let (num, prev) = self.numbers(&event, from.as_ref()).await?;
            let mut known = Known {
                num,
                event,
                prev,
                auth,
                verdict: Verdict::Outlier,
                root_before: None,
            };
            if let Err(rejection) = taken.check(&known) {
                tracing::debug!(event_id = %known.event.event_id(), %rejection, "event rejected");
                if is_create {
                    return Err(rejection.into());
                }
                known.verdict = Verdict::Rejected;
            }
            let case = self.case(known.clone(), from).await?;
            self.keep_rows(case).await?;
            taken.put(known, create)?;
        }
        if self.has_moved() {
            self.put_head()?;
        }
        Ok(())
    }

    /// The numbers of an event and of those it follows; names for those that have none.
    async fn numbers(
        &mut self,
        event: &Event,
        from: Option<&Heard>,
    ) -> Result<(EventNum, Vec<EventNum>), RoomError> {
        let num = match from {
            Some(from) => from.num,
            None => self.number(event.event_id().as_str())?,
        };
        let mut prev = Vec::with_capacity(event.prev_events().len());
        for id in event.prev_events() {
            prev.push(self.name(id.as_str()).await?);
        }
        Ok((num, prev))
    }

    /// Takes up what the room knows of the events that authorise these and aren't among the entry.
    async fn take_known(
        &mut self,
        events: &[Event],
        create: &OwnedEventId,
        taken: &mut Taken,
    ) -> Result<(), RoomError> {
        let among: BTreeSet<&str> = events
            .iter()
            .map(|event| event.event_id().as_str())
            .collect();
        let named = events.iter().flat_map(|event| event.auth_events());
        let unknown: BTreeSet<String> = named
            .filter(|id| !taken.events.contains_key(*id) && !among.contains(id.as_str()))
            .map(|id| id.to_string())
            .collect();
        let unknown: Vec<String> = unknown.into_iter().collect();
        let heard = self.heard(&unknown).await?;
        let nums: Vec<EventNum> = heard
            .into_iter()
            .flatten()
            .filter(|heard| heard.verdict() != Verdict::Named)
            .map(|heard| heard.num)
            .collect();
        for known in self.known(&nums).await? {
            taken.put(known, create)?;
        }
        Ok(())
    }

    /// Makes the room ours: the state that was claimed, as far as it was taken, and the join upon it.
    async fn settle(
        &mut self,
        join: Signed,
        listed: &BTreeSet<OwnedEventId>,
        taken: Taken,
        omitted: Option<(Vec<OwnedServerName>, Vec<String>)>,
    ) -> Result<Placed, RoomError> {
        self.begin();
        let join = join.into_event();
        let state: Vec<&Known> = listed
            .iter()
            .filter_map(|id| taken.events.get(id))
            .filter(|known| known.verdict != Verdict::Rejected)
            .collect();
        let mut entries = BTreeMap::new();
        for known in &state {
            let state_key = known.event.state_key().unwrap_or_default();
            let key = self.intern(known.event.event_type(), state_key).await?;
            if entries.insert(key, Some(known.num)).is_some() {
                return Err(RoomError::Invalid("two events of the state have one key"));
            }
        }
        let create = taken.create().map(|create| create.num);
        if !state.iter().any(|known| Some(known.num) == create) {
            return Err(RoomError::Invalid(
                "the state lacks the room's create event",
            ));
        }
        let entries: Vec<_> = entries.into_iter().collect();
        let mut root = self.write_state(AnyRoot::EMPTY, &entries).await?;
        if omitted.is_some() {
            root = root.as_partial();
        }
        for known in taken.events.values() {
            self.remember(known);
        }
        let (known, from) = self.joining(join, root, &taken).await?;
        match omitted {
            Some((servers, lacks)) => {
                self.begin_partial(&known.event, known.num, &servers, lacks)?;
            }
            None => {
                let live = self.live_mut()?;
                live.head.mode = Mode::Joined;
                let room = live.room;
                self.batch().delete::<tables::Partials>(&InRoom { room });
            }
        }
        let live = self.live_mut()?;
        live.after.clear();
        live.head.extremities.clear();
        live.listeners = None;
        let room_id = live.room_id.to_string();
        let prev: Vec<String> = known
            .event
            .prev_events()
            .iter()
            .map(ToString::to_string)
            .collect();
        let prev = self.heard(&prev).await?;
        self.follow(&known, &prev, FollowedBy { entry: true })
            .await?;
        let record = log::record(log::kind::ENTERED, &room_id, &())?;
        self.batch().log(record);
        let case = self.case(known, from).await?;
        let placed = Box::pin(self.accept(case, None)).await?;
        self.end_out_of_band().await?;
        Ok(placed)
    }

    /// The join with the state before it, checked by that state.
    async fn joining(
        &mut self,
        join: Event,
        root: AnyRoot,
        taken: &Taken,
    ) -> Result<(Known, Option<Heard>), RoomError> {
        let own = [join.event_id().to_string()];
        let from = self.heard(&own).await?.pop().flatten();
        let settled = |from: &Heard| !from.verdict().may_become(Verdict::Accepted);
        if from.as_ref().is_some_and(settled) {
            return Err(RoomError::Invalid("the join is not a new one"));
        }
        let (num, prev) = self.numbers(&join, from.as_ref()).await?;
        let auth = join.auth_events().iter().map(|id| {
            let known = taken.events.get(id);
            known.map(|known| known.num)
        });
        let auth: Option<Vec<EventNum>> = auth.collect();
        let known = Known {
            num,
            auth: auth.ok_or(RoomError::Invalid(
                "the join rests on events that are missing",
            ))?,
            event: join,
            prev,
            verdict: Verdict::Accepted,
            root_before: Some(root),
        };
        taken.check(&known)?;
        let state = self.auth_state_of(&known, root).await?;
        check_auth(known.event.rules(), &known.judged(), &state)?;
        Ok((known, from))
    }
}

impl Taken {
    /// Takes up an event of the room; `create` is the id of its create event.
    fn put(&mut self, known: Known, create: &OwnedEventId) -> Result<(), RoomError> {
        let event_id = known.event.event_id().to_owned();
        if known.verdict == Verdict::Rejected {
            self.events.insert(event_id, known);
            return Ok(());
        }
        if event_id == *create && known.event.event_type() == "m.room.create" {
            self.create = Some(event_id.clone());
        }
        if let Some(fact) = fact_of(known.num, &known.event)? {
            self.facts.insert(known.num, fact);
        }
        self.events.insert(event_id, known);
        Ok(())
    }

    fn create(&self) -> Option<&Known> {
        self.create.as_ref().and_then(|id| self.events.get(id))
    }

    /// Whether an event is allowed by those that it names.
    fn check(&self, known: &Known) -> Result<(), comity_protocol::auth::Rejection> {
        let rules = known.event.rules();
        let judged = known.judged();
        if known.event.event_type() == "m.room.create" {
            return check_auth(rules, &judged, &AuthState::default());
        }
        let create = self.create();
        let entries = known.event.auth_events().iter();
        let entries = entries.filter_map(|id| self.events.get(id)).map(entry);
        check_auth_events(rules, &judged, entries, create.map(entry))?;
        let mut state = AuthState::default();
        for num in known.auth.iter().chain(create.map(|create| &create.num)) {
            if let Some(fact) = self.facts.get(num) {
                state.put(fact.fact.clone());
            }
        }
        check_auth(rules, &judged, &state)
    }
}

fn entry(known: &Known) -> AuthEntry<'_> {
    AuthEntry {
        event_type: known.event.event_type(),
        state_key: known.event.state_key(),
        room_id: known.event.room_id(),
        rejected: known.verdict == Verdict::Rejected,
    }
}
