//! Folding all incremental syncs gives what a fresh sync gives (docs/architecture.md, What proves it).
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)]

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use comity_accounts::Accounts;
use comity_keys::Keys;
use comity_protocol::{
    auth::Membership,
    id::{OwnedRoomId, OwnedUserId, UserId},
    room_version::RoomVersion,
    sign::SigningKey,
};
use comity_rooms::{Config, Intent, Rooms};
use comity_runtime::Runtime;
use comity_storage::{Engine, Lanes, Options, Store, TenantId, engine::Memory};
use comity_sync::{
    Request, Sync,
    filter::Filter,
    token::{SyncToken, Token},
};
use rand::{RngExt, SeedableRng, seq::IndexedRandom};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json, value::to_raw_value};

async fn open(lanes: u8) -> (Rooms, Sync) {
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
    let keys = Keys::new(accounts.clone(), rooms.server_name().to_owned());
    let to_device = comity_to_device::ToDevice::new(&accounts, rooms.server_name().to_owned());
    (rooms.clone(), Sync::new(rooms, accounts, keys, to_device))
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
    let (rooms, sync) = open(lanes).await;
    let users: Vec<OwnedUserId> = ["@a:localhost", "@b:localhost", "@c:localhost"]
        .map(|user| user.try_into().unwrap())
        .into();
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.push(room(&rooms, &users[0]).await);
    }
    let mut clients: Vec<(Client, bool)> =
        vec![(Client::default(), false), (Client::default(), true)];
    for step in 0..60 {
        let (who, whom) = (
            users.choose(&mut rng).unwrap(),
            users.choose(&mut rng).unwrap(),
        );
        let id = ids.choose(&mut rng).unwrap();
        let member = |membership: &str| json!({ "membership": membership });
        let intent = match rng.random_range(0..8) {
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

#[tokio::test(start_paused = true)]
async fn folding_incremental_syncs_equals_a_fresh_sync() {
    for seed in 0..100 {
        history(seed, if seed % 2 == 0 { 1 } else { 4 }).await;
    }
}
