//! What is there at the end, against the ledger.

use std::collections::BTreeMap;

use comity_testkit::encode;
use http::Method;
use serde_json::{Value, json};

use crate::{
    fold::{Folded, text},
    life::must,
    user::{self, Shared, V3},
    world::{Fate, World},
};

/// On a sound disk, after everybody got their last answer.
pub(crate) async fn all(world: &Shared<'_>) -> Result<(), String> {
    let users = world.borrow().users.len();
    for user in 0..users {
        user::settle(world, user).await?;
    }
    rooms(world).await?;
    for user in 0..users {
        of_user(world, user).await?;
    }
    Ok(())
}

/// Every room from its first event to its last.
async fn rooms(world: &Shared<'_>) -> Result<(), String> {
    let rooms = world.borrow().rooms.clone();
    let mut texts: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for room in rooms {
        let mut expected = 1;
        let mut from: Option<String> = None;
        loop {
            let mut path = format!("{V3}/rooms/{}/messages?dir=f&limit=100", encode(&room));
            if let Some(from) = &from {
                path.push_str(&format!("&from={}", encode(from)));
            }
            let page = must(world, 0, Method::GET, &path, Value::Null).await?;
            for event in page["chunk"].as_array().into_iter().flatten() {
                let seq = event["unsigned"]["org.comity.seq"].as_i64();
                if seq != Some(expected) {
                    return Err(format!(
                        "{room} has {seq:?} where {expected} is due: {event}"
                    ));
                }
                expected += 1;
                let content = &event["content"];
                for said in [&content["body"], &content["topic"]] {
                    if let Some(said) = said.as_str() {
                        let ids = texts.entry(said.to_owned()).or_default();
                        ids.push(text(event, "event_id"));
                    }
                }
            }
            from = page["end"].as_str().map(str::to_owned);
            if from.is_none() {
                break;
            }
        }
    }
    let world = world.borrow();
    let World { sent, topics, .. } = &**world;
    for (said, fate) in sent {
        let found = texts.get(said).map_or(&[][..], Vec::as_slice);
        let fits = match fate {
            Fate::Done(event) => found == [event.clone()],
            Fate::Refused => found.is_empty(),
        };
        if !fits {
            return Err(format!(
                "message {said:?} was {fate:?} and is there as {found:?}"
            ));
        }
    }
    for (said, fate) in topics {
        let found = texts.get(said).map_or(&[][..], Vec::as_slice);
        let fits = match fate {
            Fate::Done(event) => found.contains(event),
            Fate::Refused => found.is_empty(),
        };
        if !fits {
            return Err(format!(
                "topic {said:?} was {fate:?} and is there as {found:?}"
            ));
        }
    }
    world.tell(format!("{} messages as they were acknowledged", sent.len()));
    Ok(())
}

/// What the server says of one user.
async fn of_user(world: &Shared<'_>, user: usize) -> Result<(), String> {
    let device = world.borrow().users[user].device.clone();
    let path = format!("{V3}/devices/{}", encode(&device));
    let answer = must(world, user, Method::GET, &path, Value::Null).await?;
    let renamed = world.borrow().users[user].device_name.clone();
    if renamed.is_some() && answer["display_name"] != json!(renamed) {
        return Err(format!("the device was named {renamed:?} and is {answer}"));
    }
    let path = format!("{V3}/joined_rooms");
    let answer = must(world, user, Method::GET, &path, Value::Null).await?;
    for (room, joined) in &world.borrow().users[user].joined {
        let rooms = answer["joined_rooms"].as_array();
        let is_in = rooms.is_some_and(|rooms| rooms.contains(&json!(room)));
        if is_in != *joined {
            return Err(format!(
                "user {user} in {room}: acknowledged {joined}, is {is_in}"
            ));
        }
    }
    let since = world.borrow().users[user].fold.since.clone();
    let since = since.map(|since| format!("&since={}", encode(&since)));
    let path = format!("{V3}/sync?timeout=0{}", since.unwrap_or_default());
    let answer = must(world, user, Method::GET, &path, Value::Null).await?;
    world.borrow_mut().users[user].fold.take(&answer)?;
    let path = format!("{V3}/sync?timeout=0");
    let answer = must(world, user, Method::GET, &path, Value::Null).await?;
    let mut fresh = Folded::default();
    fresh.take(&answer)?;
    match world.borrow().users[user].fold.differs(&fresh) {
        Some(what) => Err(format!(
            "user {user}'s syncs fold to something else: {what}"
        )),
        None => Ok(()),
    }
}
