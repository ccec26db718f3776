//! Folding all incremental syncs gives what a fresh sync gives (docs/architecture.md, What proves it).
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)]

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use comity_accounts::{
    Accounts,
    tables::{Device, Devices, UserPart},
};
use comity_keys::Keys;
use comity_protocol::{
    auth::Membership,
    id::{OwnedRoomId, OwnedUserId, UserId},
    room_version::RoomVersion,
    sign::SigningKey,
};
use comity_rooms::{Config, Intent, Rooms};
use comity_runtime::Runtime;
use comity_storage::{Engine, Home, Lanes, Options, Store, TenantId, engine::Memory};
use comity_sync::{
    Request, Sync,
    answer::Counts,
    filter::Filter,
    sliding::{Extensions, Filters, List, RoomConfig, SlidingRequest, of_pairs},
    token::{SlidingPos, SyncToken, Token},
};
use rand::{RngExt, SeedableRng, seq::IndexedRandom};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json, value::to_raw_value};

async fn open(lanes: u8) -> (Rooms, Accounts) {
    let options = Options {
        lanes: Lanes::new(lanes).unwrap(),
        sync: true,
        on_fatal: Arc::new(|_| {}),
        appliers: Vec::new(),
    };
    let tenant = Store::new(
        Engine::Memory(Memory::new()),
        options,
        Runtime::simulated(1),
    )
    .tenant(TenantId(1))
    .await
    .unwrap();
    let config = Config {
        server_name: "localhost".try_into().unwrap(),
        default_version: RoomVersion::V12,
        encryption: Default::default(),
    };
    let rooms = Rooms::new(
        tenant.clone(),
        config,
        SigningKey::from_seed("1", &[7; 32]).unwrap(),
    );
    let accounts = Accounts::open(
        tenant,
        comity_accounts::Config {
            server_name: "localhost".into(),
            public_baseurl: "http://localhost".into(),
            token_key: [3; 32],
            registration_open: true,
            guests: false,
            shared_secret: None,
            access_token_lifetime: Duration::from_secs(300),
            password_cost: comity_accounts::PasswordCost::default(),
            limits: false,
        },
    )
    .unwrap();
    (rooms, accounts)
}

/// The delivery from its start.
fn start(rooms: &Rooms, accounts: &Accounts) -> Sync {
    let (rooms, accounts) = (rooms.clone(), accounts.clone());
    let keys = Keys::new(accounts.clone(), rooms.server_name().to_owned());
    let to_device = comity_to_device::ToDevice::new(&accounts, rooms.server_name().to_owned());
    Sync::new(rooms, accounts, keys, to_device)
}

/// What a client has put together from the answers it got.
#[derive(Default)]
struct Client {
    since: Option<SyncToken>,
    rooms: BTreeMap<String, Folded>,
}

#[derive(Default, Debug)]
struct Folded {
    state: BTreeMap<(String, String), String>,
    timeline: Vec<String>,
}

impl Client {
    async fn sync(&mut self, sync: &Sync, user: &UserId, use_state_after: bool, limit: usize) {
        let filter =
            Filter::parse(&json!({ "room": { "timeline": { "limit": limit } } }).to_string())
                .unwrap();
        let request = Request {
            user: user.to_owned(),
            device: "D".into(),
            to_device: true,
            filter,
            since: self.since.clone(),
            full_state: false,
            use_state_after,
            timeout: Duration::ZERO,
        };
        let answer = serde_json::to_value(sync.sync(&request).await.unwrap()).unwrap();
        let Token::Sync(next) = answer["next_batch"].as_str().unwrap().parse().unwrap() else {
            panic!()
        };
        self.since = Some(next);
        for (room, joined) in answer["rooms"]["join"].as_object().into_iter().flatten() {
            let folded = self.rooms.entry(room.clone()).or_default();
            if joined["timeline"]["limited"] == true {
                folded.timeline.clear();
            }
            let events = |value: &Value| value["events"].as_array().cloned().unwrap_or_default();
            if !use_state_after {
                events(&joined["state"])
                    .iter()
                    .for_each(|event| folded.state(event));
            }
            for event in events(&joined["timeline"]) {
                if !use_state_after && event.get("state_key").is_some() {
                    folded.state(&event);
                }
                let id = event["event_id"].as_str().unwrap().to_owned();
                assert!(!folded.timeline.contains(&id), "{id} came twice");
                folded.timeline.push(id);
            }
            events(&joined["state_after"])
                .iter()
                .for_each(|event| folded.state(event));
        }
        for section in ["leave", "invite", "knock"] {
            for (room, _) in answer["rooms"][section].as_object().into_iter().flatten() {
                self.rooms.remove(room);
            }
        }
    }
}

impl Folded {
    fn state(&mut self, event: &Value) {
        let text = |key: &str| event[key].as_str().unwrap().to_owned();
        self.state
            .insert((text("type"), text("state_key")), text("event_id"));
    }
}

/// What a client of sliding sync has put together.
#[derive(Default)]
struct Slider {
    pos: Option<SlidingPos>,
    rooms: BTreeMap<String, Slid>,
}

#[derive(Default, Debug)]
struct Slid {
    state: BTreeMap<(String, String), String>,
    timeline: Vec<String>,
    name: Option<String>,
    members: (u64, u64),
    bump_stamp: u64,
    unread: Counts,
}

impl Slider {
    /// Asks for a window and this much of each room; an answer may get lost.
    async fn slide(&mut self, sync: &Sync, user: &UserId, wanted: List, is_lost: bool) {
        let request = SlidingRequest {
            user: user.to_owned(),
            device: DEVICE.to_owned(),
            connection: String::new(),
            pos: self.pos.clone(),
            timeout: Duration::ZERO,
            lists: BTreeMap::from([("all".to_owned(), wanted)]),
            subscriptions: BTreeMap::new(),
            extensions: Extensions::default(),
        };
        let answer = sync.slide(&request).await.unwrap();
        if is_lost {
            return;
        }
        self.pos = Some(answer.pos.parse().unwrap());
        for (room_id, told) in answer.rooms {
            if told.stripped_state.is_some() {
                self.rooms.remove(&room_id);
                continue;
            }
            let slid = self.rooms.entry(room_id.clone()).or_default();
            if told.initial {
                *slid = Slid::default();
            }
            for event in &told.required_state {
                let event: Value = serde_json::from_str(event.get()).unwrap();
                let text = |key: &str| event[key].as_str().unwrap().to_owned();
                let key = (text("type"), text("state_key"));
                slid.state.insert(key, text("event_id"));
            }
            let timeline = told.timeline.unwrap();
            if timeline.limited || timeline.expanded {
                slid.timeline.clear();
            }
            let mut is_in = true;
            for event in &timeline.events {
                let event: Value = serde_json::from_str(event.get()).unwrap();
                let id = event["event_id"].as_str().unwrap().to_owned();
                assert!(!slid.timeline.contains(&id), "{id} came twice");
                slid.timeline.push(id);
                if event["state_key"] == user.as_str() {
                    is_in = event["content"]["membership"] == "join";
                }
            }
            slid.name = told.name.unwrap_or(slid.name.take());
            slid.members = told.members.unwrap_or(slid.members);
            slid.bump_stamp = told.bump_stamp.unwrap_or(slid.bump_stamp);
            slid.unread = told.unread;
            if !is_in {
                self.rooms.remove(&room_id);
            }
        }
    }
}

/// So many rooms, so many events of each, and this state.
fn window(last: usize, limit: u32, pairs: &[(&str, &str)], user: &UserId) -> List {
    let own = |(event_type, key): &(&str, &str)| ((*event_type).to_owned(), (*key).to_owned());
    let pairs: Vec<(String, String)> = pairs.iter().map(own).collect();
    List {
        ranges: Some(vec![(0, last)]),
        config: RoomConfig {
            timeline_limit: limit,
            required: of_pairs(&pairs, user.as_str()).into(),
        },
        ..List::default()
    }
}

/// The device that slides.
const DEVICE: &str = "D";

async fn give_device(rooms: &Rooms, user: &UserId) {
    let lane = rooms.tenant().lane(Home::User(user.as_str()));
    let key = UserPart {
        user: user.to_string(),
        part: DEVICE.to_owned(),
    };
    let device = Device {
        display_name: None,
        created_ts: 0,
    };
    let mut batch = lane.batch();
    batch.put::<Devices>(&key, &device);
    lane.commit(batch).await.unwrap();
}

async fn room(rooms: &Rooms, creator: &UserId) -> OwnedRoomId {
    let create = json!({ "room_version": "12" });
    let mut change = rooms
        .create_event(RoomVersion::V12, creator, to_raw_value(&create).unwrap())
        .await
        .unwrap();
    for intent in [
        Intent::state(
            creator,
            "m.room.member",
            creator.as_str(),
            &json!({ "membership": "join" }),
        ),
        Intent::state(
            creator,
            "m.room.join_rules",
            "",
            &json!({ "join_rule": "public" }),
        ),
        Intent::state(
            creator,
            "m.room.power_levels",
            "",
            &json!({ "state_default": 0, "kick": 0, "ban": 0 }),
        ),
    ] {
        change.add(intent, None).await.unwrap();
    }
    let room_id = change.room_id().unwrap().to_owned();
    change.commit().await.unwrap();
    room_id
}

async fn history(seed: u64, lanes: u8) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let (rooms, accounts) = open(lanes).await;
    let sync = start(&rooms, &accounts);
    let users: Vec<OwnedUserId> = ["@a:localhost", "@b:localhost", "@c:localhost"]
        .map(|user| user.try_into().unwrap())
        .into();
    give_device(&rooms, &users[1]).await;
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.push(room(&rooms, &users[0]).await);
    }
    let mut clients: Vec<(Client, bool)> =
        vec![(Client::default(), false), (Client::default(), true)];
    let mut slider = Slider::default();
    let all: &[(&str, &str)] = &[("*", "*")];
    let some: [&[(&str, &str)]; 3] = [
        all,
        &[("m.room.topic", ""), ("m.room.member", "$LAZY")],
        &[("m.room.member", "*")],
    ];
    for step in 0..60 {
        let (who, whom) = (
            users.choose(&mut rng).unwrap(),
            users.choose(&mut rng).unwrap(),
        );
        let id = ids.choose(&mut rng).unwrap();
        let member = |membership: &str| json!({ "membership": membership });
        let intent = match rng.random_range(0..9) {
            0 => Intent::state(who, "m.room.member", who.as_str(), &member("join")),
            1 => Intent::state(who, "m.room.member", who.as_str(), &member("leave")),
            2 => Intent::state(who, "m.room.member", whom.as_str(), &member("leave")),
            3 => Intent::state(who, "m.room.member", whom.as_str(), &member("invite")),
            4 => Intent::state(
                who,
                "m.room.topic",
                "",
                &json!({ "topic": step.to_string() }),
            ),
            5 => Intent::state(
                who,
                "m.room.name",
                "",
                &match step % 3 {
                    0 => json!({}),
                    _ => json!({ "name": step.to_string() }),
                },
            ),
            _ => Intent::message(
                who,
                "m.room.message",
                &json!({ "msgtype": "m.text", "body": step.to_string() }),
            ),
        };
        let mut change = rooms.change(id).await.unwrap();
        if change.add(intent, None).await.is_ok() {
            change.commit().await.unwrap();
        }
        for (client, after) in &mut clients {
            if rng.random_range(0..4) == 0 {
                client
                    .sync(&sync, &users[1], *after, rng.random_range(1..6))
                    .await;
            }
        }
        if rng.random_range(0..3) == 0 {
            let (last, limit) = (rng.random_range(0..3), rng.random_range(1..6));
            let wanted = window(last, limit, some.choose(&mut rng).unwrap(), &users[1]);
            let is_lost = slider.pos.is_some() && rng.random_range(0..4) == 0;
            slider.slide(&sync, &users[1], wanted, is_lost).await;
        }
    }
    let last = window(9, 50, all, &users[1]);
    slider.slide(&sync, &users[1], last.clone(), false).await;
    let mut fresh = Slider::default();
    fresh.slide(&sync, &users[1], last, false).await;
    let rooms_of = |slider: &Slider| slider.rooms.keys().cloned().collect::<Vec<_>>();
    assert_eq!(
        rooms_of(&slider),
        rooms_of(&fresh),
        "seed {seed}: slid rooms"
    );
    for (id, room) in &fresh.rooms {
        let slid = &slider.rooms[id];
        assert_eq!(slid.state, room.state, "seed {seed}: slid state of {id}");
        assert!(
            slid.timeline.ends_with(&room.timeline),
            "seed {seed}: slid timeline of {id}"
        );
        let rest = |room: &Slid| {
            (
                room.name.clone(),
                room.members,
                room.bump_stamp,
                room.unread,
            )
        };
        assert_eq!(rest(slid), rest(room), "seed {seed}: {id}");
    }
    for (client, after) in &mut clients {
        client.sync(&sync, &users[1], *after, 50).await;
        let mut fresh = Client::default();
        fresh.sync(&sync, &users[1], *after, 50).await;
        let joined = |client: &Client| client.rooms.keys().cloned().collect::<Vec<_>>();
        assert_eq!(joined(client), joined(&fresh), "seed {seed}: rooms");
        for (id, room) in &fresh.rooms {
            let folded = &client.rooms[id];
            assert_eq!(folded.state, room.state, "seed {seed}: state of {id}");
            let common = folded.timeline.len().min(room.timeline.len());
            let tail = |timeline: &[String]| timeline[timeline.len() - common..].to_vec();
            assert_eq!(
                tail(&folded.timeline),
                tail(&room.timeline),
                "seed {seed}: timeline of {id}"
            );
        }
        for id in &ids {
            let view = rooms.view(id).await.unwrap();
            let is_in = view.membership(&users[1]).await.unwrap() == Membership::Join;
            assert_eq!(
                is_in,
                fresh.rooms.contains_key(id.as_str()),
                "seed {seed}: membership of {id}"
            );
        }
    }
}

/// Which rooms a user's lists have, place by place, and how many; of all rooms, of the encrypted ones, and of the others.
async fn listed(sync: &Sync, user: &UserId) -> Vec<String> {
    let mut lists = BTreeMap::new();
    for is_encrypted in [None, Some(true), Some(false)] {
        for place in 0..4 {
            let list = List {
                ranges: Some(vec![(place, place)]),
                filters: Filters {
                    is_encrypted,
                    ..Filters::default()
                },
                ..List::default()
            };
            lists.insert(format!("{is_encrypted:?} {place}"), list);
        }
    }
    let request = SlidingRequest {
        user: user.to_owned(),
        device: DEVICE.to_owned(),
        connection: "lists".to_owned(),
        pos: None,
        timeout: Duration::ZERO,
        lists,
        subscriptions: BTreeMap::new(),
        extensions: Extensions::default(),
    };
    let answer = sync.slide(&request).await.unwrap();
    let rooms = answer.rooms.iter();
    let rooms =
        rooms.map(|(id, room)| format!("{id} {:?} {:?}", room.lists, room.bump_stamp.unwrap()));
    rooms.chain([format!("{:?}", answer.lists)]).collect()
}

/// Architecture, Sliding sync: rooms stand in lists as they would if the server had just been started, whatever happened to them since
/// it was: so what is kept of them is what their rows say.
#[tokio::test(start_paused = true)]
async fn what_is_kept_of_lists_is_what_a_start_reads() {
    for seed in 0..20 {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let (rooms, accounts) = open(if seed % 2 == 0 { 1 } else { 4 }).await;
        let kept = start(&rooms, &accounts);
        let users: Vec<OwnedUserId> = ["@a:localhost", "@b:localhost", "@c:localhost"]
            .map(|user| user.try_into().unwrap())
            .into();
        let mut ids = Vec::new();
        for user in &users {
            give_device(&rooms, user).await;
            ids.push(room(&rooms, user).await);
        }
        for step in 0..60 {
            let (who, whom) = (
                users.choose(&mut rng).unwrap(),
                users.choose(&mut rng).unwrap(),
            );
            let id = ids.choose(&mut rng).unwrap();
            let member = |user: &UserId, membership: &str| {
                let content = json!({ "membership": membership });
                Intent::state(who, "m.room.member", user.as_str(), &content)
            };
            let encryption = json!({ "algorithm": "m.megolm.v1.aes-sha2" });
            let intent = match rng.random_range(0..9) {
                0 | 1 => member(who, "join"),
                2 => member(who, "leave"),
                3 => member(whom, "leave"),
                4 => member(whom, "invite"),
                5 => Intent::state(who, "m.room.encryption", "", &encryption),
                6 => {
                    // Who hasn't left is refused.
                    let _ = rooms.forget(who, id).await;
                    continue;
                }
                _ => Intent::message(who, "m.room.message", &json!({ "body": step.to_string() })),
            };
            let mut change = rooms.change(id).await.unwrap();
            if change.add(intent, None).await.is_ok() {
                change.commit().await.unwrap();
            }
            let user = users.choose(&mut rng).unwrap();
            let before = listed(&kept, user).await;
            if step % 5 == 0 {
                let started = start(&rooms, &accounts);
                assert_eq!(before, listed(&started, user).await, "seed {seed}, {user}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn folding_incremental_syncs_equals_a_fresh_sync() {
    for seed in 0..100 {
        history(seed, if seed % 2 == 0 { 1 } else { 4 }).await;
    }
}
