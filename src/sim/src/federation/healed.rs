//! After the storm: the network is sound, all servers run, and what was apart comes together.
//!
//! A server that was cut off learns what it missed from whoever speaks to it, so each server's user says something: once, and once
//! more as often as that may have brought a server back, whose own part of the graph nobody has taken up yet, or as something was tried
//! again that nobody could be reached with. The creator has the last word, which follows whatever anybody's graph ends in.
//!
//! Who must agree: the servers of users who are in the room both by the creator's state, which by then rests on everything that anybody
//! in the room has accepted, and by their own server's. Whoever has none by the one is sent nothing and may ask for nothing; where the two
//! count in different users of a server, nobody there says anything that the other takes up, as soft failure has it. A server may think
//! otherwise of itself where the only event by which it is out is of a fork in which it never was, so that nobody may show it; but not
//! where somebody else took its user's membership away: of that it was told.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use comity_protocol::auth::Membership;
use comity_rooms::{
    Found, RoomError, RoomView,
    num::EventNum,
    tables::{Mode, Verdict},
};
use tokio::time::sleep;

use super::{
    process::{self, Life},
    storm::PATIENCE,
    user,
    world::Shared,
};

/// When servers are compared for the first time, then each time after twice as long, so often: longer in all than a server is left alone
/// after a storm of minutes.
const EACH: Duration = Duration::from_secs(10);
const LOOKS: u32 = 7;
/// How often a join is tried that nobody answers well; what is said, twenty times as often.
const ATTEMPTS: usize = 6;

pub(crate) async fn all(world: &Shared) -> Result<(), String> {
    {
        let world = world.borrow();
        world.wire.heal();
        world.network.lock().set_stormy(false);
        world.teller.tell("the storm is over");
    }
    process::start_all(world).await?;
    let users = world.borrow().users.len();
    for user in 0..users {
        settle(world, user).await?;
        enter(world, user).await?;
    }
    let servers = world.borrow().servers.len();
    let mut differs = None;
    for round in 1..=servers + ATTEMPTS {
        for server in 0..servers {
            speak(world, server).await?;
        }
        differs = agree(world).await?;
        if differs.is_none() {
            differs = last_word(world).await?;
        }
        let Some(why) = &differs else {
            return Ok(());
        };
        let teller = world.borrow().teller.clone();
        teller.tell(format!("after round {round}: {why}"));
        come_back(world).await?;
    }
    Err(format!("the servers don't agree: {differs:?}"))
}

/// The creator follows whatever there is; answers what keeps the servers from having that, and it alone, at their graphs' ends. Others may
/// have something to hand over yet, which was tried in vain before and is news to all.
async fn last_word(world: &Shared) -> Result<Option<String>, String> {
    user::say(world, 0, PATIENCE).await?;
    if let Some(why) = agree(world).await? {
        return Ok(Some(why));
    }
    let ends = snapshot(world, 0).await?.map(|room| room.ends.len());
    Ok((ends != Some(1)).then(|| format!("the last word left {ends:?} ends")))
}

/// Asks again until there is an answer: a room that was just entered may not be whole yet, and waits a quarter of an hour for an answer that
/// was lost.
async fn settle(world: &Shared, user: usize) -> Result<(), String> {
    for _ in 0..20 * ATTEMPTS {
        if world.borrow().users[user].pending.is_none() {
            return Ok(());
        }
        user::send(world, user, PATIENCE).await?;
        sleep(EACH).await;
    }
    Err(format!("user {user} gets no answer in good weather"))
}

/// Who asked to join and never heard of it asks again: else they would be in the room without knowing. A server that couldn't be reached
/// a moment ago is left alone at first.
async fn enter(world: &Shared, user: usize) -> Result<(), String> {
    for _ in 0..ATTEMPTS {
        if !world.borrow().users[user].joining {
            break;
        }
        user::join(world, user, 0, PATIENCE).await?;
        sleep(EACH).await;
    }
    Ok(())
}

/// Who is in the room by the creator's state and out of it by their own server's asks to join. That server took the word of somebody
/// whom the others had put out, so that they soft-failed it, or had no members yet to judge it by, and whoever is out says nothing that
/// would bring the two together.
async fn come_back(world: &Shared) -> Result<(), String> {
    let users: Vec<(usize, usize, String)> = {
        let users = &world.borrow().users;
        let users = users.iter().enumerate();
        users
            .map(|(user, person)| (user, person.server, person.id.clone()))
            .collect()
    };
    for (user, server, id) in users {
        if is_in(world, 0, &id).await? && snapshot(world, server).await?.is_none() {
            user::join(world, user, 0, PATIENCE).await?;
        }
    }
    Ok(())
}

/// Whether a user is in the room, as a server that is in it has it.
async fn is_in(world: &Shared, server: usize, user: &str) -> Result<bool, String> {
    let life = world.borrow().servers[server].life();
    let Some(life) = life else {
        return Ok(false);
    };
    let Some(view) = inside(world, &life).await? else {
        return Ok(false);
    };
    let membership = view.membership(user.try_into().unwrap()).await;
    Ok(membership.map_err(|why| why.to_string())? == Membership::Join)
}

/// Says something by one of a server's users that are in the room as their server sees it.
async fn speak(world: &Shared, server: usize) -> Result<(), String> {
    let users = world.borrow().users.len();
    for user in 0..users {
        let id = {
            let person = &world.borrow().users[user];
            (person.server == server).then(|| person.id.clone())
        };
        let Some(id) = id else { continue };
        if is_in(world, server, &id).await? {
            return user::say(world, user, PATIENCE).await;
        }
    }
    Ok(())
}

/// The room as a server has it that is in it.
async fn inside(world: &Shared, life: &Life) -> Result<Option<RoomView>, String> {
    let view = process::view(world, life).await?;
    Ok(view.filter(|view| view.head().mode == Mode::Joined))
}

/// A room as one server has it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Snapshot {
    /// Its forward extremities.
    pub ends: BTreeSet<String>,
    /// Which event stands under each type and state key.
    pub state: BTreeMap<(String, String), String>,
    /// Who is joined.
    pub joined: BTreeSet<String>,
}

impl Snapshot {
    /// Whether both count in a user of this server.
    pub fn share_user_of(&self, other: &Self, server: &str) -> bool {
        let mut shared = self.joined.intersection(&other.joined);
        shared.any(|user| user.split_once(':').is_some_and(|(_, of)| of == server))
    }
}

pub(crate) async fn snapshot(world: &Shared, server: usize) -> Result<Option<Snapshot>, String> {
    let life = world.borrow().servers[server].life();
    let life = life.ok_or_else(|| format!("server {server} doesn't run"))?;
    let Some(view) = inside(world, &life).await? else {
        return Ok(None);
    };
    let read = async {
        let nums: Vec<EventNum> = view
            .head()
            .extremities
            .iter()
            .map(|num| EventNum(*num))
            .collect();
        let ends = view.load(&nums).await?;
        let state = view.all_state(None).await?;
        Ok((ends, state))
    };
    let (ends, state) = read.await.map_err(|why: RoomError| why.to_string())?;
    let mut snapshot = Snapshot {
        ends: ends
            .iter()
            .map(|end| end.event.event_id().to_string())
            .collect(),
        state: BTreeMap::new(),
        joined: BTreeSet::new(),
    };
    for found in &state {
        let event = &found.event;
        let key = event.state_key().unwrap_or_default().to_owned();
        if event.event_type() == "m.room.member" && is_join(found) {
            snapshot.joined.insert(key.clone());
        }
        let key = (event.event_type().to_owned(), key);
        snapshot.state.insert(key, event.event_id().to_string());
    }
    Ok(Some(snapshot))
}

/// Waits until all servers agree; else answers what they differ in.
async fn agree(world: &Shared) -> Result<Option<String>, String> {
    let mut differs = None;
    for look in 0..LOOKS {
        sleep(EACH * 2_u32.pow(look)).await;
        differs = difference(world).await?;
        if differs.is_none() {
            break;
        }
    }
    Ok(differs)
}

/// In what the servers that are in the room differ from the creator's, and whether they are the same in each server's eyes.
async fn difference(world: &Shared) -> Result<Option<String>, String> {
    let names: Vec<String> = {
        let world = world.borrow();
        world.servers.iter().map(|one| one.name.clone()).collect()
    };
    let Some(first) = snapshot(world, 0).await? else {
        return Err("the creator isn't in the room".to_owned());
    };
    for (server, name) in names.iter().enumerate().skip(1) {
        let room = snapshot(world, server).await?;
        let is_in = room.as_ref().unwrap_or(&first).share_user_of(&first, name);
        let differs = match (room, is_in) {
            (None, false) => None,
            (None, true) => Some("isn't in the room by its own word".to_owned()),
            (Some(_), false) => untold(world, server).await?,
            (Some(room), true) if room.ends != first.ends => {
                Some(format!("ends in {:?}, not {:?}", room.ends, first.ends))
            }
            (Some(room), true) => {
                let mut differ = first.state.keys().chain(room.state.keys());
                differ
                    .find(|key| first.state.get(*key) != room.state.get(*key))
                    .map(|key| {
                        let (one, other) = (room.state.get(key), first.state.get(key));
                        format!("has {one:?}, not {other:?}, under {key:?}")
                    })
            }
        };
        if let Some(differs) = differs {
            return Ok(Some(format!("server {server} {differs}")));
        }
    }
    Ok(None)
}

/// What a server should have heard of that thinks to be in the room by itself: by the creator's state somebody else took the membership
/// of a user who was joined just before.
async fn untold(world: &Shared, server: usize) -> Result<Option<String>, String> {
    let (users, here, there) = {
        let world = world.borrow();
        let users = world.users.iter().filter(|user| user.server == server);
        let users: Vec<String> = users.map(|user| user.id.clone()).collect();
        (users, world.servers[0].life(), world.servers[server].life())
    };
    let (Some(here), Some(there)) = (here, there) else {
        return Err("a server doesn't run".to_owned());
    };
    let (Some(here), Some(there)) = (
        process::view(world, &here).await?,
        process::view(world, &there).await?,
    ) else {
        return Ok(None);
    };
    let read = async {
        for user in users {
            let Some(taken) = here.state("m.room.member", &user).await? else {
                continue;
            };
            let Some(before) = taken.root_before()? else {
                continue;
            };
            let before = here.state_in(before, "m.room.member", &user).await?;
            let was_in = before.is_some_and(|before| is_join(&before));
            let by_another = taken.event.sender().as_str() != user;
            if !was_in || !by_another || is_join(&taken) {
                continue;
            }
            let event_id = taken.event.event_id();
            let known = match there.num(event_id).await? {
                Some(num) => there.load(&[num]).await.unwrap_or_default().pop(),
                None => None,
            };
            if known.is_none_or(|known| known.status.verdict == Verdict::Named) {
                return Ok(Some(format!("never heard of {event_id}")));
            }
        }
        Ok(None)
    };
    read.await.map_err(|why: RoomError| why.to_string())
}

fn is_join(found: &Found) -> bool {
    let membership = found.event.content_string("membership");
    membership.is_some_and(|membership| membership == "join")
}
