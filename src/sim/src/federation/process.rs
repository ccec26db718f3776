//! A server: its disk, its clock, its lives.

use std::{sync::Arc, time::Duration};

use comity_rooms::{RoomError, RoomView, Rooms, tables::Mode};
use comity_runtime::Runtime;
use comity_storage::{Engine, engine::Memory};
use comity_testkit::{Place, Server, Settings};
use rand::{RngExt, seq::IndexedRandom};
use rand_chacha::ChaCha8Rng;
use tokio::time::sleep;

use super::world::{Shared, World};

pub(crate) struct Process {
    pub name: String,
    lanes: u8,
    /// How much its clock is ahead of the slowest.
    ahead: Duration,
    disk: Memory,
    /// The process that was started last, whatever became of it.
    runtime: Option<Runtime>,
    life: Option<Life>,
}

/// A server that runs.
#[derive(Clone)]
pub(crate) struct Life {
    pub runtime: Runtime,
    pub router: axum::Router,
    pub rooms: Rooms,
    /// What runs ends with the last hold on it.
    _server: Arc<Server>,
}

/// How a life ends.
#[derive(Debug, Clone, Copy)]
enum End {
    /// The machine stops: what was not synced is gone.
    Power,
    /// The process does.
    Kill,
    /// It is asked to.
    Stop,
}

impl Process {
    pub fn new(number: usize, rng: &mut ChaCha8Rng) -> Self {
        Self {
            name: format!("s{number}.test"),
            lanes: *[1, 4].choose(rng).unwrap(),
            ahead: Duration::from_millis(rng.random_range(0..600_000)),
            disk: Memory::new(),
            runtime: None,
            life: None,
        }
    }

    /// The server, while it runs.
    pub fn life(&self) -> Option<Life> {
        self.life.clone()
    }
}

/// Starts a server on its disk as its last life left it.
pub(crate) async fn start(world: &Shared, at: usize) -> Result<(), String> {
    let (place, settings, runtime) = {
        let mut world = world.borrow_mut();
        let seed = world.rng.random();
        let ahead = world.teller.elapsed() + world.servers[at].ahead;
        let runtime = Runtime::simulated_ahead(seed, ahead);
        // What ended in the middle of a start or a stop doesn't share the disk.
        if let Some(before) = world.servers[at].runtime.replace(runtime.clone()) {
            before.kill();
        }
        let process = &world.servers[at];
        let place = Place {
            disk: process.disk.clone(),
            // Nobody uploads anything here.
            files: comity_testkit::files(),
            lanes: process.lanes,
            sync: true,
            runtime: runtime.clone(),
            wire: world.wire.clone(),
            on_fatal: Arc::new(|error| panic!("a store failed on a sound disk: {error}")),
        };
        let settings = Settings {
            server_name: process.name.as_str().try_into().unwrap(),
            ..Settings::default()
        };
        (place, settings, runtime)
    };
    let server = Server::open(place, settings).await;
    let server = server.map_err(|why| format!("server {at} could not open: {why}"))?;
    let life = Life {
        runtime,
        router: server.router.clone(),
        rooms: server.api.rooms.clone(),
        _server: Arc::new(server),
    };
    let mut world = world.borrow_mut();
    world.servers[at].life = Some(life);
    world.teller.tell(format!("server {at} runs"));
    Ok(())
}

/// Ends a life.
async fn stop(world: &Shared, at: usize, end: End) -> Result<(), String> {
    let Some(life) = world.borrow_mut().servers[at].life.take() else {
        return Ok(());
    };
    let (wire, name) = {
        let world = world.borrow();
        world.teller.tell(format!("server {at} ends: {end:?}"));
        (world.wire.clone(), world.servers[at].name.clone())
    };
    wire.detach(&name);
    if matches!(end, End::Stop) {
        let closed = life.rooms.tenant().close().await;
        closed.map_err(|why| format!("server {at} could not close: {why}"))?;
    }
    life.runtime.kill();
    if matches!(end, End::Power) {
        let process = &mut world.borrow_mut().servers[at];
        process.disk = process.disk.crash();
    }
    Ok(())
}

/// Servers die and come back, while users do a few things each.
pub(crate) async fn deaths(world: &Shared, pace: Duration) -> Result<(), String> {
    loop {
        let (wait, at, end, gone) = {
            let World { rng, servers, .. } = &mut *world.borrow_mut();
            (
                rng.random_range(1..12),
                rng.random_range(0..servers.len()),
                *[End::Power, End::Power, End::Kill, End::Stop]
                    .choose(rng)
                    .unwrap(),
                *[50, 1_000, 30_000].choose(rng).unwrap(),
            )
        };
        sleep(pace * wait).await;
        stop(world, at, end).await?;
        sleep(Duration::from_millis(gone)).await;
        start(world, at).await?;
    }
}

/// Starts those that don't run.
pub(crate) async fn start_all(world: &Shared) -> Result<(), String> {
    let servers = world.borrow().servers.len();
    for at in 0..servers {
        let runs = world.borrow().servers[at].life.is_some();
        if !runs {
            start(world, at).await?;
        }
    }
    Ok(())
}

/// Every row of every server is as its table writes it, and none contradicts another.
pub(crate) async fn check_rows(world: &Shared) -> Result<(), String> {
    let disks: Vec<(String, Memory)> = world
        .borrow()
        .servers
        .iter()
        .map(|one| (one.name.clone(), one.disk.clone()))
        .collect();
    for (at, (name, disk)) in disks.into_iter().enumerate() {
        let engine = Engine::Memory(disk);
        let name = name.as_str().try_into().unwrap();
        let walk = comity_testkit::check(&engine, name);
        let (rows, findings) = walk.await.map_err(|why| why.to_string())?;
        world
            .borrow()
            .teller
            .tell(format!("server {at}: {rows} rows"));
        if !findings.is_empty() {
            return Err(format!(
                "the check of server {at} found:\n{}",
                findings.join("\n")
            ));
        }
    }
    Ok(())
}

/// Whether a server that runs is in the room, as it sees that itself.
pub(crate) async fn is_inside(world: &Shared, at: usize) -> Result<bool, String> {
    let Some(life) = world.borrow().servers[at].life() else {
        return Ok(true);
    };
    let view = view(world, &life).await?;
    Ok(view.is_some_and(|view| view.head().mode == Mode::Joined))
}

/// The room as a server has it, if it ever was in it.
pub(crate) async fn view(world: &Shared, life: &Life) -> Result<Option<RoomView>, String> {
    let room = world.borrow().room.clone();
    match life.rooms.view(room.as_str().try_into().unwrap()).await {
        Ok(view) => Ok((view.head().mode != Mode::Stub).then_some(view)),
        Err(RoomError::UnknownRoom) => Ok(None),
        Err(why) => Err(format!("the room can't be read: {why}")),
    }
}
