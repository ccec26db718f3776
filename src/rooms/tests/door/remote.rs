//! Another server: it makes its own events, on whichever part of the graph it likes, and signs them.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use comity_protocol::{
    auth::{MemberContent, auth_types},
    event::{Event, EventBuilder, Reference, Signed},
    id::{EventId, OwnedEventId, OwnedRoomId, UserId},
    room_version::{EventIdFormat, RoomVersion},
    sign::SigningKey,
};
use comity_rooms::{
    Arrival, Config, Intent, Outcome, Rooms, Span, Way,
    check::{self, Finding},
    tables::Verdict,
};
use comity_runtime::Runtime;
use comity_storage::{Engine, Lanes, Options, Store, TenantId, engine::Memory};
use futures_util::FutureExt;
use serde_json::{Value, json, value::to_raw_value};

pub const ALICE: &str = "@alice:localhost";
pub const ADMIN: &str = "@admin:remote";
pub const USERS: [&str; 3] = ["@u1:remote", "@u2:remote", "@u3:other"];

type State = BTreeMap<(String, String), OwnedEventId>;

/// What another server wants to say.
#[derive(Clone)]
pub struct Draft {
    pub sender: &'static str,
    pub kind: &'static str,
    pub state_key: Option<String>,
    pub content: Value,
    pub redacts: Option<OwnedEventId>,
    pub prev: Vec<OwnedEventId>,
    /// Instead of those that its own view of the state names.
    pub auth: Option<Vec<OwnedEventId>>,
    /// Instead of one more than its parents'.
    pub depth: Option<u64>,
    /// In room versions 1 and 2, instead of a new one.
    pub opaque_id: Option<String>,
}

impl Draft {
    pub fn message(sender: &'static str, body: &str, prev: &[&EventId]) -> Self {
        Self {
            sender,
            kind: "m.room.message",
            state_key: None,
            content: json!({ "msgtype": "m.text", "body": body }),
            redacts: None,
            prev: prev.iter().map(|id| (*id).to_owned()).collect(),
            auth: None,
            depth: None,
            opaque_id: None,
        }
    }

    pub fn state(
        sender: &'static str,
        kind: &'static str,
        state_key: &str,
        content: Value,
        prev: &[&EventId],
    ) -> Self {
        Self {
            kind,
            state_key: Some(state_key.to_owned()),
            content,
            ..Self::message(sender, "", prev)
        }
    }

    pub fn member(sender: &'static str, user: &str, membership: &str, prev: &[&EventId]) -> Self {
        let content = json!({ "membership": membership });
        Self::state(sender, "m.room.member", user, content, prev)
    }

    pub fn redaction(sender: &'static str, target: &EventId, prev: &[&EventId]) -> Self {
        Self {
            kind: "m.room.redaction",
            content: json!({}),
            redacts: Some(target.to_owned()),
            ..Self::message(sender, "", prev)
        }
    }
}

/// The other servers, with the graph as they know it. One key signs for all of them.
pub struct Remote {
    pub room_id: OwnedRoomId,
    pub version: RoomVersion,
    pub events: BTreeMap<OwnedEventId, (Event, State)>,
    key: SigningKey,
    serial: i64,
}

impl Remote {
    /// Makes and signs an event. It enters this graph as if it were allowed; `forget_state` takes
    /// that back.
    pub fn make(&mut self, draft: Draft) -> Signed {
        self.serial += 1;
        let sender: &UserId = draft.sender.try_into().unwrap();
        let rules = self.version.rules();
        let content = to_raw_value(&draft.content).unwrap();
        let mut state = self.state_before(&draft.prev);
        let auth = draft.auth.unwrap_or_else(|| {
            let member =
                (draft.kind == "m.room.member").then(|| MemberContent::read(content.get()));
            let key = draft.state_key.as_deref();
            auth_types(rules, draft.kind, sender, key, member.as_ref())
                .into_iter()
                .filter_map(|(kind, key)| state.get(&(kind.to_owned(), key)).cloned())
                .collect()
        });
        let known = |id: &OwnedEventId| match self.events.get(id) {
            Some((event, _)) => Reference::to(event),
            None => Reference::by_id(id.clone()),
        };
        let depth = draft.prev.iter().filter_map(|id| self.events.get(id));
        let depth = depth.map(|(event, _)| event.depth()).max().unwrap_or(0) + 1;
        let opaque_id = match rules.event_id_format {
            EventIdFormat::Chosen => draft.opaque_id.unwrap_or(format!("r{}", self.serial)),
            _ => String::new(),
        };
        let unsigned = EventBuilder {
            version: self.version,
            room_id: Some(self.room_id.clone()),
            sender: sender.to_owned(),
            event_type: draft.kind.to_owned(),
            state_key: draft.state_key.clone(),
            content,
            redacts: draft.redacts,
            prev_events: draft.prev.iter().map(known).collect(),
            auth_events: auth.iter().map(known).collect(),
            depth: draft.depth.unwrap_or(depth).min(rules.max_depth),
            origin_server_ts: 1_000_000 + self.serial,
            opaque_id,
        }
        .build()
        .unwrap();
        let signed = self.key.sign_event(sender.server_name(), unsigned).unwrap();
        let event = signed.event().clone();
        if let Some(state_key) = draft.state_key {
            state.insert((draft.kind.to_owned(), state_key), id(&signed));
        }
        self.events.insert(id(&signed), (event, state));
        signed
    }

    /// The event was rejected: the state after it is the one before.
    pub fn forget_state(&mut self, event_id: &EventId) {
        let before = self.state_before(self.events[event_id].0.prev_events());
        self.events.get_mut(event_id).unwrap().1 = before;
    }

    /// Where forks meet, as naively as can be: the first parent's state, and what only the others
    /// have.
    fn state_before(&self, parents: &[OwnedEventId]) -> State {
        let mut state = State::new();
        for parent in parents.iter().rev() {
            if let Some((_, after)) = self.events.get(parent) {
                state.extend(after.clone());
            }
        }
        state
    }

    /// The current state's event in this view, after an event.
    pub fn state_after(&self, event_id: &EventId, kind: &str, key: &str) -> OwnedEventId {
        self.events[event_id].1[&(kind.to_owned(), key.to_owned())].clone()
    }
}

/// Servers whose rows are in order when a test ends, whatever it was about.
pub struct InOrder(pub Vec<Rooms>);

impl Drop for InOrder {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        for rooms in &self.0 {
            let reader = rooms.tenant().reader();
            let mut found = Vec::new();
            let mut note = |finding: Finding| found.push(finding.to_string());
            let walk = check::tenant(&reader, rooms.server_name(), &mut note);
            walk.now_or_never().unwrap().unwrap();
            assert!(found.is_empty(), "{}", found.join("\n"));
        }
    }
}

/// A server of ours with a room that others have joined.
pub struct World {
    pub rooms: Rooms,
    pub remote: Remote,
    /// The latest event.
    pub tip: OwnedEventId,
    pub order: InOrder,
}

/// `COMITY_TEST_LANES` or 1: CI runs these tests with one lane and with four.
pub fn lanes() -> Lanes {
    let lanes = std::env::var("COMITY_TEST_LANES").map_or(1, |lanes| lanes.parse().unwrap());
    Lanes::new(lanes).unwrap()
}

pub fn id(signed: &Signed) -> OwnedEventId {
    signed.event().event_id().to_owned()
}

impl World {
    pub async fn new(version: RoomVersion) -> Self {
        let options = Options {
            lanes: lanes(),
            sync: true,
            on_fatal: Arc::new(|_| {}),
            appliers: Vec::new(),
        };
        let runtime = Runtime::simulated(1);
        let tenant = Store::new(Engine::Memory(Memory::new()), options, runtime)
            .tenant(TenantId(1))
            .await
            .unwrap();
        let config = Config {
            server_name: "localhost".try_into().unwrap(),
            default_version: version,
            encryption: Default::default(),
        };
        let key = |seed| SigningKey::from_seed("1", &[seed; 32]).unwrap();
        let rooms = Rooms::new(tenant, config, key(7));
        let alice: &UserId = ALICE.try_into().unwrap();
        let mut create = json!({ "room_version": version.as_str() });
        if version < RoomVersion::V11 {
            create["creator"] = json!(alice);
        }
        let mut levels = json!({ "users": { ADMIN: 100 } });
        if version < RoomVersion::V12 {
            levels["users"][ALICE] = json!(100);
        }
        let mut change = rooms
            .create_event(version, alice, to_raw_value(&create).unwrap())
            .await
            .unwrap();
        let join = json!({ "membership": "join" });
        for (kind, key, content) in [
            ("m.room.member", ALICE, join),
            ("m.room.power_levels", "", levels),
            ("m.room.join_rules", "", json!({ "join_rule": "public" })),
        ] {
            change
                .add(Intent::state(alice, kind, key, &content), None)
                .await
                .unwrap();
        }
        let room_id = change.room_id().unwrap().to_owned();
        change.commit().await.unwrap();

        let mut remote = Remote {
            room_id,
            version,
            events: BTreeMap::new(),
            key: key(8),
            serial: 0,
        };
        let mut state = State::new();
        let mut tip = None;
        for event in timeline(&rooms, &remote).await {
            let key = event.state_key().unwrap().to_owned();
            let event_id = event.event_id().to_owned();
            state.insert((event.event_type().to_owned(), key), event_id.clone());
            remote
                .events
                .insert(event_id.clone(), (event, state.clone()));
            tip = Some(event_id);
        }
        let mut world = Self {
            order: InOrder(vec![rooms.clone()]),
            rooms,
            remote,
            tip: tip.unwrap(),
        };
        for user in [ADMIN, USERS[0], USERS[1], USERS[2]] {
            let draft = Draft::member(user, user, "join", &[&world.tip.clone()]);
            world.tip = world.accepted(draft).await;
        }
        world
    }

    pub async fn receive(&self, signed: Signed, way: Way) -> Outcome {
        let arrival = Arrival { event: signed, way };
        let mut outcomes = self.receive_all(vec![arrival]).await;
        assert_eq!(outcomes.len(), 1);
        outcomes.remove(0).1
    }

    pub async fn receive_all(&self, arrivals: Vec<Arrival>) -> Vec<(OwnedEventId, Outcome)> {
        self.rooms
            .receive(&self.remote.room_id, arrivals)
            .await
            .unwrap()
    }

    /// Makes an event, which comes in as news.
    pub async fn deliver(&mut self, draft: Draft) -> (OwnedEventId, Outcome) {
        let signed = self.remote.make(draft);
        let event_id = id(&signed);
        let outcome = self.receive(signed, Way::New).await;
        if outcome == Outcome::Settled(Verdict::Rejected) {
            self.remote.forget_state(&event_id);
        }
        (event_id, outcome)
    }

    pub async fn accepted(&mut self, draft: Draft) -> OwnedEventId {
        let (event_id, outcome) = self.deliver(draft).await;
        assert_eq!(outcome, Outcome::Settled(Verdict::Accepted));
        event_id
    }

    /// A local user speaks; the event as it was made.
    pub async fn say(&mut self, body: &str) -> Event {
        let alice: &UserId = ALICE.try_into().unwrap();
        let content = json!({ "msgtype": "m.text", "body": body });
        let mut change = self.rooms.change(&self.remote.room_id).await.unwrap();
        let placed = change
            .add(Intent::message(alice, "m.room.message", &content), None)
            .await
            .unwrap();
        change.commit().await.unwrap();
        let view = self.rooms.view(&self.remote.room_id).await.unwrap();
        let event = view.event(&placed.event_id).await.unwrap().unwrap().event;
        let state = self.remote.state_before(event.prev_events());
        let entry = (event.clone(), state);
        self.remote.events.insert(placed.event_id, entry);
        event
    }

    /// The bodies of the room's messages, in order.
    pub async fn bodies(&self) -> Vec<String> {
        let events = timeline(&self.rooms, &self.remote).await;
        let body = |event: &Event| event.content_string("body").map(|body| body.into_owned());
        events.iter().filter_map(body).collect()
    }

    /// The room's state, by the ids of its events.
    pub async fn state(&self) -> BTreeMap<(String, String), OwnedEventId> {
        let view = self.rooms.view(&self.remote.room_id).await.unwrap();
        let all = view.all_state(None).await.unwrap();
        let entry = |event: Event| {
            let key = event.state_key().unwrap().to_owned();
            let key = (event.event_type().to_owned(), key);
            (key, event.event_id().to_owned())
        };
        all.into_iter().map(|found| entry(found.event)).collect()
    }

    /// The ids of the extremities.
    pub async fn extremities(&self) -> BTreeSet<OwnedEventId> {
        let view = self.rooms.view(&self.remote.room_id).await.unwrap();
        let extremities = view.head().extremities.iter();
        let nums: Vec<_> = extremities
            .map(|num| comity_rooms::num::EventNum(*num))
            .collect();
        let found = view.load(&nums).await.unwrap();
        found
            .into_iter()
            .map(|found| found.event.event_id().to_owned())
            .collect()
    }

    /// Whether the room has a number for this id.
    pub async fn knows(&self, event_id: &EventId) -> bool {
        let view = self.rooms.view(&self.remote.room_id).await.unwrap();
        view.num(event_id).await.unwrap().is_some()
    }
}

async fn timeline(rooms: &Rooms, remote: &Remote) -> Vec<Event> {
    let view = rooms.view(&remote.room_id).await.unwrap();
    let (mut found, more) = view.timeline(Span::latest(2_000)).await.unwrap();
    assert!(!more);
    found.sort_by_key(comity_rooms::Found::place);
    found.into_iter().map(|found| found.event).collect()
}
