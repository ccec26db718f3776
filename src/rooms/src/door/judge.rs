//! The checks, in the spec's order, and the verdict they come to.

use comity_protocol::{
    auth::{AuthEntry, AuthState, Rejection, check_auth, check_auth_events},
    event::{Event, MAX_AUTH_EVENTS, MAX_PREV_EVENTS},
    id::OwnedEventId,
};

use super::{Arrival, Outcome, Refusal, Wanted, Way};
use crate::{
    change::{Case, Change, Heard, Known, Transaction, fact_of},
    error::RoomError,
    log,
    num::EventNum,
    state::AnyRoot,
    tables::{FollowedBy, Verdict},
};

/// What the room has heard of an event and of those it names.
pub(super) struct Links {
    pub own: Option<Heard>,
    pub prev: Vec<Option<Heard>>,
    auth: Vec<Option<Heard>>,
    /// The state in place of missing parents.
    given: Vec<Option<Heard>>,
    /// The event that the room's id names (from version 12).
    create: Option<Heard>,
}

impl Change {
    /// Judges an event and puts it, with its verdict, into this change, which is good for nothing any more when somebody is to
    /// be asked about it. `txn` is the client's name for it, if it is ours; `is_refused` says that the room's policy server doesn't recommend it.
    pub(crate) async fn judge(
        &mut self,
        arrival: Arrival,
        txn: Option<&Transaction>,
        is_refused: bool,
    ) -> Result<Outcome, RoomError> {
        let Arrival { event, way } = arrival;
        let event = event.into_event();
        if let Some(refusal) = self.refusal(&event, &way)? {
            return Ok(Outcome::Refused(refusal));
        }
        let links = self.links(&event, &way).await?;
        if let Some(verdict) = settled(&links, &way)? {
            return Ok(Outcome::Settled(verdict));
        }
        let wanted = wanted(&event, &way, &links)?;
        if wanted != Wanted::default() {
            return Ok(Outcome::Wanted(wanted));
        }
        let event = self.as_kept(event, &links).await?;
        self.begin();
        let (mut known, given) = self.known_from(event, &way, &links).await?;
        known.verdict = self.verdict(&known, &links).await?;
        let followed = match &links.own {
            Some(own) => self.followed(own.num).await?,
            None => None,
        };
        // What came before our own time isn't news, which the current state could forbid.
        if known.verdict == Verdict::SoftFailed && followed.is_some_and(|by| by.entry) {
            known.verdict = Verdict::Accepted;
        } else if known.verdict == Verdict::Accepted
            && !followed.is_some_and(|by| by.entry)
            && let Some(policy) = self.unasked(&known.event).await?
        {
            if !is_refused {
                return Ok(Outcome::Unasked(policy));
            }
            known.verdict = Verdict::SoftFailed;
        }
        if let Some(own) = &links.own
            && !own.verdict().may_become(known.verdict)
        {
            let (from, to) = (own.verdict(), known.verdict);
            return Err(RoomError::Damaged(format!("{to:?} after {from:?}")));
        }
        let verdict = known.verdict;
        if way == Way::Handshake && verdict != Verdict::Accepted {
            return Ok(Outcome::Refused(Refusal::Forbidden));
        }
        let mut case = Case {
            given,
            ..self.case(known, links.own).await?
        };
        if verdict == Verdict::Accepted {
            if !case.followed && self.is_earlier(&case.known.prev).await? {
                self.put_earlier(&mut case).await?;
            }
            let by = followed.unwrap_or(FollowedBy { entry: false });
            self.follow(&case.known, &links.prev, by).await?;
            let relayed = log::Relayed {
                num: case.known.num.0,
            };
            let room_id = case.known.event.room_id().to_owned();
            let sender = case.known.event.sender().as_str();
            // What is ours goes out as all of ours does.
            let is_handed_over = way == Way::Handshake && !self.is_ours(sender);
            // Boxed, or every future that waits for this one would be as large and as deep.
            Box::pin(self.accept(case, txn)).await?;
            if is_handed_over {
                let record = log::record(log::kind::RELAYED, room_id.as_str(), &relayed)?;
                self.batch().log(record);
            }
        } else {
            self.keep(case).await?;
        }
        Ok(Outcome::Settled(verdict))
    }

    /// Judges an event of the past, which gets its place later in this change. `None` for one that
    /// can't be judged, or has been. The state in place of missing parents is the earliest event's: what allows another may have come
    /// after that, and not be at hand.
    pub(super) async fn judge_past(
        &mut self,
        event: Event,
        way: &Way,
        is_earliest: bool,
    ) -> Result<Option<Case>, RoomError> {
        if self.refusal(&event, way)?.is_some() {
            return Ok(None);
        }
        let links = self.links(&event, way).await?;
        let mut parents = links.prev.iter();
        let lacks = |heard: &Option<Heard>| {
            let root = heard.as_ref().map(|heard| &heard.status.value.root_before);
            root.is_none_or(Vec::is_empty)
        };
        let nothing_known = parents.any(lacks) && links.given.is_empty();
        if nothing_known || settled(&links, way)?.is_some() {
            return Ok(None);
        }
        let event = self.as_kept(event, &links).await?;
        self.begin();
        let (mut known, given) = self.known_from(event, way, &links).await?;
        known.verdict = match self.rejection(&known, &links).await? {
            Some(_)
                if given.is_some()
                    && !is_earliest
                    && self.is_authorised(&known, &links).await? =>
            {
                return Ok(None);
            }
            Some(rejection) => {
                tracing::debug!(event_id = %known.event.event_id(), %rejection, "event rejected");
                Verdict::Rejected
            }
            None => Verdict::Accepted,
        };
        let case = self.case(known, links.own).await?;
        Ok(Some(Case { given, ..case }))
    }

    /// Why the event is none for this room, if so.
    fn refusal(&self, event: &Event, way: &Way) -> Result<Option<Refusal>, RoomError> {
        let live = self.live()?;
        let names_itself = |ids: &[OwnedEventId]| ids.iter().any(|id| id == event.event_id());
        let past = matches!(way, Way::Outlier | Way::History(_));
        let crowded = event.prev_events().len() > MAX_PREV_EVENTS
            || event.auth_events().len() > MAX_AUTH_EVENTS;
        Ok(
            if event.version() != live.info.version || event.room_id() != &*live.room_id {
                Some(Refusal::OtherRoom)
            } else if !past && crowded {
                Some(Refusal::TooManyParents)
            } else if names_itself(event.prev_events()) || names_itself(event.auth_events()) {
                Some(Refusal::Cycle)
            } else {
                None
            },
        )
    }

    pub(super) async fn links(&self, event: &Event, way: &Way) -> Result<Links, RoomError> {
        let given: &[OwnedEventId] = match way {
            Way::Beyond(state) | Way::History(state) => state,
            Way::New | Way::Outlier | Way::Handshake => &[],
        };
        let create = event
            .rules()
            .room_id_is_create_hash
            .then(|| event.room_id().as_str().replacen('!', "$", 1));
        let name = |id: &OwnedEventId| id.to_string();
        let (prev, auth) = (event.prev_events(), event.auth_events());
        let mut ids = vec![event.event_id().to_string()];
        ids.extend(prev.iter().chain(auth).chain(given).map(name));
        ids.extend(create);
        let mut heard = self.heard(&ids).await?.into_iter();
        let own = heard.next().flatten();
        let mut take = |count| heard.by_ref().take(count).collect::<Vec<_>>();
        Ok(Links {
            own,
            prev: take(prev.len()),
            auth: take(auth.len()),
            given: take(given.len()),
            create: take(1).pop().flatten(),
        })
    }

    /// The event as it is kept, where it is: whoever sends it again may have redacted it since, or made it fail its hash. What stands in
    /// the room and what is derived from it have to be one.
    async fn as_kept(&self, event: Event, links: &Links) -> Result<Event, RoomError> {
        match &links.own {
            Some(own) if own.verdict() != Verdict::Named => self.event(own.num).await,
            _ => Ok(event),
        }
    }

    /// The event in the room's numbers, with the state before it; and what stands for missing parents.
    async fn known_from(
        &mut self,
        event: Event,
        way: &Way,
        links: &Links,
    ) -> Result<(Known, Option<AnyRoot>), RoomError> {
        let num = match &links.own {
            Some(own) => own.num,
            None => self.number(event.event_id().as_str())?,
        };
        let mut prev = Vec::with_capacity(links.prev.len());
        let mut parents = Vec::with_capacity(links.prev.len());
        for (id, heard) in event.prev_events().iter().zip(&links.prev) {
            match heard {
                Some(heard) => {
                    prev.push(heard.num);
                    if heard.root_before()?.is_some() {
                        parents.push(heard.num);
                    }
                }
                None => prev.push(self.name(id.as_str()).await?),
            }
        }
        let mut given = None;
        let root_before = if *way == Way::Outlier {
            None
        } else {
            let mut roots = self.after(&parents).await?;
            if parents.len() < prev.len() {
                let state = self.given_state(&links.given).await?;
                given = Some(state);
                roots.push(state);
            }
            Some(self.resolve(&roots).await?)
        };
        let known = Known {
            num,
            event,
            prev,
            auth: links.auth.iter().flatten().map(|heard| heard.num).collect(),
            verdict: Verdict::Outlier,
            root_before,
        };
        Ok((known, given))
    }

    /// The state that these events make; those that were rejected are left out of it.
    pub(super) async fn given_state(
        &mut self,
        given: &[Option<Heard>],
    ) -> Result<AnyRoot, RoomError> {
        let nums: Vec<EventNum> = given
            .iter()
            .flatten()
            .filter(|heard| heard.verdict() != Verdict::Rejected)
            .map(|heard| heard.num)
            .collect();
        let mut entries = Vec::with_capacity(nums.len());
        for known in self.known(&nums).await? {
            if let Some(state_key) = known.event.state_key() {
                let key = self.intern(known.event.event_type(), state_key).await?;
                entries.push((key, Some(known.num)));
            }
        }
        self.write_state(AnyRoot::EMPTY, &entries).await
    }

    pub(super) async fn verdict(
        &mut self,
        known: &Known,
        links: &Links,
    ) -> Result<Verdict, RoomError> {
        if let Some(rejection) = self.rejection(known, links).await? {
            tracing::debug!(event_id = %known.event.event_id(), %rejection, "event rejected");
            return Ok(Verdict::Rejected);
        }
        let Some(before) = known.root_before else {
            return Ok(Verdict::Outlier);
        };
        let current = self.live()?.root;
        if current != before {
            let state = self.auth_state_of(known, current).await?;
            if let Err(rejection) = check_auth(known.event.rules(), &known.judged(), &state) {
                tracing::debug!(event_id = %known.event.event_id(), %rejection, "event soft-failed");
                return Ok(Verdict::SoftFailed);
            }
        }
        Ok(if self.is_fork_too_many(&known.prev)? {
            Verdict::SoftFailed
        } else {
            Verdict::Accepted
        })
    }

    /// Whether the event is allowed by its auth events.
    async fn is_authorised(&mut self, known: &Known, links: &Links) -> Result<bool, RoomError> {
        let alone = Known {
            root_before: None,
            ..known.clone()
        };
        Ok(self.rejection(&alone, links).await?.is_none())
    }

    /// The rule by which the event is forbidden for good: by its auth events, or by the state
    /// before it.
    pub(super) async fn rejection(
        &mut self,
        known: &Known,
        links: &Links,
    ) -> Result<Option<Rejection>, RoomError> {
        let rules = known.event.rules();
        if known.event.event_type() == "m.room.create" {
            // The room has its own: part of the state that we entered with, or this is another one.
            let own = links.own.as_ref().map(Heard::verdict);
            let another = own != Some(Verdict::Outlier);
            return Ok(another.then_some(Rejection::UnexpectedCreate));
        }
        let auth_events = self.known(&known.auth).await?;
        let create = match &links.create {
            Some(heard) => self.known(&[heard.num]).await?.pop(),
            None => None,
        };
        let entries = auth_events.iter().map(entry);
        let listed = check_auth_events(rules, &known.judged(), entries, create.as_ref().map(entry));
        if let Err(rejection) = listed {
            return Ok(Some(rejection));
        }
        let mut state = AuthState::default();
        for known in auth_events.iter().chain(&create) {
            if let Some(fact) = fact_of(known.num, &known.event)? {
                state.put(fact.fact);
            }
        }
        if let Err(rejection) = check_auth(rules, &known.judged(), &state) {
            return Ok(Some(rejection));
        }
        let Some(before) = known.root_before else {
            return Ok(None);
        };
        let state = self.auth_state_of(known, before).await?;
        Ok(check_auth(rules, &known.judged(), &state).err())
    }

    /// With what else the event meets in the room: a redaction that came before it, events that
    /// follow it.
    pub(super) async fn case(
        &mut self,
        mut known: Known,
        from: Option<Heard>,
    ) -> Result<Case, RoomError> {
        let (mut redacted_by, mut followed) = (None, None);
        if let Some(own) = &from {
            // Also what is here as part of a state may have been followed, or redacted, before it gets its place.
            followed = self.followed(known.num).await?;
            if own.verdict() == Verdict::Named {
                redacted_by = self.early_redaction(&known).await?;
            }
            if redacted_by.is_some() || own.status.value.redacted_by.is_some() {
                known.event = known.event.redact();
            }
        }
        Ok(Case {
            known,
            from,
            redacted_by,
            followed: followed.is_some(),
            is_past: followed.is_some_and(|by| by.entry),
            given: None,
        })
    }
}

/// The verdict that stands, whatever is found now.
fn settled(links: &Links, way: &Way) -> Result<Option<Verdict>, RoomError> {
    let Some(own) = &links.own else {
        return Ok(None);
    };
    let verdict = own.verdict();
    let judged = match verdict {
        Verdict::Named => false,
        Verdict::Outlier => *way == Way::Outlier,
        Verdict::Rejected => *way == Way::Outlier || own.root_before()?.is_some(),
        Verdict::SoftFailed | Verdict::Accepted => true,
    };
    Ok(judged.then_some(verdict))
}

/// What is needed and isn't here.
fn wanted(event: &Event, way: &Way, links: &Links) -> Result<Wanted, RoomError> {
    let is_known = |heard: &Option<Heard>| {
        let verdict = heard.as_ref().map(Heard::verdict);
        verdict.is_some_and(|verdict| verdict != Verdict::Named)
    };
    let mut wanted = Wanted::default();
    let auth = event.auth_events().iter().zip(&links.auth);
    let given = match way {
        Way::Beyond(state) | Way::History(state) => state.as_slice(),
        Way::New | Way::Outlier | Way::Handshake => &[],
    };
    for (id, heard) in auth.chain(given.iter().zip(&links.given)) {
        if !is_known(heard) {
            wanted.auth.push(id.clone());
        }
    }
    if matches!(way, Way::New | Way::Handshake) {
        for (id, heard) in event.prev_events().iter().zip(&links.prev) {
            let root = heard.as_ref().map(Heard::root_before).transpose()?;
            if root.flatten().is_none() {
                wanted.prev.push(id.clone());
            }
        }
    }
    Ok(wanted)
}

fn entry(known: &Known) -> AuthEntry<'_> {
    AuthEntry {
        event_type: known.event.event_type(),
        state_key: known.event.state_key(),
        room_id: known.event.room_id(),
        rejected: known.verdict == Verdict::Rejected,
    }
}
