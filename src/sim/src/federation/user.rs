//! A user at random, who talks to their own server: says things, and changes whatever makes servers disagree.

use std::time::Duration;

use axum::body::Body;
use comity_protocol::auth::Membership;
use comity_testkit::{encode, spec};
use http::{Method, Request};
use http_body_util::BodyExt;
use rand::{RngExt, seq::IndexedRandom};
use serde_json::{Value, json};
use tower::ServiceExt;

use super::{
    network::room_path,
    process::{is_inside, view},
    world::{Acknowledged, Shared, World},
};
use crate::{fold::text, slide, story::digest};

const V3: &str = "/_matrix/client/v3";

/// Pages of a room's past at the most.
const PAGES: usize = 100;

/// A status and a body, or none: nobody answered in time.
pub(crate) type Answer = Option<(u16, Value)>;

/// One request to a server, by a user if one is given.
pub(crate) async fn request(
    world: &Shared,
    server: usize,
    user: Option<usize>,
    (method, path, body): (Method, String, Value),
    patience: Duration,
) -> Answer {
    let (life, request, teller) = {
        let world = world.borrow();
        let mut request = Request::builder().method(method.clone()).uri(&path);
        if let Some(user) = user {
            let token = format!("Bearer {}", world.users[user].token);
            request = request.header("authorization", token);
        }
        let sent = match &body {
            Value::Null => Body::empty(),
            body => Body::from(body.to_string()),
        };
        let life = world.servers[server].life()?;
        (life, request.body(sent).unwrap(), world.teller.clone())
    };
    let answering = life.runtime.within(async {
        let response = life.router.oneshot(request).await.unwrap();
        let status = response.status().as_u16();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        if status < 500 {
            spec::check((method.as_str(), &path), (status, &bytes), true);
        }
        (status, bytes)
    });
    let answer = tokio::time::timeout(patience, answering).await;
    let who = user.map_or_else(|| format!("server {server}"), |user| format!("user {user}"));
    let said = match &answer {
        Ok(Some((status, bytes))) => {
            let start = String::from_utf8_lossy(&bytes[..bytes.len().min(100)]).into_owned();
            format!("{status} {} {start}", digest(bytes))
        }
        Ok(None) => "it died".to_owned(),
        Err(_) => "hung up".to_owned(),
    };
    teller.tell(format!("{who}: {method} {path} {body} → {said}"));
    let (status, bytes) = answer.ok().flatten()?;
    Some((status, serde_json::from_slice(&bytes).unwrap_or_default()))
}

/// A request of a user to their server.
pub(crate) async fn ask(
    world: &Shared,
    user: usize,
    method: Method,
    path: String,
    body: Value,
    patience: Duration,
) -> Answer {
    let server = world.borrow().users[user].server;
    request(world, server, Some(user), (method, path, body), patience).await
}

/// Does so many things, then no more.
pub(crate) async fn live(
    world: &Shared,
    user: usize,
    steps: u32,
    pace: Duration,
) -> Result<(), String> {
    for _ in 0..steps {
        let pause = world.borrow_mut().users[user].rng.random_range(0..2_000);
        tokio::time::sleep(pace * pause / 1_000).await;
        step(world, user).await?;
    }
    Ok(())
}

async fn step(world: &Shared, user: usize) -> Result<(), String> {
    let (dice, patience, pending, inside) = {
        let World { users, moving, .. } = &mut *world.borrow_mut();
        let person = &mut users[user];
        let patience = *[5, 30, 90].choose(&mut person.rng).unwrap();
        let mut dice = person.rng.random_range(0..24);
        if !*moving && matches!(dice, 16 | 18..23) {
            dice = 23;
        }
        let pending = person.pending.is_some();
        (dice, Duration::from_secs(patience), pending, person.inside)
    };
    match dice {
        0..4 => sync(world, user, patience).await,
        _ if pending => send(world, user, patience).await,
        _ if !inside => come(world, user, dice, patience).await,
        4..11 => say(world, user, patience).await,
        11 => page(world, user, patience).await,
        _ => change(world, user, dice, patience).await,
    }
}

/// Comes into the room, by one or two of the servers that may be in it.
async fn come(world: &Shared, user: usize, dice: u32, patience: Duration) -> Result<(), String> {
    let via = {
        let mut world = world.borrow_mut();
        let servers = 0..world.servers.len();
        world.users[user].rng.random_range(servers)
    };
    if dice < 23 {
        return join(world, user, via, patience).await;
    }
    let path = format!("{V3}/knock/{}", entrance(world, via));
    ask(world, user, Method::POST, path, json!({}), patience).await;
    Ok(())
}

/// The room, by some server and the creator's.
fn entrance(world: &Shared, via: usize) -> String {
    let world = world.borrow();
    let names = (&world.servers[via].name, &world.servers[0].name);
    format!("{}?via={}&via={}", encode(&world.room), names.0, names.1)
}

pub(crate) async fn join(
    world: &Shared,
    user: usize,
    via: usize,
    patience: Duration,
) -> Result<(), String> {
    let server = world.borrow().users[user].server;
    if !is_inside(world, server).await? {
        let ledger = &mut world.borrow_mut().ledger;
        let of_server = ledger.iter_mut().filter(|entry| entry.server == server);
        of_server.for_each(|entry| entry.parted = true);
    }
    world.borrow_mut().users[user].joining = true;
    let path = format!("{V3}/join/{}", entrance(world, via));
    let answer = ask(world, user, Method::POST, path, json!({}), patience).await;
    if matches!(answer, Some((200, _))) {
        let person = &mut world.borrow_mut().users[user];
        (person.inside, person.joining) = (true, false);
    }
    Ok(())
}

/// Says something new.
pub(crate) async fn say(world: &Shared, user: usize, patience: Duration) -> Result<(), String> {
    {
        let person = &mut world.borrow_mut().users[user];
        let number = person.number();
        let text = format!("{} {number}", person.id);
        person.pending = Some((format!("t{number}"), text));
    }
    send(world, user, patience).await
}

/// Sends the message that waits for its answer, the first time or again.
pub(crate) async fn send(world: &Shared, user: usize, patience: Duration) -> Result<(), String> {
    let (path, body) = {
        let world = world.borrow();
        let Some((txn, text)) = &world.users[user].pending else {
            return Ok(());
        };
        let path = room_path(&world.room, &format!("send/m.room.message/{txn}"));
        (path, json!({"msgtype": "m.text", "body": text}))
    };
    let answer = ask(world, user, Method::PUT, path, body, patience).await;
    if matches!(answer, Some((200 | 400..429, _))) {
        world.borrow_mut().users[user].pending = None;
    }
    acknowledged(world, user, &answer);
    Ok(())
}

/// Notes an event that was acknowledged.
fn acknowledged(world: &Shared, user: usize, answer: &Answer) {
    if let Some((200, body)) = answer
        && body["event_id"].is_string()
    {
        let mut world = world.borrow_mut();
        let server = world.users[user].server;
        world.ledger.push(Acknowledged {
            server,
            event: text(body, "event_id"),
            parted: false,
        });
    }
}

/// Changes the room, or who is in it.
async fn change(world: &Shared, user: usize, dice: u32, patience: Duration) -> Result<(), String> {
    if dice == 14 || dice == 15 {
        return powers(world, user, patience).await;
    }
    let (method, path, body) = {
        let mut world = world.borrow_mut();
        let room = world.room.clone();
        // Nobody who acts at random acts against the creator: they are to see all of it.
        let others: Vec<String> = (world.users.iter().enumerate().skip(1))
            .filter(|(other, _)| *other != user)
            .map(|(_, person)| person.id.clone())
            .collect();
        let person = &mut world.users[user];
        let number = person.number();
        let rng = &mut person.rng;
        let target = others.choose(rng).cloned().unwrap_or_default();
        let message = person.messages.choose(rng).cloned();
        let state = |kind: &str, content: Value| {
            (
                Method::PUT,
                room_path(&room, &format!("state/{kind}")),
                content,
            )
        };
        let against = |verb: &str| {
            let body = json!({"user_id": target});
            (Method::POST, room_path(&room, verb), body)
        };
        match (dice, message) {
            (12, _) => state("m.room.topic", json!({"topic": format!("topic {number}")})),
            (13, _) => state("m.room.name", json!({"name": format!("name {number}")})),
            (16, _) => {
                let rule = *["public", "public", "invite", "knock"].choose(rng).unwrap();
                state("m.room.join_rules", json!({"join_rule": rule}))
            }
            (17, _) => {
                let settings = ["shared", "joined", "invited", "world_readable"];
                let setting = *settings.choose(rng).unwrap();
                state(
                    "m.room.history_visibility",
                    json!({"history_visibility": setting}),
                )
            }
            (18, _) => against("kick"),
            (19, _) => against("ban"),
            (20, _) => against("unban"),
            (21, _) => against("invite"),
            (22, _) if user > 0 => {
                person.inside = false;
                (Method::POST, room_path(&room, "leave"), json!({}))
            }
            (_, Some(event)) => {
                let path = format!("redact/{}/t{number}", encode(&event));
                (Method::PUT, room_path(&room, &path), json!({}))
            }
            _ => state("m.room.topic", json!({"topic": format!("topic {number}")})),
        }
    };
    let answer = ask(world, user, method, path, body, patience).await;
    acknowledged(world, user, &answer);
    Ok(())
}

/// Gives somebody another power level, or an action another price.
async fn powers(world: &Shared, user: usize, patience: Duration) -> Result<(), String> {
    let path = room_path(&world.borrow().room, "state/m.room.power_levels");
    let answer = ask(
        world,
        user,
        Method::GET,
        path.clone(),
        Value::Null,
        patience,
    )
    .await;
    let Some((200, mut content)) = answer else {
        return Ok(());
    };
    {
        let mut world = world.borrow_mut();
        let others: Vec<String> = world.users[1..].iter().map(|one| one.id.clone()).collect();
        let rng = &mut world.users[user].rng;
        match rng.random_range(0..4) {
            0 => {
                let action = *["ban", "kick", "redact", "invite"].choose(rng).unwrap();
                content[action] = json!(*[0, 25, 50].choose(rng).unwrap());
            }
            1 => {
                let kinds = ["m.room.topic", "m.room.name", "m.room.join_rules"];
                let kind = *kinds.choose(rng).unwrap();
                content["events"][kind] = json!(*[0, 25, 50].choose(rng).unwrap());
            }
            _ => {
                let target = others.choose(rng).unwrap();
                content["users"][target] = json!(*[0, 25, 50, 100].choose(rng).unwrap());
            }
        }
    }
    let answer = ask(world, user, Method::PUT, path, content, patience).await;
    acknowledged(world, user, &answer);
    Ok(())
}

/// Reads a page of the past, which may be on other servers.
async fn page(world: &Shared, user: usize, patience: Duration) -> Result<(), String> {
    page_from(world, user, None, patience).await.map(drop)
}

/// Reads all of the past that there is.
pub(crate) async fn look_back(
    world: &Shared,
    user: usize,
    patience: Duration,
) -> Result<(), String> {
    let mut from = None;
    for _ in 0..PAGES {
        from = page_from(world, user, from.as_deref(), patience).await?;
        if from.is_none() {
            return Ok(());
        }
    }
    Err(format!("user {user} finds no beginning"))
}

/// Reads a page of the past; where the next begins.
async fn page_from(
    world: &Shared,
    user: usize,
    from: Option<&str>,
    patience: Duration,
) -> Result<Option<String>, String> {
    let from = from.map(|from| format!("&from={}", encode(from)));
    let query = format!("messages?dir=b&limit=30{}", from.unwrap_or_default());
    let path = room_path(&world.borrow().room, &query);
    let before = is_joined(world, user).await?;
    let Some((200, page)) = ask(world, user, Method::GET, path, Value::Null, patience).await else {
        return Ok(None);
    };
    let joined = before || is_joined(world, user).await?;
    shown(world, user, &page["chunk"], joined);
    Ok(page["end"].as_str().map(str::to_owned))
}

/// Whether a user is in the room now, as their server has it: where forks are resolved that may end without an event that says so.
async fn is_joined(world: &Shared, user: usize) -> Result<bool, String> {
    let (life, id) = {
        let world = world.borrow();
        let person = &world.users[user];
        (world.servers[person.server].life(), person.id.clone())
    };
    let Some(life) = life else { return Ok(false) };
    let Some(view) = view(world, &life).await? else {
        return Ok(false);
    };
    let membership = view.membership(id.as_str().try_into().unwrap()).await;
    let membership = membership.map_err(|why| why.to_string())?;
    Ok(membership == Membership::Join)
}

/// Takes in what the server has to say since the last time.
pub(crate) async fn sync(world: &Shared, user: usize, patience: Duration) -> Result<(), String> {
    let since = world.borrow().users[user].fold.since.clone();
    let since = since.map(|since| format!("&since={}", encode(&since)));
    let path = format!(
        "{V3}/sync?use_state_after=true&timeout=0{}",
        since.unwrap_or_default()
    );
    let before = is_joined(world, user).await?;
    let answer = ask(world, user, Method::GET, path, Value::Null, patience).await;
    let Some((200, body)) = answer else {
        return Ok(());
    };
    let joined = before || is_joined(world, user).await?;
    let room = world.borrow().room.clone();
    for section in ["join", "leave"] {
        let of_room = &body["rooms"][section][&room];
        if !of_room.is_null() {
            world.borrow_mut().users[user].inside = section == "join";
            shown(world, user, &of_room["timeline"]["events"], joined);
        }
    }
    world.borrow_mut().users[user].fold.take(&body)?;
    let window = slide::some(&mut world.borrow_mut().users[user].windows);
    slide(world, user, window, patience).await.map(drop)
}

/// Asks for a window of sliding sync; whether there was an answer.
pub(crate) async fn slide(
    world: &Shared,
    user: usize,
    window: Value,
    patience: Duration,
) -> Result<bool, String> {
    let body = world.borrow_mut().users[user].slid.body(window);
    let path = slide::PATH.to_owned();
    let said = ask(world, user, Method::POST, path, body, patience).await;
    world.borrow_mut().users[user].slid.hear(said)
}

/// Remembers what a timeline showed.
fn shown(world: &Shared, user: usize, events: &Value, joined: bool) {
    let person = &mut world.borrow_mut().users[user];
    for event in events.as_array().into_iter().flatten() {
        let event_id = text(event, "event_id");
        if event["type"] == "m.room.message" && !person.messages.contains(&event_id) {
            person.messages.push(event_id.clone());
        }
        *person.shown.entry(event_id).or_default() |= joined;
    }
}
