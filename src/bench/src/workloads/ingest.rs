//! W8: other servers' transactions, 50 events each: one server and one room, many servers and many rooms. One event in twenty
//! is state, one in a hundred is badly signed, one in ten is told late, so that its followers come first and it must be asked for.

use std::sync::Arc;
use std::time::Duration;

use comity_protocol::id::OwnedEventId;
use comity_protocol::room_version::RoomVersion;
use futures_util::future::try_join_all;
use parking_lot::Mutex;
use serde_json::json;

use super::{Measurement, Meter, Site, Sizes, number, shown};
use crate::error::Result;
use crate::http::Connection;
use crate::matrix::{self, Account};
use crate::remote::{Made, ORIGINS, Remotes, Room, Shape};

/// Events of a transaction: as many as may be in one.
const TRANSACTION: usize = 50;
/// One event in this many is state.
const STATE_EVERY: usize = 20;
/// One event in this many is badly signed.
const FORGED_EVERY: usize = 100;
/// One event in this many isn't sent, only followed.
const MISSING_EVERY: usize = 10;
/// Rooms of the case with many.
const ROOMS: usize = 200;
/// After this an event counts as lost.
const PATIENCE: Duration = Duration::from_secs(600);

/// Runs both cases.
///
/// # Errors
/// When the server doesn't join the rooms, refuses a transaction or loses an event.
pub async fn run(site: &Site, sizes: &Sizes) -> Result<Vec<Measurement>> {
    let mut measured = Vec::new();
    if sizes.ingest_pdus > 0 {
        for (origins, rooms) in [(1, 1), (ORIGINS, ROOMS)] {
            measured.push(case(site, sizes.ingest_pdus, origins, rooms).await?);
        }
    }
    Ok(measured)
}

/// A room, whose server sends, and what.
struct Stream {
    origin: usize,
    room: Arc<Mutex<Room>>,
    sent: Vec<String>,
    last: OwnedEventId,
}

async fn case(site: &Site, pdus: usize, origins: usize, rooms: usize) -> Result<Measurement> {
    let remotes = site.remotes()?;
    let mut connection = Connection::new(&site.target);
    let account = matrix::register(&mut connection, &site.unique(), site.secret.as_deref()).await?;
    let mut streams = Vec::new();
    for index in 0..rooms {
        streams.push(enter(&mut connection, remotes, &account, index % origins, origins).await?);
    }
    let each = pdus / rooms;
    for stream in &mut streams {
        stream.fill(remotes, each)?;
    }
    site.processes.settle().await;

    let meter = Meter::start(&site.processes);
    try_join_all((0..origins).map(|origin| send(site, remotes, &streams, origin))).await?;
    for stream in &streams {
        let room = stream.room.lock().id().to_string();
        shown(
            &mut connection,
            &account,
            (&room, stream.last.as_str()),
            PATIENCE,
        )
        .await?;
    }
    let seconds = meter.elapsed().as_secs_f64();
    let told = number(each * rooms);
    let case = format!("{} events, from {origins} of {rooms}", each * rooms);
    let case = case.replace("from 1 of 1", "one server, one room");
    let case = case.replace(
        &format!("from {origins} of {rooms}"),
        &format!("{origins} servers, {rooms} rooms"),
    );
    Ok(Measurement::new("W8", case)
        .with("pdus_per_s", told / seconds)
        .with_if(
            site.processes.known(),
            "cpu_s_per_1k_pdus",
            meter.cpu_seconds() / told * 1e3,
        ))
}

async fn enter(
    connection: &mut Connection,
    remotes: &Remotes,
    account: &Account,
    origin: usize,
    origins: usize,
) -> Result<Stream> {
    let room = remotes.make_room(Shape {
        version: RoomVersion::V11,
        members: origins + 1,
        origins,
        earlier: 0,
        entries: 0,
    })?;
    let id = room.lock().id().to_string();
    let through = &remotes.origin(origin)?.name;
    matrix::join_through(connection, account, &id, through.as_str()).await?;
    let last = room.lock().tip();
    Ok(Stream {
        origin,
        room,
        sent: Vec::new(),
        last,
    })
}

impl Stream {
    /// Makes what is sent: a member of the origin says it all.
    fn fill(&mut self, remotes: &Remotes, count: usize) -> Result<()> {
        let mut room = self.room.lock();
        // The founder's server is the first; of the others the member with its number is there.
        let member = format!("m{}", self.origin);
        for index in 1..=count {
            if index % FORGED_EVERY == 0 {
                let made = said(&mut room, remotes, self.origin, &member, index, true)?;
                self.sent.push(forged(&made));
                continue;
            }
            let made = said(&mut room, remotes, self.origin, &member, index, false)?;
            // The last one is told, or nobody would ask for it.
            if index % MISSING_EVERY != 0 || index == count {
                self.sent.push(made.json.clone());
            }
            self.last = made.id;
        }
        Ok(())
    }
}

fn said(
    room: &mut Room,
    remotes: &Remotes,
    origin: usize,
    member: &str,
    index: usize,
    aside: bool,
) -> Result<Made> {
    let text = json!({"msgtype": "m.text", "body": format!("message {index} from far away")});
    if aside {
        let tip = [room.tip()];
        return room.add(
            remotes,
            (origin, member),
            &tip,
            "m.room.message",
            None,
            &text,
        );
    }
    if index % STATE_EVERY == 1 {
        let content = json!({"value": index});
        return room.go_on(
            remotes,
            origin,
            member,
            "org.example.entry",
            Some(member),
            &content,
        );
    }
    room.go_on(remotes, origin, member, "m.room.message", None, &text)
}

/// The event with another's signature.
fn forged(made: &Made) -> String {
    let (before, after) = made
        .json
        .rsplit_once(r#""ed25519:bench":""#)
        .unwrap_or((&made.json, ""));
    let rest: String = after.chars().skip(4).collect();
    format!(r#"{before}"ed25519:bench":"AAAA{rest}"#)
}

/// Sends what one server has to say, room by room, as one server does: a transaction at a time.
async fn send(site: &Site, remotes: &Remotes, streams: &[Stream], origin: usize) -> Result<()> {
    let mut connection = Connection::new(&site.target);
    let mine: Vec<&Stream> = streams
        .iter()
        .filter(|stream| stream.origin == origin)
        .collect();
    let longest = mine
        .iter()
        .map(|stream| stream.sent.len())
        .max()
        .unwrap_or(0);
    // By turns, as rooms speak at the same time.
    let queue: Vec<&str> = (0..longest)
        .flat_map(|index| mine.iter().filter_map(move |stream| stream.sent.get(index)))
        .map(String::as_str)
        .collect();
    for events in queue.chunks(TRANSACTION) {
        remotes
            .transact(&mut connection, origin, &site.unique(), events)
            .await?;
    }
    Ok(())
}
