//! How a world begins, and what happens in it until the storm is over.

use std::{cell::RefCell, rc::Rc, sync::Arc, time::Duration};

use futures_util::future::try_join_all;
use http::Method;
use parking_lot::Mutex;
use rand::{RngExt, SeedableRng, seq::IndexedRandom};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};

use super::{
    healed, judge, network, process,
    user::{self, Answer},
    world::{Person, Shared, World},
};
use crate::{fold::text, story::Story};

pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
const V3: &str = "/_matrix/client/v3";

/// A world in which everybody stays where they are once they have joined.
pub(crate) fn settled(seed: u64) -> (Story, Result<(), String>) {
    all(seed, false)
}

/// A world in which people come and go, are put out and let in.
pub(crate) fn moving(seed: u64) -> (Story, Result<(), String>) {
    all(seed, true)
}

/// All of a seed, in a reactor of its own.
fn all(seed: u64, moving: bool) -> (Story, Result<(), String>) {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let reactor = builder.enable_time().start_paused(true).build().unwrap();
    let story = Arc::new(Mutex::new(Story::default()));
    let outcome = reactor.block_on(async {
        let world: Shared = Rc::new(RefCell::new(World::new(seed, moving, &story)));
        founded(&world).await?;
        storm(&world).await?;
        if let Err(why) = healed::all(&world).await {
            judge::apart(&world).await?;
            return Err(why);
        }
        judge::all(&world).await?;
        process::check_rows(&world).await
    });
    let story = std::mem::take(&mut *story.lock());
    (story, outcome)
}

/// Servers, users, the room, and most of them in it.
async fn founded(world: &Shared) -> Result<(), String> {
    process::start_all(world).await?;
    let servers = world.borrow().servers.len();
    for server in 0..servers {
        // Two on some, so that a server may lose one and stay.
        let users = if server < 2 { 2 } else { 1 };
        for _ in 0..users {
            register(world, server).await?;
        }
    }
    let (version, levels, visibility) = {
        let mut world = world.borrow_mut();
        let World { rng, users, .. } = &mut *world;
        let mut levels = json!({});
        for person in &users[1..] {
            levels[&person.id] = json!(*[0, 50, 50, 100].choose(rng).unwrap());
        }
        if !world.version.rules().room_id_is_create_hash {
            levels[&world.users[0].id] = json!(100);
        }
        let settings = ["shared", "shared", "joined", "invited"];
        let visibility = *settings.choose(&mut world.rng).unwrap();
        (world.version.to_string(), levels, visibility)
    };
    let body = json!({
        "preset": "public_chat", "room_version": version,
        "power_level_content_override": {"users": levels},
        "initial_state": [{
            "type": "m.room.history_visibility", "state_key": "",
            "content": {"history_visibility": visibility},
        }],
    });
    let path = format!("{V3}/createRoom");
    let made = must(user::ask(world, 0, Method::POST, path, body, PATIENCE).await)?;
    let users = {
        let mut world = world.borrow_mut();
        world.room = text(&made, "room_id");
        world.users[0].inside = true;
        world.users.len()
    };
    for user in 1..users {
        // Some come in the storm.
        let comes_later = world.borrow_mut().rng.random_range(0..5) == 0;
        if !(comes_later && world.borrow().moving) {
            user::join(world, user, 0, PATIENCE).await?;
            if !world.borrow().users[user].inside {
                return Err(format!("user {user} can't join in good weather"));
            }
        }
    }
    Ok(())
}

async fn register(world: &Shared, server: usize) -> Result<(), String> {
    let number = world.borrow().users.len();
    let body = json!({
        "username": format!("u{number}"), "password": "secret", "auth": {"type": "m.login.dummy"},
    });
    let asked = (Method::POST, format!("{V3}/register"), body);
    let answer = must(user::request(world, server, None, asked, PATIENCE).await)?;
    let mut world = world.borrow_mut();
    let rng = ChaCha8Rng::seed_from_u64(world.rng.random());
    let (id, token) = (text(&answer, "user_id"), text(&answer, "access_token"));
    world.users.push(Person::new(server, id, token, rng));
    Ok(())
}

fn must(answer: Answer) -> Result<Value, String> {
    match answer {
        Some((200, body)) => Ok(body),
        other => Err(format!("in good weather: {other:?}")),
    }
}

/// Everybody does things while requests are lost, partitions come and go, servers die and come back.
async fn storm(world: &Shared) -> Result<(), String> {
    let (users, steps, pace) = {
        let mut world = world.borrow_mut();
        world.network.lock().set_stormy(true);
        let users = world.users.len();
        // As much happens in a small world as in a big one.
        let steps = 60 / u32::try_from(users).unwrap();
        (
            users,
            steps,
            *[300, 2_000, 10_000].choose(&mut world.rng).unwrap(),
        )
    };
    let pace = Duration::from_millis(pace);
    let lives = try_join_all((0..users).map(|user| user::live(world, user, steps, pace)));
    tokio::select! {
        biased;
        lived = lives => lived.map(drop),
        died = process::deaths(world, pace) => died,
        () = network::partitions(world, pace) => Ok(()),
    }
}
