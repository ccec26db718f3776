//! What is there at the end, against the ledger.

use std::collections::BTreeMap;

use comity_testkit::encode;
use http::Method;
use serde_json::{Value, json};

use crate::{
    fold::{DATA, Folded, text},
    life::{PATIENCE, must},
    slide::{self, Slid},
    user::{self, Shared, V3},
    world::{Fate, Ledger, World},
};

/// On a sound disk, after everybody got their last answer.
pub(crate) async fn all(world: &Shared<'_>) -> Result<(), String> {
    let users = world.borrow().users.len();
    for user in 0..users {
        user::settle(world, user).await?;
    }
    let held = rooms(world).await?;
    ledger(&world.borrow(), &held)?;
    threads(world, &held).await?;
    for user in 0..users {
        of_user(world, user, &held).await?;
    }
    Ok(())
}

/// What the rooms hold.
#[derive(Default)]
struct Held {
    /// Where each text stands.
    texts: BTreeMap<String, Vec<String>>,
    /// Every event's place in its room, and whether it still has content.
    events: BTreeMap<String, (i64, bool)>,
}

impl Held {
    /// Whether a text that had this fate is where it should be.
    fn fits(&self, said: &str, fate: &Fate, redacted: bool) -> Result<(), String> {
        let found = self.texts.get(said).map_or(&[][..], Vec::as_slice);
        let fits = match fate {
            Fate::Done(event) if redacted => found.is_empty() && self.events.contains_key(event),
            Fate::Done(event) => found == [event.clone()],
            Fate::Perhaps(event) => found.is_empty() || found == [event.clone()],
            Fate::Refused => found.is_empty(),
        };
        match fits {
            true => Ok(()),
            false => Err(format!("{said:?} was {fate:?} and is there as {found:?}")),
        }
    }
}

/// Every room from its first event to its last.
async fn rooms(world: &Shared<'_>) -> Result<Held, String> {
    let rooms = world.borrow().rooms.clone();
    let mut held = Held::default();
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
                let (id, content) = (text(event, "event_id"), &event["content"]);
                let whole = content
                    .as_object()
                    .is_some_and(|content| !content.is_empty());
                held.events.insert(id.clone(), (expected, whole));
                expected += 1;
                for said in [&content["body"], &content["topic"]] {
                    if let Some(said) = said.as_str() {
                        held.texts
                            .entry(said.to_owned())
                            .or_default()
                            .push(id.clone());
                    }
                }
            }
            from = page["end"].as_str().map(str::to_owned);
            if from.is_none() {
                break;
            }
        }
    }
    Ok(held)
}

/// The rooms hold what the ledger says.
fn ledger(world: &World, held: &Held) -> Result<(), String> {
    let Ledger {
        messages,
        topics,
        redactions,
        ..
    } = &world.ledger;
    for (event, fate) in redactions {
        if matches!(fate, Fate::Done(_)) && held.events.get(event).is_some_and(|(_, whole)| *whole)
        {
            return Err(format!("{event} was redacted and has its content"));
        }
    }
    for (said, fate) in messages {
        let redaction = match fate {
            Fate::Done(event) | Fate::Perhaps(event) => redactions.get(event),
            Fate::Refused => None,
        };
        match redaction {
            // A redaction that may be lost leaves both ways open.
            Some(Fate::Perhaps(_)) => {}
            redaction => held.fits(said, fate, redaction.is_some())?,
        }
    }
    for (said, fate) in topics {
        let found = held.texts.get(said).map_or(&[][..], Vec::as_slice);
        // Asked twice, a topic may have been set twice; what may be lost leaves any of that.
        let twice = match fate {
            Fate::Done(event) => found.contains(event),
            Fate::Perhaps(_) => true,
            Fate::Refused => false,
        };
        if !twice {
            held.fits(said, fate, false)?;
        }
    }
    let redacted = redactions.len();
    world.tell(format!(
        "{} messages and {redacted} redactions as acknowledged",
        messages.len()
    ));
    Ok(())
}

/// Each thread has the replies that were acknowledged and still say so.
async fn threads(world: &Shared<'_>, held: &Held) -> Result<(), String> {
    let mut threads: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (reply, thread) in &world.borrow().ledger.replies {
        let whole = |event| {
            held.events
                .get(event)
                .is_some_and(|(_, whole): &(i64, bool)| *whole)
        };
        if whole(reply) && held.events.contains_key(thread) {
            threads
                .entry(thread.clone())
                .or_default()
                .push(reply.clone());
        }
    }
    let rooms = world.borrow().rooms.clone();
    for (thread, mut replies) in threads {
        let mut found = Vec::new();
        for room in &rooms {
            let path = format!(
                "/_matrix/client/v1/rooms/{}/relations/{}/m.thread?limit=100",
                encode(room),
                encode(&thread)
            );
            let answer = user::request(world, 0, Method::GET, &path, Value::Null, PATIENCE).await;
            if let Some((200, page)) = answer {
                let chunk = page["chunk"].as_array().into_iter().flatten();
                found.extend(chunk.map(|event| text(event, "event_id")));
            }
        }
        replies.sort();
        found.sort();
        if found != replies {
            return Err(format!(
                "the thread {thread} has {found:?}, not {replies:?}"
            ));
        }
    }
    Ok(())
}

/// What the server says of one user.
async fn of_user(world: &Shared<'_>, user: usize, held: &Held) -> Result<(), String> {
    let device = world.borrow().users[user].device.clone();
    let path = format!("{V3}/devices/{}", encode(&device));
    let answer = must(world, user, Method::GET, &path, Value::Null).await?;
    let renamed = world.borrow().users[user].device_name.clone();
    if renamed.is_some() && answer["display_name"] != json!(renamed) {
        return Err(format!("the device was named {renamed:?} and is {answer}"));
    }
    let (name, data) = {
        let known = &world.borrow().users[user];
        (known.name.clone(), known.data.clone())
    };
    if let Some(data) = data {
        let path = format!("{V3}/user/@{name}:localhost/account_data/{DATA}");
        let answer = must(world, user, Method::GET, &path, Value::Null).await?;
        if answer["text"] != json!(data) {
            return Err(format!("account data was {data:?} and is {answer}"));
        }
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
    receipts(&world.borrow(), user, held, &answer)?;
    if let Some(what) = world.borrow().users[user].fold.differs(&fresh) {
        return Err(format!(
            "user {user}'s syncs fold to something else: {what}"
        ));
    }
    slid(world, user).await
}

/// A client that followed by sliding sync knows what one knows that begins.
async fn slid(world: &Shared<'_>, user: usize) -> Result<(), String> {
    // The first time its position may turn out to be lost.
    for _ in 0..2 {
        if user::slide(world, user, slide::all(), PATIENCE).await? {
            break;
        }
    }
    let mut fresh = Slid::default();
    let mut body = fresh.body(slide::all());
    body["conn_id"] = json!("fresh");
    let answer = must(world, user, Method::POST, slide::PATH, body).await?;
    fresh.take(&answer)?;
    match world.borrow().users[user].slid.differs(&fresh) {
        Some(what) => Err(format!("user {user} slid to something else: {what}")),
        None => Ok(()),
    }
}

/// A receipt never moves back: it stands at the last of the events that were read.
fn receipts(world: &World, user: usize, held: &Held, answer: &Value) -> Result<(), String> {
    let known = &world.users[user];
    let me = format!("@{}:localhost", known.name);
    for (room, read) in &known.read {
        let place = |event: &String| held.events.get(event).map_or(0, |(place, _)| *place);
        let due = read.iter().map(place).max();
        let ephemeral = &answer["rooms"]["join"][room]["ephemeral"]["events"];
        let receipts = ephemeral.as_array().into_iter().flatten();
        let receipts = receipts.filter(|event| event["type"] == "m.receipt");
        let mut events = receipts
            .filter_map(|event| event["content"].as_object())
            .flatten();
        let stands = events.find(|(_, receipts)| receipts["m.read"].get(&me).is_some());
        let stands = stands.map(|(event, _)| place(event));
        if stands < due {
            return Err(format!(
                "user {user} has read to {due:?} in {room}, told is {stands:?}"
            ));
        }
    }
    Ok(())
}
