//! One room of test events, with what our resolution asks of it.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use comity_protocol::auth::{AuthFact, AuthState, auth_types_for_event, check_auth};
use comity_protocol::id::{EventId, OwnedEventId, OwnedRoomId, UserId, room_id_of_create};
use comity_protocol::room_version::{RoomVersion, RoomVersionRules};
use comity_protocol::state_res::{Events, MemoryGraph, StateDifference, resolve};
use serde_json::Value;
use serde_json::value::to_raw_value;

use crate::event::{Num, TestEvent};

pub type Key = (String, String);
pub type State = BTreeMap<Key, Num>;

pub struct World {
    pub version: RoomVersion,
    pub room_id: Option<OwnedRoomId>,
    pub events: Vec<TestEvent>,
    pub by_id: HashMap<OwnedEventId, Num>,
    pub graph: MemoryGraph<Num>,
}

/// What differs from event to event.
pub struct Draft<'a> {
    pub event_id: String,
    pub event_type: &'a str,
    pub state_key: Option<&'a str>,
    pub sender: &'a str,
    pub content: Value,
    pub ts: i64,
    pub prev: Vec<Num>,
    pub auth: Vec<Num>,
}

impl World {
    pub fn new(version: RoomVersion) -> Self {
        Self {
            version,
            room_id: None,
            events: Vec::new(),
            by_id: HashMap::new(),
            graph: MemoryGraph::default(),
        }
    }

    pub fn rules(&self) -> &'static RoomVersionRules {
        self.version.rules()
    }

    pub fn event(&self, num: Num) -> &TestEvent {
        &self.events[num as usize]
    }

    /// The event a draft becomes, under the next number, without adding it.
    pub fn make(&self, draft: Draft<'_>) -> TestEvent {
        let event_id = EventId::parse(draft.event_id).unwrap();
        let is_create = draft.event_type == "m.room.create";
        let room_id = match &self.room_id {
            Some(room_id) => room_id.clone(),
            None if self.rules().room_id_is_create_hash => room_id_of_create(&event_id).unwrap(),
            None => "!room:one".try_into().unwrap(),
        };
        let ids = |nums: &[Num]| {
            nums.iter()
                .map(|num| self.event(*num).event_id.clone())
                .collect()
        };
        TestEvent {
            num: u32::try_from(self.events.len()).unwrap(),
            room_id,
            has_room_id: !(is_create && self.rules().room_id_is_create_hash),
            event_type: draft.event_type.to_owned(),
            ruma_type: draft.event_type.into(),
            state_key: draft.state_key.map(str::to_owned),
            sender: UserId::parse(draft.sender).unwrap(),
            ts: draft.ts,
            depth: draft
                .prev
                .iter()
                .map(|num| self.event(*num).depth + 1)
                .max()
                .unwrap_or(1),
            prev_ids: ids(&draft.prev),
            prev: draft.prev,
            auth_ids: ids(&draft.auth),
            auth: draft.auth,
            redacts: draft
                .content
                .get("redacts")
                .and_then(Value::as_str)
                .map(|id| EventId::parse(id).unwrap()),
            content: to_raw_value(&draft.content).unwrap(),
            rejected: false,
            event_id,
        }
    }

    pub fn add(&mut self, event: TestEvent) -> Num {
        let num = event.num;
        assert_eq!(num as usize, self.events.len());
        self.room_id.get_or_insert_with(|| event.room_id.clone());
        self.graph.add(num, &event.auth);
        assert_eq!(self.by_id.insert(event.event_id.clone(), num), None);
        self.events.push(event);
        num
    }

    /// The `auth_events` a state has for an event.
    pub fn select(&self, event: &TestEvent, state: &State) -> Vec<Num> {
        auth_types_for_event(self.rules(), event)
            .into_iter()
            .filter_map(|(event_type, state_key)| {
                state.get(&(event_type.to_owned(), state_key)).copied()
            })
            .collect()
    }

    /// Whether events (and the create event) allow another.
    pub fn allows(&self, judges: impl IntoIterator<Item = Num>, event: &TestEvent) -> bool {
        let mut state = AuthState::default();
        let create = self.events.first().map(|event| event.num);
        for judge in create.into_iter().chain(judges) {
            if let Some(fact) = AuthFact::read(self.rules(), self.event(judge)).unwrap() {
                state.put(fact);
            }
        }
        check_auth(self.rules(), event, &state).is_ok()
    }

    /// Resolves whole states, as differences from `base`.
    pub fn resolve(&self, base: &State, forks: &[&State]) -> State {
        let differences: Vec<_> = forks.iter().map(|fork| difference(base, fork)).collect();
        let at_hand = AtHand { world: self, base };
        let resolved = resolve(self.rules(), &at_hand, &self.graph, &differences).unwrap();
        let mut state = base.clone();
        for (key, entry) in resolved {
            match entry {
                Some(num) => state.insert(key, num),
                None => state.remove(&key),
            };
        }
        state
    }

    pub fn names(&self, state: &State) -> BTreeMap<Key, String> {
        state
            .iter()
            .map(|(key, num)| (key.clone(), self.name(*num)))
            .collect()
    }

    pub fn name(&self, num: Num) -> String {
        format!("#{num} {}", self.event(num).event_id)
    }

    /// The whole room as text, one event a line.
    pub fn tell(&self) -> String {
        let mut text = format!("room version {}\n", self.version);
        for event in &self.events {
            text += &format!(
                "#{} {} ts={} depth={} {}{} by {} prev={:?} auth={:?} {}{}\n",
                event.num,
                event.event_id,
                event.ts,
                event.depth,
                event.event_type,
                event
                    .state_key
                    .as_ref()
                    .map_or(String::new(), |key| format!("[{key}]")),
                event.sender,
                event.prev,
                event.auth,
                event.content.get(),
                if event.rejected { " REJECTED" } else { "" },
            );
        }
        text
    }
}

fn difference(base: &State, fork: &State) -> StateDifference<Num> {
    let keys: BTreeSet<_> = base.keys().chain(fork.keys()).collect();
    keys.into_iter()
        .filter(|key| base.get(*key) != fork.get(*key))
        .map(|key| (key.clone(), fork.get(key).copied()))
        .collect()
}

struct AtHand<'a> {
    world: &'a World,
    base: &'a State,
}

impl Events for AtHand<'_> {
    type Event = TestEvent;

    fn event(&self, num: &Num) -> Option<&TestEvent> {
        self.world.events.get(*num as usize)
    }
    fn is_rejected(&self, num: &Num) -> bool {
        self.world.event(*num).rejected
    }
    fn base(&self, event_type: &str, state_key: &str) -> Option<Num> {
        self.base
            .get(&(event_type.to_owned(), state_key.to_owned()))
            .copied()
    }
}
