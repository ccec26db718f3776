//! What the rules read of the room's current state, kept parsed.

use comity_protocol::{
    auth::{AuthFact, AuthState, MemberContent, auth_types},
    event::{Event, Reference},
    id::OwnedEventId,
};

use super::{Change, Intent, Placed};
use crate::{
    error::RoomError,
    event,
    live::{Fact, Judged},
    num::{EventNum, StateKeyNum},
    state::{AnyRoot, Half, Lookup, Snapshot},
};

/// What a state says under a key.
#[derive(Clone)]
pub(super) enum Said {
    Fact(Fact),
    Nothing,
    /// It is partial, and the entry, if there is one, has not come yet.
    Unknown,
}

impl Said {
    fn fact(self) -> Option<Fact> {
        match self {
            Self::Fact(fact) => Some(fact),
            Self::Nothing | Self::Unknown => None,
        }
    }
}

impl Change {
    /// The state that an intent is judged by, and the auth events it will name.
    pub(super) async fn auth_state(
        &mut self,
        intent: &Intent,
        root: AnyRoot,
    ) -> Result<(AuthState<EventNum>, Vec<Fact>), RoomError> {
        let rules = self.live()?.rules();
        let member = (intent.event_type == "m.room.member")
            .then(|| MemberContent::read(intent.content.get()));
        let state_key = intent.state_key.as_deref();
        let keys = auth_types(
            rules,
            &intent.event_type,
            &intent.sender,
            state_key,
            member.as_ref(),
        );
        let mut wanted: Vec<(&str, &str)> = keys
            .iter()
            .map(|(kind, key)| (*kind, key.as_str()))
            .collect();
        // From version 12 the create event is no auth event, and still what the rules start from.
        let named = wanted.len();
        if rules.room_id_is_create_hash {
            wanted.push(("m.room.create", ""));
        }
        let said = self.facts(&wanted, root).await?;
        // Others may know what isn't known here, and refuse what rests on a guess.
        if said.iter().any(|said| matches!(said, Said::Unknown)) {
            // It won't come to a room that we have left.
            return Err(if self.live()?.head.mode.takes_part() {
                RoomError::Incomplete
            } else {
                RoomError::Forbidden("the sender is not in the room")
            });
        }
        let mut facts: Vec<Option<Fact>> = said.into_iter().map(Said::fact).collect();
        let mut state = AuthState::default();
        facts
            .iter()
            .flatten()
            .for_each(|fact| state.put(fact.fact.clone()));
        facts.truncate(named);
        Ok((state, facts.into_iter().flatten().collect()))
    }

    /// What the current state says under one key.
    pub(super) async fn fact(
        &mut self,
        event_type: &str,
        state_key: &str,
    ) -> Result<Option<Fact>, RoomError> {
        let root = self.live()?.root;
        Ok(self
            .facts(&[(event_type, state_key)], root)
            .await?
            .pop()
            .and_then(Said::fact))
    }

    /// What a state says under these keys.
    pub(super) async fn facts(
        &mut self,
        wanted: &[(&str, &str)],
        root: AnyRoot,
    ) -> Result<Vec<Said>, RoomError> {
        let mut keys = Vec::with_capacity(wanted.len());
        for (event_type, state_key) in wanted {
            keys.push(self.key(event_type, state_key).await?);
        }
        let known: Vec<StateKeyNum> = keys.iter().copied().flatten().collect();
        let mut found = self.trie()?.multi_get(root, &known).await?.into_iter();
        let mut said = Vec::with_capacity(wanted.len());
        for (key, (event_type, _)) in keys.into_iter().zip(wanted) {
            let half = if *event_type == "m.room.member" {
                Half::Members
            } else {
                Half::Rest
            };
            // A key that was never used here may still have an entry that has not come.
            let lookup = match key {
                Some(_) => found.next().unwrap_or(Lookup::Absent),
                None if root.is_open(half) => Lookup::Unknown,
                None => Lookup::Absent,
            };
            said.push(match (key, lookup) {
                (Some(key), Lookup::Present(num)) => {
                    let fact = self.read_fact(key, num).await?;
                    fact.map_or(Said::Nothing, Said::Fact)
                }
                (_, Lookup::Unknown) => Said::Unknown,
                _ => Said::Nothing,
            });
        }
        Ok(said)
    }

    /// The events that a state has under these keys.
    pub(crate) async fn lookup(
        &self,
        root: AnyRoot,
        keys: &[Option<StateKeyNum>],
    ) -> Result<Vec<Option<EventNum>>, RoomError> {
        let known: Vec<StateKeyNum> = keys.iter().copied().flatten().collect();
        let mut found = self
            .trie()?
            .multi_get(root, &known)
            .await?
            .into_iter()
            .map(Lookup::present);
        Ok(keys
            .iter()
            .map(|key| key.and_then(|_| found.next().flatten()))
            .collect())
    }

    async fn read_fact(
        &mut self,
        key: StateKeyNum,
        num: EventNum,
    ) -> Result<Option<Fact>, RoomError> {
        if let Some(fact) = self.live()?.facts.get(&key).filter(|fact| fact.num == num) {
            return Ok(Some(fact.clone()));
        }
        let event = self.event(num).await?;
        let fact = fact_of(num, &event)?;
        if let Some(fact) = &fact {
            self.live_mut()?.facts.insert(key, fact.clone());
        }
        Ok(fact)
    }

    /// An event of the room, by number.
    pub(crate) async fn event(&self, num: EventNum) -> Result<Event, RoomError> {
        if let Some(known) = self.in_hand.get(&num) {
            return Ok(known.event.clone());
        }
        let live = self.live()?;
        event::load(&live.reader(), live.room, live.info.version, num).await
    }

    /// The event that already says what the intent wants to, if it is state and the same sender's.
    pub(super) async fn same_state(
        &mut self,
        intent: &Intent,
    ) -> Result<Option<Placed>, RoomError> {
        let Some(state_key) = &intent.state_key else {
            return Ok(None);
        };
        // What this change has placed is no repetition.
        let current = self.current(&intent.event_type, state_key).await?;
        let Some((num, header, status)) = current else {
            return Ok(None);
        };
        if header.sender != intent.sender.as_str() {
            return Ok(None);
        }
        let event = self.event(num).await?;
        let same = |text: &str| serde_json::from_str::<serde_json::Value>(text).ok();
        if same(event.content().get()) != same(intent.content.get()) {
            return Ok(None);
        }
        let event_id: OwnedEventId = event.event_id().to_owned();
        Ok(status.place.map(|(seq, _)| Placed { event_id, seq }))
    }
}

/// An event as the rules read it.
pub(crate) fn fact_of(num: EventNum, event: &Event) -> Result<Option<Fact>, RoomError> {
    let judged = Judged {
        num,
        event,
        prev: &[],
        auth: &[],
    };
    let fact = AuthFact::read(event.rules(), &judged)
        .map_err(|_| RoomError::Damaged("power levels in the state do not parse".into()))?;
    Ok(fact.map(|fact| Fact {
        num,
        reference: Reference::to(event),
        fact,
    }))
}
