//! The server's lives: each begins on the disk as the last one left it.

use std::{cell::RefCell, rc::Rc, sync::Arc, time::Duration};

use comity_runtime::Runtime;
use comity_storage::{Engine, engine::Memory};
use comity_testkit::{Place, Server, Settings, Wire};
use futures_util::future::select_all;
use http::Method;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::{
    fold::text,
    user::{self, Shared, V3, request},
    verify,
    weather::Weather,
    world::{Known, World},
};

const USERS: u64 = 4;
const ROOMS: usize = 2;
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// From the first start on an empty disk to the last look at it.
pub(crate) fn all(world: &mut World) -> Result<(), String> {
    let mut disk = Memory::new();
    one(world, &disk, async |world, disk| {
        let _server = open(world, disk, &Arc::default()).await?;
        found(world).await
    })?;
    for _ in 0..world.rng.random_range(2..5) {
        let (weather, power) = (world.rng.random(), world.rng.random_range(0..3) > 0);
        world.sync = world.rng.random_range(0..4) > 0;
        one(world, &disk, async |world, disk| {
            stormy(world, disk, weather).await
        })?;
        disk.set_faults(None);
        disk.reconnect();
        // A process that is killed leaves what it wrote; a machine without power what it synced.
        if power {
            world.tell("the power goes");
            disk = disk.crash();
            if !world.sync {
                world.lost();
            }
        }
        checked(world, &disk)?;
    }
    world.sync = true;
    one(world, &disk, async |world, disk| {
        let _server = open(world, disk, &Arc::default()).await?;
        verify::all(world).await
    })?;
    checked(world, &disk)
}

/// A life in a reactor of its own: when it is over, nothing of it runs on.
fn one(
    world: &mut World,
    disk: &Memory,
    body: impl AsyncFnOnce(&Shared<'_>, &Memory) -> Result<(), String>,
) -> Result<(), String> {
    let reactor = reactor();
    reactor.block_on(async {
        let runtime = Runtime::shuffled_ahead(world.rng.random(), Duration::ZERO);
        // Time goes on where the last life ended.
        tokio::time::advance(world.lived).await;
        world.runtime = Some(runtime);
        let shared: Shared<'_> = Rc::new(RefCell::new(world));
        let outcome = body(&shared, disk).await;
        let mut world = shared.borrow_mut();
        world.lived = world.clock();
        (world.router, world.runtime) = (None, None);
        outcome
    })
}

fn reactor() -> tokio::runtime::Runtime {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_time().start_paused(true).build().unwrap()
}

/// Opens a server on the disk, again and again while the disk refuses, and sends requests there from now on.
async fn open(
    world: &Shared<'_>,
    disk: &Memory,
    end: &Arc<tokio::sync::Notify>,
) -> Result<Server, String> {
    for _ in 0..50 {
        let place = {
            let world = world.borrow();
            let ends = end.clone();
            Place {
                disk: disk.clone(),
                // Nobody uploads anything here.
                files: comity_testkit::files(),
                lanes: world.lanes,
                sync: world.sync,
                runtime: world.runtime.clone().ok_or("no life")?,
                wire: Wire::new(),
                on_fatal: Arc::new(move |_| ends.notify_one()),
            }
        };
        match Server::open(place, Settings::default()).await {
            Ok(server) => {
                let mut world = world.borrow_mut();
                world.tell("a server opened");
                // It has seen to it that what it found is durable.
                world.ledger.safe();
                world.router = Some(server.router.clone());
                return Ok(server);
            }
            Err(why) => world
                .borrow()
                .tell(format!("a server could not open: {why}")),
        }
        sleep(Duration::from_millis(200)).await;
    }
    Err("no server can open the store".into())
}

/// Users and rooms, before the weather begins.
async fn found(world: &Shared<'_>) -> Result<(), String> {
    for number in 0..USERS {
        let name = format!("user{number}");
        let body = json!({
            "username": name, "password": "secret", "auth": {"type": "m.login.dummy"},
        });
        let path = format!("{V3}/register");
        let answer = must(world, usize::MAX, Method::POST, &path, body).await?;
        let mut world = world.borrow_mut();
        let rng = ChaCha8Rng::seed_from_u64(world.rng.random());
        world.users.push(Known::new(
            name,
            text(&answer, "device_id"),
            text(&answer, "access_token"),
            rng,
        ));
    }
    for _ in 0..ROOMS {
        let path = format!("{V3}/createRoom");
        let answer = must(
            world,
            0,
            Method::POST,
            &path,
            json!({"preset": "public_chat", "power_level_content_override": {"state_default": 0}}),
        )
        .await?;
        let room = text(&answer, "room_id");
        world.borrow_mut().rooms.push(room);
    }
    Ok(())
}

/// A request whose answer is a success.
pub(crate) async fn must(
    world: &Shared<'_>,
    user: usize,
    method: Method,
    path: &str,
    body: Value,
) -> Result<Value, String> {
    match request(world, user, method.clone(), path, body, PATIENCE).await {
        Some((200, body)) => Ok(body),
        other => Err(format!("{method} {path}: {other:?}")),
    }
}

/// Everybody does things while the disk does its own, until the end comes.
async fn stormy(world: &Shared<'_>, disk: &Memory, seed: u64) -> Result<(), String> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let weather = Weather::begin(disk, rng.random());
    let length = Duration::from_millis(rng.random_range(200..20_000));
    let second = (rng.random_range(0..3) == 0).then(|| rng.random_range(100..5_000));
    let graceful = rng.random_range(0..3) == 0;
    let pause = Duration::from_millis(rng.random_range(300..4_000));
    let users = (0..world.borrow().users.len()).map(|user| Box::pin(user::live(world, user)));
    // The latest is the one that has the lanes.
    let servers = RefCell::new(Vec::new());
    let lives = async {
        let first = open(world, disk, &weather.end).await?;
        let rooms = first.api.rooms.clone();
        servers.borrow_mut().push(first);
        let users = select_all(users);
        // Rows that nobody needs go while everything goes on; so soon that clients come with older tokens.
        let tending = async {
            loop {
                sleep(pause).await;
                if let Err(why) = rooms.tend(Duration::from_secs(2)).await {
                    world.borrow().tell(format!("tending failed: {why}"));
                }
            }
        };
        let takeover = async {
            if let Some(after) = second {
                sleep(Duration::from_millis(after)).await;
                let second = open(world, disk, &weather.end).await?;
                servers.borrow_mut().push(second);
            }
            std::future::pending::<Result<(), String>>().await
        };
        tokio::select! {
            biased;
            (done, ..) = users => done,
            failed = takeover => failed,
            () = tending => Ok(()),
        }
    };
    let (ended, in_peace) = tokio::select! {
        biased;
        () = weather.end.notified() => (Ok(()), false),
        () = sleep(length) => (Ok(()), graceful),
        () = weather.mend(disk, world) => (Ok(()), false),
        ended = lives => (ended, false),
    };
    for line in weather.news() {
        world.borrow().tell(line);
    }
    if in_peace && let Some(server) = servers.into_inner().pop() {
        close(world, disk, &server).await;
    }
    ended
}

/// The operator stops the server on a sound disk: nothing of it is at risk any more.
async fn close(world: &Shared<'_>, disk: &Memory, server: &Server) {
    disk.set_faults(None);
    disk.reconnect();
    let closed = server.api.accounts.tenant().close().await;
    let mut world = world.borrow_mut();
    match closed {
        Ok(()) => {
            world.tell("the server closed");
            world.ledger.safe();
            // As good as synced.
            world.sync = true;
        }
        // A lane in doubt stays so until it is asked for again.
        Err(why) => world.tell(format!("the server could not close: {why}")),
    }
}

/// Every row is as its table writes it, and none contradicts another.
fn checked(world: &World, disk: &Memory) -> Result<(), String> {
    let engine = Engine::Memory(disk.clone());
    let name = comity_testkit::Settings::default().server_name;
    let walk = comity_testkit::check(&engine, &name);
    let (rows, findings) = reactor().block_on(walk).map_err(|e| e.to_string())?;
    world.tell(format!("checked {rows} rows"));
    match findings.as_slice() {
        [] => Ok(()),
        found => Err(format!("the check found:\n{}", found.join("\n"))),
    }
}
