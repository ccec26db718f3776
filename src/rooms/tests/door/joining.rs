//! Two servers and the memberships between them: joins, leaves, knocks, invites, history.

use std::sync::Arc;

use async_trait::async_trait;
use comity_protocol::{
    auth::Membership,
    event::{Event, Limits, Signed, WellFormed},
    id::{OwnedEventId, OwnedRoomId, OwnedServerName, RoomAliasId, RoomId, ServerName, UserId},
    room_version::RoomVersion,
    sign::{KeyRing, KeyValidity, PublishedKey, SigningKey},
};
use comity_rooms::{
    Arrival, Config, DirectoryFilter, DirectoryPage, Elsewhere, Entered, Entry, Filled, Hole,
    Intent, Join, Outcome, PeerView, Placed, PolicyServer, Profile, Remote as RemoteRoom, Resolved,
    RoomError, Rooms, Run, Span, Way, log,
    num::EventNum,
    tables::{Mode, Verdict},
};
use comity_runtime::Runtime;
use comity_storage::{Engine, Options, Store, TenantId, engine::Memory};
use serde_json::{Map, Value, json, value::RawValue, value::to_raw_value};

use crate::remote::{ADMIN, ALICE, Draft, USERS, World, id, lanes};

pub const SOME: [RoomVersion; 4] = [
    RoomVersion::V1,
    RoomVersion::V6,
    RoomVersion::V10,
    RoomVersion::V12,
];
pub const BOB: &str = "@bob:elsewhere";
const CAROL: &str = "@carol:elsewhere";

pub fn name(text: &str) -> &ServerName {
    text.try_into().unwrap()
}

pub fn user(text: &str) -> &UserId {
    text.try_into().unwrap()
}

fn key(seed: u8) -> SigningKey {
    SigningKey::from_seed("1", &[seed; 32]).unwrap()
}

/// The keys of the servers of these tests.
pub struct Ring;

impl KeyRing for Ring {
    fn key(&self, server: &ServerName, _: &str) -> Option<PublishedKey> {
        let seed = match server.as_str() {
            "localhost" => 7,
            "elsewhere" => 9,
            _ => 8,
        };
        Some(PublishedKey {
            key: key(seed).verify_key(),
            validity: KeyValidity::Until(i64::MAX),
        })
    }
}

fn raw(event: &Event) -> Box<RawValue> {
    RawValue::from_string(event.json().to_owned()).unwrap()
}

pub fn read(event: &Event) -> WellFormed {
    WellFormed::parse(event.version(), event.json().as_bytes(), Limits::Past).unwrap()
}

pub fn signed(event: &Event) -> Signed {
    read(event).verify(&Ring).unwrap()
}

/// A second server, which is in no room.
async fn second() -> Rooms {
    let options = Options {
        lanes: lanes(),
        sync: true,
        on_fatal: Arc::new(|_| {}),
        appliers: Vec::new(),
    };
    let tenant = Store::new(
        Engine::Memory(Memory::new()),
        options,
        Runtime::simulated(2),
    )
    .tenant(TenantId(1))
    .await
    .unwrap();
    let config = Config {
        server_name: name("elsewhere").to_owned(),
        default_version: RoomVersion::V12,
        encryption: Default::default(),
    };
    Rooms::new(tenant, config, key(9))
}

/// What one of two servers asks of the other, without a network between them.
struct Bridge {
    us: Rooms,
    them: Rooms,
    /// They don't answer.
    dead: bool,
}

impl Bridge {
    fn between(us: &Rooms, them: &Rooms) -> Arc<Self> {
        let (us, them, dead) = (us.clone(), them.clone(), false);
        Arc::new(Self { us, them, dead })
    }

    fn me(&self) -> &ServerName {
        self.us.server_name()
    }

    /// Makes a membership by their template.
    async fn made(
        &self,
        user: &UserId,
        room_id: &RoomId,
        membership: Membership,
        content: Map<String, Value>,
    ) -> Result<Signed, RoomError> {
        if self.dead {
            std::future::pending::<()>().await;
        }
        let known: Vec<String> = RoomVersion::ALL.map(|v| v.as_str().to_owned()).to_vec();
        let template = self
            .them
            .template(self.me(), room_id, user, membership, Some(&known))
            .await?;
        let event = &template.event;
        self.us
            .complete(template.version, event, room_id, user, membership, content)
    }
}

const NOT_HERE: RoomError = RoomError::OtherServer("not between these two");

#[async_trait]
impl Elsewhere for Bridge {
    async fn join(
        &self,
        user: &UserId,
        room_id: &RoomId,
        _: &[OwnedServerName],
        content: Map<String, Value>,
    ) -> Result<(), RoomError> {
        let join = self.made(user, room_id, Membership::Join, content).await?;
        let entry = answer(&self.them, self.me(), room_id, read(join.event())).await?;
        let news = match self.us.enter(room_id, entry).await? {
            Entered::Placed(_) => return Ok(()),
            Entered::Before(join) => Arrival {
                event: join,
                way: Way::New,
            },
        };
        self.us.receive(room_id, vec![news]).await.map(drop)
    }

    async fn knock(
        &self,
        user: &UserId,
        room_id: &RoomId,
        via: &[OwnedServerName],
        content: Map<String, Value>,
    ) -> Result<(), RoomError> {
        let knock = self.made(user, room_id, Membership::Knock, content).await?;
        let event = read(knock.event());
        let state = self.them.send_knock(self.me(), room_id, event, &Ring);
        let state: Vec<_> = state.await?.iter().map(raw).collect();
        self.us.keep_knock(&knock, &state, via).await
    }

    async fn leave(
        &self,
        user: &UserId,
        room_id: &RoomId,
        _: &[OwnedServerName],
        content: Map<String, Value>,
    ) -> Result<Signed, RoomError> {
        let leave = self.made(user, room_id, Membership::Leave, content).await?;
        let event = read(leave.event());
        let sent = self.them.send_leave(self.me(), room_id, event, &Ring);
        sent.await.map(|()| leave)
    }

    async fn invite(&self, invite: Signed, state: Vec<Event>) -> Result<Signed, RoomError> {
        let event = invite.event();
        let state: Vec<_> = state.iter().map(raw).collect();
        self.them
            .receive_invite(self.me(), event.room_id(), read(event), &state, &Ring)
            .await
    }

    async fn recommend(&self, _: &PolicyServer, _: Signed) -> Result<Signed, RoomError> {
        Err(NOT_HERE)
    }

    async fn profile(&self, _: &UserId, _: Option<&str>) -> Result<Map<String, Value>, RoomError> {
        Err(NOT_HERE)
    }

    async fn backfill(&self, room_id: &RoomId, hole: &Hole) -> Result<(), RoomError> {
        let view = self.them.peer_view(self.me(), room_id).await?;
        let events = view.backfill(&hole.missing, 7).await?;
        let oldest = events.last().ok_or(NOT_HERE)?;
        let state = view.state_before(oldest.event_id()).await?;
        let run = || async {
            Ok::<_, RoomError>(Run {
                seq: hole.seq,
                events: events.iter().map(signed).collect(),
                state: view.ids(&state.state).await?,
            })
        };
        if let Filled::Wanted(wanted) = self.us.fill(room_id, run().await?).await? {
            let outliers = view.pdus(&state.state).await?.into_iter();
            let outliers = outliers.chain(view.pdus(&state.auth_chain).await?);
            let arrivals = outliers.map(|event| Arrival {
                event: signed(&event),
                way: Way::Outlier,
            });
            self.us.receive(room_id, arrivals.collect()).await?;
            let filled = self.us.fill(room_id, run().await?).await?;
            assert!(matches!(filled, Filled::Placed(_)), "{wanted:?}");
        }
        Ok(())
    }

    async fn resolve_alias(&self, _: &RoomAliasId) -> Result<Resolved, RoomError> {
        Err(NOT_HERE)
    }

    async fn directory(
        &self,
        _: &ServerName,
        _: &DirectoryFilter,
        _: usize,
        _: Option<&str>,
    ) -> Result<DirectoryPage, RoomError> {
        Err(NOT_HERE)
    }

    async fn hierarchy(
        &self,
        _: &RoomId,
        _: &[OwnedServerName],
        _: bool,
    ) -> Result<RemoteRoom, RoomError> {
        Err(NOT_HERE)
    }

    async fn near(
        &self,
        _: &RoomId,
        _: i64,
        _: bool,
        _: &[OwnedServerName],
    ) -> Result<Option<(OwnedEventId, i64)>, RoomError> {
        Err(NOT_HERE)
    }
}

/// Events as they go over the wire.
pub async fn pdus(view: &PeerView, nums: &[EventNum]) -> Vec<Signed> {
    view.pdus(nums).await.unwrap().iter().map(signed).collect()
}

/// What a server of the room answers to a join.
async fn answer(
    host: &Rooms,
    origin: &ServerName,
    room_id: &RoomId,
    join: WellFormed,
) -> Result<Entry, RoomError> {
    let version = host.room_version(room_id).await?;
    let admission = host.send_join(origin, room_id, join, &Ring).await?;
    let state = admission.state().await?;
    let view = admission.view();
    Ok(Entry {
        version,
        join: signed(admission.event()),
        state: pdus(view, &state.state).await,
        auth_chain: pdus(view, &state.auth_chain).await,
        omitted: None,
        unchecked: Vec::new(),
    })
}

/// Two servers, one with a room; each asks the other.
pub async fn two(version: RoomVersion) -> (World, Rooms, OwnedRoomId) {
    let mut world = World::new(version).await;
    let there = second().await;
    world.order.0.push(there.clone());
    there.use_elsewhere(Bridge::between(&there, &world.rooms));
    world
        .rooms
        .use_elsewhere(Bridge::between(&world.rooms, &there));
    let room_id = world.remote.room_id.clone();
    (world, there, room_id)
}

pub async fn enter(rooms: &Rooms, room_id: &RoomId, who: &str) -> Result<Placed, RoomError> {
    let via = vec![name("localhost").to_owned()];
    let request = Join {
        via,
        ..Join::default()
    };
    rooms.join(user(who), room_id, request).await
}

pub async fn say(rooms: &Rooms, room_id: &RoomId, who: &str, body: &str) -> Event {
    let content = json!({ "msgtype": "m.text", "body": body });
    let mut change = rooms.change(room_id).await.unwrap();
    let intent = Intent::message(user(who), "m.room.message", &content);
    let placed = change.add(intent, None).await.unwrap();
    change.commit().await.unwrap();
    let view = rooms.view(room_id).await.unwrap();
    view.event(&placed.event_id).await.unwrap().unwrap().event
}

pub async fn hears(rooms: &Rooms, room_id: &RoomId, event: &Event) -> Outcome {
    let arrival = Arrival {
        event: signed(event),
        way: Way::New,
    };
    let mut outcomes = rooms.receive(room_id, vec![arrival]).await.unwrap();
    outcomes.remove(0).1
}

/// The room's order, oldest first.
pub async fn order(rooms: &Rooms, room_id: &RoomId) -> Vec<OwnedEventId> {
    let view = rooms.view(room_id).await.unwrap();
    let (mut found, _) = view.timeline(Span::latest(1_000)).await.unwrap();
    found.reverse();
    let ids = found.iter().map(|found| found.event.event_id().to_owned());
    ids.collect()
}

pub async fn state(rooms: &Rooms, room_id: &RoomId) -> Vec<OwnedEventId> {
    let view = rooms.view(room_id).await.unwrap();
    let all = view.all_state(None).await.unwrap().into_iter();
    let mut ids: Vec<_> = all.map(|found| found.event.event_id().to_owned()).collect();
    ids.sort();
    ids
}

async fn membership(rooms: &Rooms, room_id: &RoomId, who: &str) -> Option<String> {
    let row = rooms.member(user(who), room_id).await.unwrap();
    row.map(|row| row.value.membership)
}

pub async fn mode(rooms: &Rooms, room_id: &RoomId) -> Mode {
    rooms.view(room_id).await.unwrap().head().mode
}

pub const ACCEPTED: Outcome = Outcome::Settled(Verdict::Accepted);

/// A join through another server makes the room whole on ours, in every room version: the same
/// state, and what either says is part of it on both.
#[tokio::test(start_paused = true)]
async fn a_room_is_entered() {
    for version in RoomVersion::ALL {
        let (world, there, room_id) = two(version).await;
        assert!(there.view(&room_id).await.is_err());
        let joined = enter(&there, &room_id, BOB).await.unwrap();
        assert_eq!(
            state(&there, &room_id).await,
            state(&world.rooms, &room_id).await
        );
        let placed = std::slice::from_ref(&joined.event_id);
        assert_eq!(order(&there, &room_id).await, placed);
        let hosts = world.rooms.summary(&room_id).await.unwrap();
        let ours = there.summary(&room_id).await.unwrap();
        assert_eq!((ours.joined, ours.ours), (hosts.joined, 1), "{version}");
        assert_eq!(hosts.ours, 1);
        assert_eq!(
            membership(&there, &room_id, BOB).await.as_deref(),
            Some("join")
        );

        let hello = say(&there, &room_id, BOB, "hello").await;
        assert_eq!(hello.prev_events(), [joined.event_id]);
        assert_eq!(
            hears(&world.rooms, &room_id, &hello).await,
            ACCEPTED,
            "{version}"
        );
        let hi = say(&world.rooms, &room_id, ALICE, "hi").await;
        assert_eq!(hears(&there, &room_id, &hi).await, ACCEPTED, "{version}");
        // A second user of that server needs nobody else.
        enter(&there, &room_id, CAROL).await.unwrap();
        let again = enter(&there, &room_id, CAROL).await.unwrap();
        assert_eq!(order(&there, &room_id).await.last(), Some(&again.event_id));
    }
}

/// When the last user of ours leaves, the room is left: what is known of it is told to those in it, who may lack what was said here,
/// and to nobody else. Whoever joins again enters the room as it is now; what was before is still there.
#[tokio::test(start_paused = true)]
async fn a_room_is_left_and_entered_again() {
    for version in SOME {
        let (world, there, room_id) = two(version).await;
        enter(&there, &room_id, BOB).await.unwrap();
        say(&there, &room_id, BOB, "mine").await;
        let before = order(&there, &room_id).await;
        for event_id in &before[1..] {
            let view = there.view(&room_id).await.unwrap();
            let event = view.event(event_id).await.unwrap().unwrap().event;
            assert_eq!(hears(&world.rooms, &room_id, &event).await, ACCEPTED);
        }
        there.leave(user(BOB), &room_id, None).await.unwrap();
        assert_eq!(mode(&there, &room_id).await, Mode::Left);
        let left = order(&there, &room_id).await.pop().unwrap();
        let leave = there
            .view(&room_id)
            .await
            .unwrap()
            .event(&left)
            .await
            .unwrap()
            .unwrap();
        assert_eq!(hears(&world.rooms, &room_id, &leave.event).await, ACCEPTED);
        assert_eq!(world.rooms.servers_in(&room_id).await.unwrap().len(), 3);

        say(&world.rooms, &room_id, ALICE, "alone").await;
        let told = there.peer_view(name("localhost"), &room_id).await.unwrap();
        for event_id in &before {
            assert!(told.event(event_id).await.is_ok(), "{version}");
        }
        let refused = there.peer_view(name("stranger"), &room_id).await;
        assert!(matches!(refused, Err(RoomError::Forbidden(_))), "{version}");
        let refused = there.template(
            name("localhost"),
            &room_id,
            user(ALICE),
            Membership::Join,
            None,
        );
        assert!(
            matches!(refused.await, Err(RoomError::UnknownRoom)),
            "{version}"
        );

        let again = enter(&there, &room_id, BOB).await.unwrap();
        assert_eq!(mode(&there, &room_id).await, Mode::Joined);
        assert_eq!(
            state(&there, &room_id).await,
            state(&world.rooms, &room_id).await
        );
        let mut expected = before.clone();
        expected.extend([left, again.event_id.clone()]);
        assert_eq!(order(&there, &room_id).await, expected, "{version}");
        let view = there.view(&room_id).await.unwrap();
        let hole = view.last_hole(0, (again.seq, 1)).await.unwrap();
        assert_eq!(hole, Some(again.seq));
    }
}

/// What was before our join and comes in later, oldest first, because something else rests on it, is the past: where it reaches the join it
/// is no end of the graph, whether it had been here as part of the state or not, and whatever else that came meanwhile follows it.
#[tokio::test(start_paused = true)]
async fn the_past_is_no_end() {
    let in_turn = SOME
        .iter()
        .flat_map(|version| [(*version, false), (*version, true)]);
    for (version, comes_first) in in_turn {
        let (mut world, there, room_id) = two(version).await;
        let fork = world.tip.clone();
        for who in [USERS[0], USERS[1]] {
            let profile = json!({ "membership": "join", "displayname": "new" });
            let profile = Draft::state(who, "m.room.member", who, profile, &[&world.tip.clone()]);
            world.tip = world.accepted(profile).await;
            world.tip = world.say("here").await.event_id().to_owned();
        }
        enter(&there, &room_id, BOB).await.unwrap();
        // That follows it, too, or what was before: it is the past all the same.
        let behind = if comes_first { &world.tip } else { &fork };
        let apart = Draft::message(ADMIN, "apart", &[behind]);
        let apart = world.remote.make(apart);
        let apart_id = id(&apart);
        world.receive(apart.clone(), Way::New).await;
        if comes_first {
            let host = world.rooms.peer_view(name("elsewhere"), &room_id);
            let host = host.await.unwrap();
            let state = host.state_before(&apart_id).await.unwrap();
            let arrival = Arrival {
                event: apart,
                way: Way::Beyond(host.ids(&state.state).await.unwrap()),
            };
            let came = there.receive(&room_id, vec![arrival]).await.unwrap();
            assert_eq!(came[0].1, ACCEPTED, "{version}");
        }
        let all = order(&world.rooms, &room_id).await;
        let view = world.rooms.view(&room_id).await.unwrap();
        for event_id in all {
            let event = view.event(&event_id).await.unwrap().unwrap().event;
            assert_eq!(hears(&there, &room_id, &event).await, ACCEPTED, "{version}");
        }
        let both = [&world.rooms, &there];
        let mut ends = Vec::new();
        for rooms in both {
            let view = rooms.view(&room_id).await.unwrap();
            let nums = view.head().extremities.iter().map(|num| EventNum(*num));
            let found = view.load(&nums.collect::<Vec<_>>()).await.unwrap();
            let mut ids: Vec<_> = found
                .iter()
                .map(|end| end.event.event_id().to_owned())
                .collect();
            ids.sort();
            ends.push(ids);
        }
        assert_eq!(ends[0].len(), 2, "{version}");
        assert!(ends[0].contains(&apart_id));
        assert_eq!(ends[0], ends[1], "{version}");
        assert_eq!(
            state(&there, &room_id).await,
            state(&world.rooms, &room_id).await
        );
    }
}

/// History before our time is fetched where it is asked for, until the room's beginning, and comes
/// in its order; the end of the room isn't touched.
#[tokio::test(start_paused = true)]
async fn history_fills_holes() {
    for version in RoomVersion::ALL {
        let (mut world, there, room_id) = two(version).await;
        for at in 0..6 {
            world.say(&at.to_string()).await;
        }
        let root = world.say("root").await.event_id().to_owned();
        let mut change = world.rooms.change(&room_id).await.unwrap();
        let thread = json!({ "m.relates_to": { "rel_type": "m.thread", "event_id": root } });
        for _ in 0..3 {
            let reply = Intent::message(user(ALICE), "m.room.message", &thread);
            change.add(reply, None).await.unwrap();
        }
        change.commit().await.unwrap();
        let target = world.say("secret").await;
        let mut change = world.rooms.change(&room_id).await.unwrap();
        let redaction = Intent {
            redacts: Some(target.event_id().to_owned()),
            ..Intent::message(user(ALICE), "m.room.redaction", &json!({}))
        };
        change.add(redaction, None).await.unwrap();
        change.commit().await.unwrap();
        let joined = enter(&there, &room_id, BOB).await.unwrap();
        let extremities = there
            .view(&room_id)
            .await
            .unwrap()
            .head()
            .extremities
            .clone();
        let all = order(&world.rooms, &room_id).await;
        let mut log = there.tenant().follow(there.tenant().heads());
        let mut known = 1;
        for _ in 0..20 {
            let view = there.view(&room_id).await.unwrap();
            let view = there
                .with_history(view, (joined.seq, 1), 1_000)
                .await
                .unwrap();
            let now = order(&there, &room_id).await;
            assert_eq!(now[..], all[all.len() - now.len()..], "{version}");
            if now.len() == known {
                assert_eq!(view.last_hole(0, (joined.seq, 1)).await.unwrap(), None);
                break;
            }
            known = now.len();
        }
        assert_eq!(known, all.len(), "{version}");
        // Law 2: the log says of every place that something stands there now.
        let mut lowest = 0;
        for record in log
            .next()
            .await
            .unwrap()
            .iter()
            .flat_map(|logged| &logged.records)
        {
            assert_eq!(record.kind, log::kind::FETCHED);
            let fetched: log::Fetched = log::read(record).unwrap();
            assert_eq!((fetched.seq, fetched.end), (joined.seq, lowest));
            lowest = fetched.lowest;
        }
        assert_eq!(
            usize::try_from(-lowest).unwrap(),
            all.len() - 1,
            "{version}"
        );
        let view = there.view(&room_id).await.unwrap();
        assert_eq!(view.head().extremities, extremities);
        let redacted = view.event(target.event_id()).await.unwrap().unwrap();
        assert_eq!(redacted.event.content_member("body"), None, "{version}");
        let say = say(&there, &room_id, BOB, "now").await;
        assert_eq!(say.prev_events(), [joined.event_id]);
    }
}

/// A page that doesn't come upon a hole asks nobody; a run that has nothing to do with it is not
/// looked at.
#[tokio::test(start_paused = true)]
async fn only_what_the_hole_misses_is_taken() {
    let (mut world, there, room_id) = two(RoomVersion::V11).await;
    let joined = enter(&there, &room_id, BOB).await.unwrap();
    let stray = world.say("later").await;
    let run = Run {
        seq: joined.seq,
        events: vec![signed(&stray)],
        state: Vec::new(),
    };
    assert_eq!(
        there.fill(&room_id, run.clone()).await.unwrap(),
        Filled::Placed(0)
    );
    let elsewhere = Run { seq: 17, ..run };
    assert_eq!(
        there.fill(&room_id, elsewhere).await.unwrap(),
        Filled::Placed(0)
    );
    assert_eq!(order(&there, &room_id).await, [joined.event_id]);
    let view = there.view(&room_id).await.unwrap();
    let view = there.with_history(view, (joined.seq, 1), 1).await.unwrap();
    assert_eq!(
        view.last_hole(0, (joined.seq, 1)).await.unwrap(),
        Some(joined.seq)
    );
    assert_eq!(order(&there, &room_id).await.len(), 1);
}

/// C5: an answer without the room's create event, or with another's, makes no room; what isn't
/// allowed in it is no part of the state; another answer may come after it.
#[tokio::test(start_paused = true)]
async fn c5_poisoned_answers() {
    for version in SOME {
        let (mut world, there, room_id) = two(version).await;
        let bridge = Bridge::between(&there, &world.rooms);
        let join = bridge.made(user(BOB), &room_id, Membership::Join, Map::new());
        let join = read(join.await.unwrap().event());
        let good = answer(&world.rooms, name("elsewhere"), &room_id, join)
            .await
            .unwrap();

        let is_create = |event: &Signed| event.event().event_type() == "m.room.create";
        let mut headless = good.clone();
        headless.state.retain(|event| !is_create(event));
        headless.auth_chain.retain(|event| !is_create(event));
        let refused = there.enter(&room_id, headless).await;
        assert!(refused.is_err(), "{version}");
        assert!(there.view(&room_id).await.is_err(), "{version}");

        let other = World::new(if version == RoomVersion::V10 {
            RoomVersion::V11
        } else {
            RoomVersion::V10
        });
        let other = other.await;
        let foreign = other.rooms.view(&other.remote.room_id).await.unwrap();
        let foreign = foreign.state("m.room.create", "").await.unwrap().unwrap();
        let mut strange = good.clone();
        strange.state.retain(|event| !is_create(event));
        strange.auth_chain.retain(|event| !is_create(event));
        strange.state.push(signed(&foreign.event));
        assert!(there.enter(&room_id, strange).await.is_err(), "{version}");
        let mut doubled = good.clone();
        let member = good
            .state
            .iter()
            .find(|event| event.event().state_key() == Some(ADMIN));
        let member = member.unwrap().event();
        let twice = Draft::member(ADMIN, ADMIN, "join", &[member.event_id()]);
        doubled.state.push(world.remote.make(twice));
        assert!(there.enter(&room_id, doubled).await.is_err(), "{version}");
        assert!(there.view(&room_id).await.is_err(), "{version}");
        assert_eq!(membership(&there, &room_id, BOB).await, None);

        // Power for nobody's user, an event that rests on what isn't there.
        let levels = json!({ "users": { USERS[0]: 100 } });
        let grab = Draft::state("@x:nowhere", "m.room.topic", "", levels, &[&world.tip]);
        let grab = world.remote.make(grab);
        let lost = Draft {
            auth: Some(vec!["$lost:nowhere".try_into().unwrap()]),
            ..Draft::state(
                ADMIN,
                "m.room.name",
                "",
                json!({ "name": "x" }),
                &[&world.tip],
            )
        };
        let lost = if version < RoomVersion::V3 {
            None
        } else {
            Some(world.remote.make(lost))
        };
        let mut hostile = good.clone();
        hostile.state.push(grab.clone());
        hostile.state.extend(lost.clone());
        there.enter(&room_id, hostile).await.unwrap();
        let expected = state(&world.rooms, &room_id).await;
        assert_eq!(state(&there, &room_id).await, expected, "{version}");
        assert!(!expected.contains(&id(&grab)));
        let said = say(&there, &room_id, BOB, "in").await;
        assert_eq!(hears(&world.rooms, &room_id, &said).await, ACCEPTED);
    }
}

/// C3, C9: what isn't the join, leave or knock of its own sender, of the asking server and of that
/// room is refused, and nothing of it is stored. C4: a banned user stays out.
#[tokio::test(start_paused = true)]
async fn c3_c4_c9_handshakes_that_are_refused() {
    for version in SOME {
        let (mut world, there, room_id) = two(version).await;
        let rooms = world.rooms.clone();
        let bridge = Bridge::between(&there, &rooms);
        let join = bridge.made(user(BOB), &room_id, Membership::Join, Map::new());
        let join = join.await.unwrap();
        let (origin, event) = (name("elsewhere"), join.event());
        let elsewhere: &RoomId = "!other:localhost".try_into().unwrap();
        assert!(
            rooms
                .send_join(origin, elsewhere, read(event), &Ring)
                .await
                .is_err()
        );
        let wrong = rooms.send_leave(origin, &room_id, read(event), &Ring).await;
        assert!(matches!(wrong, Err(RoomError::Invalid(_))), "{version}");
        let wrong = rooms
            .send_join(name("remote"), &room_id, read(event), &Ring)
            .await;
        assert!(matches!(wrong, Err(RoomError::Forbidden(_))), "{version}");
        let other = world
            .remote
            .make(Draft::member(ADMIN, USERS[0], "leave", &[&world.tip]));
        let wrong = rooms
            .send_leave(name("remote"), &room_id, read(other.event()), &Ring)
            .await;
        assert!(matches!(wrong, Err(RoomError::Invalid(_))), "{version}");
        assert!(!world.knows(&id(&join)).await, "{version}");

        let ban = Draft::member(ADMIN, BOB, "ban", &[&world.tip]);
        world.tip = world.accepted(ban).await;
        let banned = rooms.send_join(origin, &room_id, read(event), &Ring).await;
        assert!(matches!(banned, Err(RoomError::Forbidden(_))), "{version}");
        assert!(!world.knows(&id(&join)).await, "{version}");
        assert!(enter(&there, &room_id, BOB).await.is_err());
    }
}

/// C2: a template of anything else than what was asked for is not signed.
#[tokio::test(start_paused = true)]
async fn c2_templates_of_something_else() {
    let (world, there, room_id) = two(RoomVersion::V11).await;
    let asked = there.template(name("x"), &room_id, user("@a:x"), Membership::Join, None);
    assert!(matches!(asked.await, Err(RoomError::UnknownRoom)));
    let known = ["11".to_owned()];
    let template = world
        .rooms
        .template(
            name("elsewhere"),
            &room_id,
            user(BOB),
            Membership::Join,
            Some(&known),
        )
        .await
        .unwrap();
    let complete = |template: &Value, membership| {
        let template = to_raw_value(template).unwrap();
        there.complete(
            RoomVersion::V11,
            &template,
            &room_id,
            user(BOB),
            membership,
            Map::new(),
        )
    };
    let good: Value = serde_json::from_str(template.event.get()).unwrap();
    let signed = complete(&good, Membership::Join).unwrap();
    assert!(read(signed.event()).verify(&Ring).is_ok());
    for (field, value) in [
        ("room_id", json!("!other:localhost")),
        ("sender", json!(CAROL)),
        ("state_key", json!(CAROL)),
        ("type", json!("m.room.power_levels")),
        ("content", json!({ "membership": "leave" })),
        ("content", json!({})),
        ("prev_events", json!("x")),
    ] {
        let mut bad = good.clone();
        bad[field] = value;
        let refused = complete(&bad, Membership::Join);
        assert!(matches!(refused, Err(RoomError::Invalid(_))), "{field}");
    }
    assert!(matches!(
        complete(&good, Membership::Leave),
        Err(RoomError::Invalid(_))
    ));
    // Content of the template's making is not ours.
    let mut bad = good;
    bad["content"]["displayname"] = json!("Mallory");
    let signed = complete(&bad, Membership::Join).unwrap();
    assert_eq!(signed.event().content().get(), r#"{"membership":"join"}"#);
}

/// C6: a restricted join is signed by the server whose user authorises it, if the user fulfils the
/// room's conditions and somebody may let them in.
#[tokio::test(start_paused = true)]
async fn c6_restricted_joins() {
    for version in [RoomVersion::V8, RoomVersion::V10, RoomVersion::V12] {
        let (mut world, there, room_id) = two(version).await;
        let alice = user(ALICE);
        let request = comity_rooms::CreateRoom {
            preset: Some(comity_rooms::Preset::Public),
            ..comity_rooms::CreateRoom::default()
        };
        let space = world
            .rooms
            .create_room(alice, &Profile::default(), request)
            .await
            .unwrap();
        let allow = json!({ "join_rule": "restricted", "allow": [
            { "type": "m.room_membership", "room_id": space },
        ] });
        let rule = Draft::state(ADMIN, "m.room.join_rules", "", allow, &[&world.tip]);
        world.tip = world.accepted(rule).await;
        let refused = enter(&there, &room_id, BOB).await;
        assert!(matches!(refused, Err(RoomError::Forbidden(_))), "{version}");
        enter(&there, &space, BOB).await.unwrap();
        let joined = enter(&there, &room_id, BOB).await.unwrap();
        for rooms in [&there, &world.rooms] {
            let view = rooms.view(&room_id).await.unwrap();
            let found = view.event(&joined.event_id).await.unwrap().unwrap().event;
            let json: Value = serde_json::from_str(found.json()).unwrap();
            let signers: Vec<_> = json["signatures"].as_object().unwrap().keys().collect();
            assert_eq!(signers, ["elsewhere", "localhost"], "{version}");
        }
    }
}

/// An invite reaches a user of another server, whose signature is part of the event; they may join,
/// or decline, and the room hears of it.
#[tokio::test(start_paused = true)]
async fn invites_go_to_other_servers() {
    for version in SOME {
        let (world, there, room_id) = two(version).await;
        let (alice, bob) = (user(ALICE), user(BOB));
        let invite = async || {
            world
                .rooms
                .invite(alice, &room_id, bob, &Profile::default(), None)
                .await
        };
        let placed = invite().await.unwrap();
        let view = world.rooms.view(&room_id).await.unwrap();
        let event = view.event(&placed.event_id).await.unwrap().unwrap().event;
        let json: Value = serde_json::from_str(event.json()).unwrap();
        assert!(json["signatures"]["elsewhere"].is_object(), "{version}");
        assert_eq!(
            membership(&there, &room_id, BOB).await.as_deref(),
            Some("invite")
        );
        let reader = there.tenant().reader();
        let kept = there
            .out_of_band(&reader, bob, &room_id)
            .await
            .unwrap()
            .unwrap();
        let types: Vec<String> = kept
            .stripped()
            .iter()
            .map(|event| serde_json::from_str::<Value>(event.get()).unwrap())
            .map(|event| event["type"].as_str().unwrap().to_owned())
            .collect();
        assert!(types.contains(&"m.room.create".to_owned()), "{version}");
        assert_eq!(types.last().unwrap(), "m.room.member", "{version}");

        there.leave(bob, &room_id, None).await.unwrap();
        assert_eq!(
            membership(&there, &room_id, BOB).await.as_deref(),
            Some("leave")
        );
        let view = world.rooms.view(&room_id).await.unwrap();
        assert_eq!(view.membership(bob).await.unwrap(), Membership::Leave);
        there.forget(bob, &room_id).await.unwrap();

        // Taken back by who sent it.
        invite().await.unwrap();
        world.rooms.kick(alice, &room_id, bob, None).await.unwrap();
        let view = world.rooms.view(&room_id).await.unwrap();
        let kick = view
            .state("m.room.member", BOB)
            .await
            .unwrap()
            .unwrap()
            .event;
        assert!(there.rescind(&signed(&kick)).await.unwrap(), "{version}");
        assert_eq!(
            membership(&there, &room_id, BOB).await.as_deref(),
            Some("leave")
        );
        assert!(!there.rescind(&signed(&kick)).await.unwrap());

        invite().await.unwrap();
        enter(&there, &room_id, BOB).await.unwrap();
        let reader = there.tenant().reader();
        assert!(
            there
                .out_of_band(&reader, bob, &room_id)
                .await
                .unwrap()
                .is_none()
        );
        assert_eq!(
            membership(&there, &room_id, BOB).await.as_deref(),
            Some("join")
        );
    }
}

/// C10: an invite is declined within two seconds, whether its server answers or not.
#[tokio::test(start_paused = true)]
async fn c10_declining_needs_nobody() {
    let world = World::new(RoomVersion::V11).await;
    let there = second().await;
    let (us, them) = (there.clone(), world.rooms.clone());
    there.use_elsewhere(Arc::new(Bridge {
        us,
        them,
        dead: true,
    }));
    world
        .rooms
        .use_elsewhere(Bridge::between(&world.rooms, &there));
    let room_id = world.remote.room_id.clone();
    let invited = world
        .rooms
        .invite(user(ALICE), &room_id, user(BOB), &Profile::default(), None)
        .await;
    invited.unwrap();
    let start = tokio::time::Instant::now();
    there.leave(user(BOB), &room_id, None).await.unwrap();
    assert!(start.elapsed().as_secs() < 2);
    assert_eq!(
        membership(&there, &room_id, BOB).await.as_deref(),
        Some("leave")
    );
    there.leave(user(BOB), &room_id, None).await.unwrap();
}

/// C1: what isn't an invite for a user of ours from the asking server is not signed. C7, C8: state
/// that isn't the room's, or too much of it.
#[tokio::test(start_paused = true)]
async fn c1_c7_c8_invites_that_are_none() {
    for version in [RoomVersion::V10, RoomVersion::V12] {
        let mut world = World::new(version).await;
        let there = second().await;
        let room_id = world.remote.room_id.clone();
        let invite = world
            .remote
            .make(Draft::member(ADMIN, BOB, "invite", &[&world.tip]));
        let view = world.rooms.view(&room_id).await.unwrap();
        let state: Vec<_> = view.introduction().await.unwrap().iter().map(raw).collect();
        let ask = async |origin: &str, room: &RoomId, event: &Signed, state: &[Box<RawValue>]| {
            let event = read(event.event());
            there
                .receive_invite(name(origin), room, event, state, &Ring)
                .await
        };
        let other: &RoomId = "!other:remote".try_into().unwrap();
        let (join, stranger) = (
            world
                .remote
                .make(Draft::member(ADMIN, ADMIN, "join", &[&world.tip])),
            world
                .remote
                .make(Draft::member(ADMIN, "@x:third", "invite", &[&world.tip])),
        );
        for refused in [
            ask("remote", other, &invite, &state).await,
            ask("third", &room_id, &invite, &state).await,
            ask("remote", &room_id, &join, &state).await,
            ask("remote", &room_id, &stranger, &state).await,
        ] {
            assert!(matches!(refused, Err(RoomError::Invalid(_))), "{version}");
        }
        assert_eq!(membership(&there, &room_id, BOB).await, None);

        let text = |text: &str| vec![RawValue::from_string(text.to_owned()).unwrap()];
        for bad in [Vec::new(), text("null"), text("\"x\""), text("{}")] {
            let answer = ask("remote", &room_id, &invite, &bad).await;
            assert_eq!(answer.is_ok(), version < RoomVersion::V12, "{version}");
        }
        let mut many = state.clone();
        let topic = json!({ "topic": "x".repeat(60_000) });
        for at in 0..100 {
            let mut draft = Draft::state(ADMIN, "m.x", &at.to_string(), topic.clone(), &[]);
            draft.prev = vec![world.tip.clone()];
            many.push(raw(world.remote.make(draft).event()));
        }
        ask("remote", &room_id, &invite, &many).await.unwrap();
        let reader = there.tenant().reader();
        let kept = there
            .out_of_band(&reader, user(BOB), &room_id)
            .await
            .unwrap()
            .unwrap();
        let size: usize = kept.state.iter().map(String::len).sum();
        assert!(size <= 256 * 1024 && kept.state.len() > 1, "{size}");
    }
}

/// A knock goes through a server of the room, is kept here, and ends with an invite.
#[tokio::test(start_paused = true)]
async fn knocks_go_to_other_servers() {
    for version in [RoomVersion::V7, RoomVersion::V12] {
        let (mut world, there, room_id) = two(version).await;
        let knock = async || {
            let via = [name("localhost").to_owned()];
            there
                .knock(
                    user(BOB),
                    &room_id,
                    &Profile::default(),
                    Some("please"),
                    &via,
                )
                .await
        };
        assert!(knock().await.is_err());
        let rule = json!({ "join_rule": "knock" });
        let rule = Draft::state(ADMIN, "m.room.join_rules", "", rule, &[&world.tip]);
        world.tip = world.accepted(rule).await;
        knock().await.unwrap();
        assert_eq!(
            membership(&there, &room_id, BOB).await.as_deref(),
            Some("knock")
        );
        let view = world.rooms.view(&room_id).await.unwrap();
        assert_eq!(view.membership(user(BOB)).await.unwrap(), Membership::Knock);
        let invited = world
            .rooms
            .invite(user(ALICE), &room_id, user(BOB), &Profile::default(), None)
            .await;
        invited.unwrap();
        assert_eq!(
            membership(&there, &room_id, BOB).await.as_deref(),
            Some("invite")
        );
        enter(&there, &room_id, BOB).await.unwrap();
        assert_eq!(mode(&there, &room_id).await, Mode::Joined);
    }
}

/// Who is invited to a room that our last member leaves can still decline. A room in which nobody is
/// left stays ours.
#[tokio::test(start_paused = true)]
async fn what_the_last_member_leaves_behind() {
    let (_world, there, room_id) = two(RoomVersion::V11).await;
    enter(&there, &room_id, BOB).await.unwrap();
    let nobody = Profile::default();
    let invited = there.invite(user(BOB), &room_id, user(CAROL), &nobody, None);
    invited.await.unwrap();
    there.leave(user(BOB), &room_id, None).await.unwrap();
    assert_eq!(mode(&there, &room_id).await, Mode::Left);
    // Nothing is left to do; who never was there learns nothing of the room.
    let last = order(&there, &room_id).await;
    there.leave(user(BOB), &room_id, None).await.unwrap();
    assert_eq!(order(&there, &room_id).await, last);
    let stranger = there.leave(user("@stranger:elsewhere"), &room_id, None);
    assert!(matches!(stranger.await, Err(RoomError::UnknownRoom)));
    there.leave(user(CAROL), &room_id, None).await.unwrap();
    assert_eq!(
        membership(&there, &room_id, CAROL).await.as_deref(),
        Some("leave")
    );

    let mut world = World::new(RoomVersion::V11).await;
    let room_id = world.remote.room_id.clone();
    for who in [ADMIN, USERS[0], USERS[1], USERS[2]] {
        let leave = Draft::member(who, who, "leave", &[&world.tip]);
        world.tip = world.accepted(leave).await;
    }
    let rooms = &world.rooms;
    rooms.leave(user(ALICE), &room_id, None).await.unwrap();
    assert_eq!(mode(rooms, &room_id).await, Mode::Joined);
    enter(rooms, &room_id, ALICE).await.unwrap();
}
