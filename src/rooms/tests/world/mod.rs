//! A server's rooms over the memory engine, for the tests of what users do in them.
#![allow(dead_code)]

use std::sync::Arc;

use comity_protocol::{
    id::{OwnedRoomId, RoomId, UserId},
    room_version::RoomVersion,
    sign::SigningKey,
};
use comity_rooms::{Config, CreateRoom, Intent, Join, Placed, Preset, Profile, RoomError, Rooms};
use comity_runtime::Runtime;
use comity_storage::{Engine, Lanes, Options, Store, TenantId, engine::Memory};
use serde_json::Value;

/// The numbers of lanes that every test runs with.
pub const LANES: [u8; 2] = [1, 4];

pub async fn open(disk: &Memory, lanes: u8) -> Rooms {
    start(disk, lanes, 1).await
}

/// Each start draws its own random numbers: in old room versions event ids are made of them.
pub async fn start(disk: &Memory, lanes: u8, seed: u64) -> Rooms {
    let options = Options {
        lanes: Lanes::new(lanes).unwrap(),
        sync: true,
        on_fatal: Arc::new(|_| {}),
        appliers: Vec::new(),
    };
    let runtime = Runtime::simulated(seed);
    let tenant = Store::new(Engine::Memory(disk.clone()), options, runtime)
        .tenant(TenantId(1))
        .await
        .unwrap();
    let config = Config {
        server_name: "localhost".try_into().unwrap(),
        default_version: RoomVersion::V12,
        encryption: Default::default(),
    };
    let key = SigningKey::from_seed("1", &[7; 32]).unwrap();
    Rooms::new(tenant, config, key)
}

pub async fn fresh(lanes: u8) -> Rooms {
    open(&Memory::new(), lanes).await
}

pub fn user(id: &str) -> &UserId {
    id.try_into().unwrap()
}

pub fn profile(name: &str) -> Profile {
    Profile {
        displayname: Some(name.to_owned()),
        avatar_url: None,
    }
}

pub async fn create(rooms: &Rooms, creator: &UserId, request: CreateRoom) -> OwnedRoomId {
    rooms
        .create_room(creator, &Profile::default(), request)
        .await
        .unwrap()
}

pub async fn public_room(rooms: &Rooms, creator: &UserId) -> OwnedRoomId {
    let request = CreateRoom {
        preset: Some(Preset::Public),
        ..CreateRoom::default()
    };
    create(rooms, creator, request).await
}

pub async fn join(rooms: &Rooms, user: &UserId, room: &RoomId) -> Result<Placed, RoomError> {
    rooms.join(user, room, Join::default()).await
}

/// Sends one event by itself.
pub async fn send(rooms: &Rooms, room: &RoomId, intent: Intent) -> Result<Placed, RoomError> {
    let mut change = rooms.change(room).await?;
    let placed = change.add(intent, None).await?;
    change.commit().await?;
    Ok(placed)
}

/// The content of a current state event.
pub async fn content(rooms: &Rooms, room: &RoomId, kind: &str, key: &str) -> Option<Value> {
    let view = rooms.view(room).await.unwrap();
    let found = view.state(kind, key).await.unwrap()?;
    Some(found.event.content_as().unwrap())
}

/// The types of a room's events, in order.
pub async fn types(rooms: &Rooms, room: &RoomId) -> Vec<String> {
    let view = rooms.view(room).await.unwrap();
    let span = comity_rooms::Span::latest(1_000);
    let (found, _) = view.timeline(span).await.unwrap();
    let mut placed: Vec<_> = found
        .iter()
        .map(|found| (found.place(), found.event.event_type().to_owned()))
        .collect();
    placed.sort();
    placed.into_iter().map(|(_, kind)| kind).collect()
}
