//! What must hold once all is quiet, beside that the servers agree.

use std::collections::{BTreeMap, BTreeSet};

use comity_protocol::{auth::Membership, id::event_id};
use comity_rooms::{
    Found, RoomError, RoomView,
    num::EventNum,
    state::AnyRoot,
    tables::{Mode, Verdict},
};
use http::Method;
use serde_json::Value;

use super::{
    healed::snapshot,
    process,
    storm::PATIENCE,
    user,
    world::{Acknowledged, Shared, Teller, World},
};
use crate::{
    fold::Folded,
    slide::{self, Slid},
};

pub(crate) async fn all(world: &Shared) -> Result<(), String> {
    // What lies before a hole is fetched when somebody looks.
    let users = world.borrow().users.len();
    for user in 0..users {
        user::look_back(world, user, PATIENCE).await?;
    }
    let rooms = rooms(world).await?;
    verdicts(&world.borrow(), &rooms)?;
    redactions(&rooms)?;
    said_once(&rooms)?;
    let entries = std::mem::take(&mut world.borrow_mut().ledger);
    acknowledged(&entries, &rooms).await?;
    for user in 0..users {
        let (server, id, shown) = {
            let person = &world.borrow().users[user];
            (person.server, person.id.clone(), person.shown.clone())
        };
        // Whoever came in just before the others found that they weren't gets no members, and is told of no such room.
        let is_partial = |room: &Room| room.view.head().mode == Mode::Partial;
        if !rooms.get(&server).is_some_and(is_partial) {
            folds(world, user).await?;
        }
        if let Some(room) = rooms.get(&server) {
            let seen = visible(room, &id, &shown).await;
            seen.map_err(|why| format!("user {user} was shown {why}"))?;
        } else if !shown.is_empty() {
            return Err(format!("user {user} was shown a room that isn't there"));
        }
    }
    Ok(())
}

/// The room as a server has it.
struct Room {
    view: RoomView,
    /// Whether a user of the server is in it, by its own state and by the creator's.
    inside: bool,
    /// The closure of its extremities as far as the server has it.
    graph: BTreeMap<String, Found>,
}

/// The servers' rooms, of those that ever had it.
type Rooms = BTreeMap<usize, Room>;

async fn rooms(world: &Shared) -> Result<Rooms, String> {
    let names: Vec<String> = {
        let world = world.borrow();
        world.servers.iter().map(|one| one.name.clone()).collect()
    };
    let first = snapshot(world, 0).await?;
    let mut rooms = Rooms::new();
    for (server, name) in names.iter().enumerate() {
        let life = world.borrow().servers[server].life();
        let life = life.ok_or_else(|| format!("server {server} doesn't run"))?;
        let Some(view) = process::view(world, &life).await? else {
            continue;
        };
        let graph = closure(&view).await.map_err(|why| why.to_string())?;
        let own = snapshot(world, server).await?;
        let inside = own.zip(first.as_ref());
        let inside = inside.is_some_and(|(own, first)| own.share_user_of(first, name));
        let (count, seq) = (graph.len(), view.seq());
        let teller = world.borrow().teller.clone();
        teller.tell(format!(
            "server {server} holds {count} events, {seq} as they came"
        ));
        let room = Room {
            view,
            inside,
            graph,
        };
        rooms.insert(server, room);
    }
    Ok(rooms)
}

/// Back from the extremities, as far as this server has it.
async fn closure(view: &RoomView) -> Result<BTreeMap<String, Found>, RoomError> {
    let mut graph = BTreeMap::new();
    let ends = view.head().extremities.iter();
    let mut next: Vec<EventNum> = ends.map(|num| EventNum(*num)).collect();
    while !next.is_empty() {
        let mut prev = BTreeSet::new();
        for found in view.load(&next).await? {
            prev.extend(found.event.prev_events().to_vec());
            graph.insert(found.event.event_id().to_string(), found);
        }
        next.clear();
        for event_id in prev {
            if !graph.contains_key(event_id.as_str()) {
                next.extend(view.num(&event_id).await?);
            }
        }
    }
    Ok(graph)
}

/// Where the servers' rooms first part, for the story of a world that doesn't come together: events of which some know another state
/// before, and such as they judged differently, oldest first.
pub(crate) async fn apart(world: &Shared) -> Result<(), String> {
    const TOLD: usize = 8;
    let rooms = rooms(world).await?;
    let teller = world.borrow().teller.clone();
    ends(&rooms, &teller).await?;
    let mut events: BTreeMap<(u64, &String), BTreeMap<usize, &Found>> = BTreeMap::new();
    for (server, room) in &rooms {
        for (event, found) in &room.graph {
            let of_event = events.entry((found.event.depth(), event)).or_default();
            of_event.insert(*server, found);
        }
    }
    let mut told = 0;
    for ((_, event), by_server) in &events {
        let mut states: BTreeMap<usize, BTreeSet<String>> = BTreeMap::new();
        for (server, found) in by_server {
            let Some(root) = found.root_before().map_err(|why| why.to_string())? else {
                continue;
            };
            let view = &rooms[server].view;
            let nums = view
                .state_nums(root, None)
                .await
                .map_err(|why| why.to_string())?;
            let state = view.load(&nums).await.map_err(|why| why.to_string())?;
            let name = |found: &Found| {
                let event = &found.event;
                let (kind, key) = (event.event_type(), event.state_key().unwrap_or_default());
                format!("{kind} {key} {}", event.event_id())
            };
            states.insert(*server, state.iter().map(name).collect());
        }
        let verdicts: BTreeMap<usize, Verdict> = by_server
            .iter()
            .map(|(server, found)| (*server, found.status.verdict))
            .collect();
        let rejected = |verdict: &&Verdict| **verdict == Verdict::Rejected;
        let rejections = verdicts.values().filter(rejected).count();
        let judged_alike = rejections == 0 || rejections == verdicts.len();
        let alike = states.values().collect::<BTreeSet<_>>().len() < 2;
        if (alike && judged_alike) || told >= TOLD {
            continue;
        }
        told += 1;
        let json = by_server
            .values()
            .next()
            .map_or("", |found| found.event.json());
        teller.tell(format!("{event} is {verdicts:?}: {json}"));
        let common = states.values().skip(1).fold(
            states.values().next().cloned().unwrap_or_default(),
            |common, state| common.intersection(state).cloned().collect(),
        );
        for (server, state) in states.iter().filter(|_| !alike) {
            let own: Vec<_> = state.difference(&common).collect();
            teller.tell(format!("  before it server {server} has {own:?}"));
        }
    }
    Ok(())
}

/// What each server's graph ends in, and what those ends are to the others that don't have them there.
async fn ends(rooms: &Rooms, teller: &Teller) -> Result<(), String> {
    for (server, room) in rooms {
        let head = room.view.head();
        let ends: Vec<_> = head.extremities.iter().map(|num| EventNum(*num)).collect();
        let ends = room.view.load(&ends).await.map_err(|why| why.to_string())?;
        let ends: Vec<_> = ends.iter().map(|end| end.event.event_id()).collect();
        teller.tell(format!(
            "server {server}: {:?}, ends in {ends:?}",
            head.mode
        ));
        for (other, its) in rooms {
            for end in &ends {
                if !its.graph.contains_key(end.as_str()) {
                    let found = find(&its.view, end.as_str()).await?;
                    let status = found.map(|found| found.status);
                    teller.tell(format!("  {end} is at server {other}: {status:?}"));
                }
            }
        }
    }
    Ok(())
}

/// What one server rejects all do: that turns on the graph alone.
fn verdicts(world: &World, rooms: &Rooms) -> Result<(), String> {
    let mut rejected: BTreeMap<&String, (bool, usize)> = BTreeMap::new();
    let (mut soft, mut apart) = (BTreeSet::new(), BTreeSet::new());
    for (server, room) in rooms.iter().filter(|(_, room)| room.inside) {
        for (event, found) in &room.graph {
            let verdict = found.status.verdict;
            if verdict == Verdict::SoftFailed {
                soft.insert(event);
            }
            // What was never judged in its place says nothing.
            if matches!(verdict, Verdict::Named | Verdict::Outlier) {
                apart.insert(event);
                continue;
            }
            let is_rejected = verdict == Verdict::Rejected;
            let (before, other) = *rejected.entry(event).or_insert((is_rejected, *server));
            if before != is_rejected {
                return Err(format!(
                    "servers {other} and {server} differ over {event}: {verdict:?}"
                ));
            }
        }
    }
    let (all, soft, apart) = (rejected.len(), soft.len(), apart.len());
    let said =
        format!("{all} events, {soft} of them soft-failed somewhere, {apart} outliers somewhere");
    world.teller.tell(said);
    Ok(())
}

/// What is redacted here is so there, unless somebody soft-failed the redaction. Who may not see that gets it as redaction leaves it, so
/// that in old rooms it names its target no more.
fn redactions(rooms: &Rooms) -> Result<(), String> {
    let Some((first, others)) = rooms.get(&0).zip(Some(rooms.iter().skip(1))) else {
        return Ok(());
    };
    let takes_effect = |room: &Room, event: &String| {
        let found = room.graph.get(event);
        let accepted = found.filter(|found| found.status.verdict == Verdict::Accepted);
        accepted.is_some_and(|found| found.event.redacts().is_some())
    };
    for (server, room) in others.filter(|(_, room)| room.inside) {
        let mut doubtful = BTreeSet::new();
        for (event, found) in first.graph.iter().chain(&room.graph) {
            if let Some(target) = found.event.redacts()
                && !(takes_effect(first, event) && takes_effect(room, event))
            {
                doubtful.insert(target.to_string());
            }
        }
        for (event, found) in &room.graph {
            let (Some(other), false) = (first.graph.get(event), doubtful.contains(event)) else {
                continue;
            };
            let is_taken_back = |found: &Found| found.status.redacted_by.is_some();
            let is_there =
                |found: &Found| !is_taken_back(found) && found.event.redact() != found.event;
            if is_taken_back(found) && is_there(other) || is_taken_back(other) && is_there(found) {
                return Err(format!("{event} is redacted at server 0 or {server} alone"));
            }
        }
    }
    Ok(())
}

/// What was asked again after no answer is there once.
fn said_once(rooms: &Rooms) -> Result<(), String> {
    let mut texts = BTreeMap::new();
    for (event, found) in rooms.values().flat_map(|room| &room.graph) {
        if let Some(text) = found.event.content_string("body") {
            let first = texts.entry(text.into_owned()).or_insert(event);
            if *first != event {
                return Err(format!("{first} and {event} say the same"));
            }
        }
    }
    Ok(())
}

/// Nothing acknowledged is lost: its server has it, and while that server stayed in the room so has the creator's.
async fn acknowledged(entries: &[Acknowledged], rooms: &Rooms) -> Result<(), String> {
    for Acknowledged {
        server,
        event,
        parted,
    } in entries
    {
        let found = match rooms.get(server) {
            Some(room) => find(&room.view, event).await?,
            None => None,
        };
        let verdict = found.map(|found| found.status.verdict);
        if verdict != Some(Verdict::Accepted) {
            return Err(format!(
                "server {server} acknowledged {event}, which is {verdict:?} there"
            ));
        }
        if *parted || !rooms.get(server).is_some_and(|room| room.inside) {
            continue;
        }
        for other in [server, &0] {
            if !rooms
                .get(other)
                .is_some_and(|room| room.graph.contains_key(event))
            {
                return Err(format!(
                    "server {server} acknowledged {event}, which server {other} lacks"
                ));
            }
        }
    }
    Ok(())
}

async fn find(view: &RoomView, event: &str) -> Result<Option<Found>, String> {
    let read = async {
        let Some(num) = view.num(&event_id(event).unwrap()).await? else {
            return Ok(None);
        };
        Ok(view.load(&[num]).await?.pop())
    };
    read.await.map_err(|why: RoomError| why.to_string())
}

/// The fold of a user's syncs is what a fresh one says.
async fn folds(world: &Shared, user: usize) -> Result<(), String> {
    user::sync(world, user, PATIENCE).await?;
    let path = "/_matrix/client/v3/sync?use_state_after=true&timeout=0".to_owned();
    let answer = user::ask(world, user, Method::GET, path, Value::Null, PATIENCE).await;
    let Some((200, answer)) = answer else {
        return Err(format!("user {user} can't sync: {answer:?}"));
    };
    let mut fresh = Folded::default();
    fresh.take(&answer)?;
    if let Some(what) = world.borrow().users[user].fold.differs(&fresh) {
        return Err(format!(
            "user {user}'s syncs fold to something else: {what}"
        ));
    }
    slid(world, user).await
}

/// A client that followed by sliding sync knows what one knows that begins.
async fn slid(world: &Shared, user: usize) -> Result<(), String> {
    // The first time its position may turn out to be lost.
    for _ in 0..2 {
        if user::slide(world, user, slide::all(), PATIENCE).await? {
            break;
        }
    }
    let mut fresh = Slid::default();
    let mut body = fresh.body(slide::all());
    body["conn_id"] = "fresh".into();
    let path = slide::PATH.to_owned();
    let said = user::ask(world, user, Method::POST, path, body, PATIENCE).await;
    if !fresh.hear(said)? {
        return Err(format!("user {user} can't slide"));
    }
    match world.borrow().users[user].slid.differs(&fresh) {
        Some(what) => Err(format!("user {user} slid to something else: {what}")),
        None => Ok(()),
    }
}

/// Everything that a user was shown is accepted, and they may see it by the state before it or, if it is about that, after it.
///
/// <https://spec.matrix.org/v1.19/client-server-api/#room-history-visibility>, as its text says it.
async fn visible(room: &Room, id: &str, shown: &BTreeMap<String, bool>) -> Result<(), String> {
    let mut sights = Sights {
        room,
        id,
        known: BTreeMap::new(),
    };
    let until = sights.joined_until().await?;
    for (event, joined) in shown {
        let Some(found) = find(&room.view, event).await? else {
            return Err(format!("{event}, which isn't there"));
        };
        let verdict = found.status.verdict;
        if verdict != Verdict::Accepted {
            return Err(format!("{event}, which is {verdict:?}"));
        }
        // What becomes of themselves everybody is told.
        if found.event.is_state("m.room.member", id) {
            continue;
        }
        let before = sights.before(&found).await?;
        let mut after = before.clone();
        if found.event.is_state("m.room.history_visibility", "") {
            after.setting = says(&found, "history_visibility").unwrap_or_default();
        }
        let joined_later = *joined || until.is_some_and(|until| found.place() < Some(until));
        if !before.allows(joined_later) && !after.allows(joined_later) {
            return Err(format!(
                "{event}: {before:?} {after:?}, joined until {until:?}"
            ));
        }
    }
    Ok(())
}

/// What decides whether a user sees an event.
#[derive(Debug, Clone, Default)]
struct Sight {
    setting: String,
    membership: String,
}

impl Sight {
    fn allows(&self, joined_later: bool) -> bool {
        match (self.setting.as_str(), self.membership.as_str()) {
            ("world_readable", _) | (_, "join") | ("invited", "invite") => true,
            ("invited" | "joined", _) => false,
            _ => joined_later,
        }
    }
}

/// What decides it for one user, by the state before events.
struct Sights<'a> {
    room: &'a Room,
    id: &'a str,
    known: BTreeMap<AnyRoot, Sight>,
}

impl Sights<'_> {
    async fn before(&mut self, found: &Found) -> Result<Sight, String> {
        let root = found.root_before().map_err(|why| why.to_string())?;
        let root = root.ok_or_else(|| format!("{} without a state", found.event.event_id()))?;
        if let Some(sight) = self.known.get(&root) {
            return Ok(sight.clone());
        }
        let view = &self.room.view;
        let read = async {
            let setting = view.state_in(root, "m.room.history_visibility", "").await?;
            let member = view.state_in(root, "m.room.member", self.id).await?;
            let text =
                |of: Option<Found>, key| of.and_then(|of| says(&of, key)).unwrap_or_default();
            Ok(Sight {
                setting: text(setting, "history_visibility"),
                membership: text(member, "membership"),
            })
        };
        let sight = read.await.map_err(|why: RoomError| why.to_string())?;
        self.known.insert(root, sight.clone());
        Ok(sight)
    }

    /// The place in the room's order up to which the user was joined at some time: the last event before which they were, whatever
    /// events said so. Where forks meet a membership may end, and begin again, without one.
    async fn joined_until(&mut self) -> Result<Option<(i64, i64)>, String> {
        let user = self.id.try_into().unwrap();
        let now = self.room.view.membership(user).await;
        if now.map_err(|why| why.to_string())? == Membership::Join {
            return Ok(Some((i64::MAX, 0)));
        }
        let mut until = None;
        for found in self.room.graph.values() {
            if found.place() > until && self.before(found).await?.membership == "join" {
                until = found.place();
            }
        }
        Ok(until)
    }
}

fn says(found: &Found, key: &str) -> Option<String> {
    found
        .event
        .content_string(key)
        .map(std::borrow::Cow::into_owned)
}
