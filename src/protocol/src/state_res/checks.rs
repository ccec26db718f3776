//! Auth checks while a state is being resolved.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use super::{Events, IdOf, Missing, StateDifference, StateKey};
use crate::auth::{
    AuthEvent, AuthFact, AuthState, MemberContent, UnreadableLevels, UserLevel,
    auth_types_for_event, check_auth, types,
};
use crate::room_version::RoomVersionRules;

/// The room during one resolution: its events, with what they say to the rules read once.
pub(super) struct Room<'a, S: Events> {
    rules: &'a RoomVersionRules,
    events: &'a S,
    /// The room's create event, from the state all forks share.
    create: Option<IdOf<S>>,
    facts: BTreeMap<IdOf<S>, Told<IdOf<S>>>,
}

/// What an event says to the rules, or that it can't be read.
type Told<Id> = Result<Option<AuthFact<Id>>, UnreadableLevels>;

/// A state under construction.
pub(super) type State<Id> = BTreeMap<StateKey, Id>;

impl<'a, S: Events> Room<'a, S> {
    pub(super) fn new(
        rules: &'a RoomVersionRules,
        events: &'a S,
        agreed: &StateDifference<IdOf<S>>,
    ) -> Self {
        let create = match agreed.get(&(types::CREATE.to_owned(), String::new())) {
            Some(entry) => entry.clone(),
            None => events.base(types::CREATE, ""),
        };
        Self {
            rules,
            events,
            create,
            facts: BTreeMap::new(),
        }
    }

    pub(super) fn event(&self, id: &IdOf<S>) -> Result<&'a S::Event, Missing<IdOf<S>>> {
        self.events
            .event(id)
            .ok_or_else(|| Missing(BTreeSet::from([id.clone()])))
    }

    /// Sees to it that events and what they are authorised by are at hand, so that the caller is
    /// told of all that are missing at once.
    pub(super) fn require(&self, ids: &BTreeSet<IdOf<S>>) -> Result<(), Missing<IdOf<S>>> {
        let known = ids.iter().filter_map(|id| self.events.event(id));
        let auth_events = known.flat_map(|event| event.auth_events());
        let missing: BTreeSet<_> = ids
            .iter()
            .chain(auth_events)
            .chain(&self.create)
            .filter(|id| self.events.event(id).is_none())
            .cloned()
            .collect();
        if missing.is_empty() {
            Ok(())
        } else {
            Err(Missing(missing))
        }
    }

    /// The event of that type and state key among an event's `auth_events`.
    pub(super) fn auth_event(
        &self,
        event: &S::Event,
        event_type: &str,
        state_key: &str,
    ) -> Result<Option<&'a S::Event>, Missing<IdOf<S>>> {
        for id in event.auth_events() {
            let auth_event = self.event(id)?;
            if auth_event.event_type() == event_type && auth_event.state_key() == Some(state_key) {
                return Ok(Some(auth_event));
            }
        }
        Ok(None)
    }

    /// The level of an event's sender by the power levels among its own `auth_events`.
    pub(super) fn sender_level(&mut self, event: &S::Event) -> Result<UserLevel, Missing<IdOf<S>>> {
        let mut state = AuthState::default();
        for event_type in [types::CREATE, types::POWER_LEVELS] {
            let id = match self.auth_event(event, event_type, "")? {
                Some(auth_event) => auth_event.id(),
                None if event_type == types::CREATE => match &self.create {
                    Some(create) => create.clone(),
                    None => continue,
                },
                None => continue,
            };
            if let Ok(Some(fact)) = self.fact(&id)? {
                state.put(fact);
            }
        }
        Ok(state.levels().user(event.sender().as_str()))
    }

    /// The *iterative auth checks*: puts into `state` each event in turn that it allows, judging
    /// what it lacks by the event's own `auth_events`.
    ///
    /// Rejected auth events count nowhere. An event that was itself rejected is judged like any
    /// other, as the spec has it.
    pub(super) fn admit(
        &mut self,
        state: &mut State<IdOf<S>>,
        agreed: impl Fn(&StateKey) -> Option<IdOf<S>>,
        order: Vec<IdOf<S>>,
    ) -> Result<(), Missing<IdOf<S>>> {
        for id in order {
            let event = self.event(&id)?;
            let Some(state_key) = event.state_key() else {
                continue;
            };
            let mut judges: Vec<_> = self
                .create
                .iter()
                .chain(event.auth_events())
                .cloned()
                .collect();
            for (event_type, state_key) in auth_types_for_event(self.rules, event) {
                let key = (event_type.to_owned(), state_key);
                judges.extend(state.get(&key).cloned().or_else(|| agreed(&key)));
            }
            if self.allows(event, &judges)? {
                state.insert((event.event_type().to_owned(), state_key.to_owned()), id);
            }
        }
        Ok(())
    }

    /// Whether events allow another; of two of one type and state key the later counts.
    pub(super) fn allows(
        &mut self,
        event: &S::Event,
        judges: &[IdOf<S>],
    ) -> Result<bool, Missing<IdOf<S>>> {
        let mut state = AuthState::default();
        for judge in judges {
            if self.events.is_rejected(judge) {
                continue;
            }
            match self.fact(judge)? {
                Ok(Some(fact)) => state.put(fact),
                Ok(None) => {}
                Err(_) => return Ok(false),
            }
        }
        Ok(check_auth(self.rules, event, &state).is_ok())
    }

    fn fact(&mut self, id: &IdOf<S>) -> Result<Told<IdOf<S>>, Missing<IdOf<S>>> {
        let event = self.event(id)?;
        Ok(match self.facts.entry(id.clone()) {
            Entry::Occupied(known) => known.get().clone(),
            Entry::Vacant(vacant) => vacant.insert(AuthFact::read(self.rules, event)).clone(),
        })
    }
}

/// Whether an event is a *power event*: one that may take away somebody's ability to do something.
/// The create event is one for every server in the field, and first in every order anyway.
pub(super) fn is_power_event(event: &impl AuthEvent) -> bool {
    match (event.event_type(), event.state_key()) {
        (types::CREATE | types::JOIN_RULES | types::POWER_LEVELS, Some("")) => true,
        (types::MEMBER, Some(target)) => {
            use crate::auth::Membership::{Ban, Leave};
            matches!(
                MemberContent::read(event.content()).membership,
                Some(Ban | Leave)
            ) && event.sender().as_str() != target
        }
        _ => false,
    }
}
