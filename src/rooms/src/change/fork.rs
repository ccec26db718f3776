//! The state at any point of the graph: after an event, and where forks meet.

use std::collections::BTreeMap;

use comity_protocol::auth::{AuthState, auth_types_for_event};

use super::{
    Change, Known,
    auth::{Said, fact_of},
};
use crate::{
    error::RoomError,
    live::RoomNodes,
    num::{EventNum, StateKeyNum},
    state::{AnyRoot, StateTrie},
    tables::{self, RoomHash, Verdict},
};

/// Entries that differ, read at once.
const PAGE: usize = 1_000;

/// What a state has otherwise than another: the new entry, and the old one.
pub(crate) type Difference = BTreeMap<StateKeyNum, (Option<EventNum>, Option<EventNum>)>;

impl Change {
    /// The room's states.
    pub(crate) fn trie(&self) -> Result<StateTrie<RoomNodes>, RoomError> {
        let live = self.live()?;
        Ok(self
            .rooms
            .trie(live.room, live.reader(), live.pending.clone()))
    }

    /// A state with some entries otherwise, its nodes in this change's batch.
    pub(crate) async fn write_state(
        &mut self,
        root: AnyRoot,
        edits: &[(StateKeyNum, Option<EventNum>)],
    ) -> Result<AnyRoot, RoomError> {
        let written = self.trie()?.apply(root, edits).await?;
        let live = self.live()?;
        let (room, pending) = (live.room, live.pending.clone());
        for (hash, bytes) in &written.nodes {
            self.batch
                .put::<tables::Nodes>(&RoomHash { room, hash: hash.0 }, bytes);
        }
        pending.nodes.lock().extend(written.nodes);
        Ok(written.root)
    }

    /// Where `new` differs from `old`.
    pub(crate) async fn difference(
        &self,
        old: AnyRoot,
        new: AnyRoot,
    ) -> Result<Difference, RoomError> {
        let trie = self.trie()?;
        let mut pages = trie.diff(old, new);
        let mut difference = Difference::new();
        loop {
            let page = pages.next_page(PAGE).await?;
            if page.is_empty() {
                return Ok(difference);
            }
            difference.extend(
                page.into_iter()
                    .map(|change| (change.key, (change.new.present(), change.old.present()))),
            );
        }
    }

    /// The states after these events, which all have their place in the graph.
    pub(crate) async fn after(&mut self, events: &[EventNum]) -> Result<Vec<AnyRoot>, RoomError> {
        let unknown: Vec<EventNum> = {
            let live = self.live()?;
            let known = |num: &&EventNum| !live.after.contains_key(num);
            events.iter().filter(known).copied().collect()
        };
        for event in self.known(&unknown).await? {
            let root = self.state_after(&event).await?;
            self.live_mut()?.after.insert(event.num, root);
        }
        let live = self.live()?;
        events
            .iter()
            .map(|num| live.after.get(num).copied().ok_or_else(no_place))
            .collect()
    }

    /// The state after an event: itself in it, unless it was rejected.
    pub(super) async fn state_after(&mut self, event: &Known) -> Result<AnyRoot, RoomError> {
        let before = event.root_before.ok_or_else(no_place)?;
        match event.event.state_key() {
            Some(state_key) if event.verdict != Verdict::Rejected => {
                let key = self.intern(event.event.event_type(), state_key).await?;
                self.write_state(before, &[(key, Some(event.num))]).await
            }
            _ => Ok(before),
        }
    }

    /// The facts of a state by which the rules judge an event. What a partial state doesn't know is as
    /// the event's own auth events have it: those were judged for themselves, and the event is judged again
    /// once the state is whole.
    pub(crate) async fn auth_state_of(
        &mut self,
        event: &Known,
        root: AnyRoot,
    ) -> Result<AuthState<EventNum>, RoomError> {
        let rules = event.event.rules();
        let keys = auth_types_for_event(rules, &event.judged());
        let mut wanted: Vec<(&str, &str)> = keys
            .iter()
            .map(|(kind, key)| (*kind, key.as_str()))
            .collect();
        if rules.room_id_is_create_hash {
            wanted.push(("m.room.create", ""));
        }
        let said = self.facts(&wanted, root).await?;
        let mut state = AuthState::default();
        let mut unknown = Vec::new();
        for (said, key) in said.into_iter().zip(&wanted) {
            match said {
                Said::Fact(fact) => state.put(fact.fact),
                Said::Nothing => {}
                Said::Unknown => unknown.push(*key),
            }
        }
        if unknown.is_empty() {
            return Ok(state);
        }
        for named in self.known(&event.auth).await? {
            let says = |(event_type, state_key): &(&str, &str)| {
                named.event.is_state(event_type, state_key)
            };
            if named.verdict != Verdict::Rejected
                && unknown.iter().any(says)
                && let Some(fact) = fact_of(named.num, &named.event)?
            {
                state.put(fact.fact);
            }
        }
        Ok(state)
    }
}

fn no_place() -> RoomError {
    RoomError::Damaged("an event has no place in the graph".into())
}
