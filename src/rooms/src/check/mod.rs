//! Whether a store's rows agree with one another: what `comity check` asks of the rooms once each row by itself is as
//! its table writes it ([`comity_storage::check`]).
//!
//! Room by room, and in each: numbers, ids, headers, bodies and statuses ([`events`]); the order and the head
//! ([`order`]); the states and all that is in them ([`states`]); the cover of the auth chains; members and summary, which
//! are caches of the state ([`derived`]); relations, threads and receipts ([`relations`], [`receipts`]). What is kept by
//! user, alias, day or bare id is walked besides ([`names`]).
//!
//! Nothing is written. Rows are read in pages; what stays in memory is some 30 bytes an event of the one room that is
//! being walked, the names of its state nodes, and a few numbers a room.

mod broken;
mod derived;
mod events;
mod names;
mod order;
mod receipts;
mod relations;
mod states;

use std::{
    fmt,
    hash::{DefaultHasher, Hash, Hasher},
};

use comity_protocol::id::ServerName;
use comity_storage::{Home, Pages, Range, ReadError, Reader, RoomKey, Row, Table, check::Listener};

pub use broken::Broken;
use events::Events;
use names::Tallies;

use crate::{
    num::EventNum,
    tables::{self, Head, InRoom, Info, Infos},
};

/// Something that rows of rooms say differently.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The room's id, or the key of its rows where that isn't known.
    pub room: String,
    /// What should hold and doesn't.
    pub broken: Broken,
    /// Where: an event's number, a place, a user, a node. It holds no content.
    pub at: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "room {}: {} [{}]", self.room, self.broken, self.at)
    }
}

/// Walks all rooms of a tenant, whose users are those of `server`; how many there are.
///
/// On a store that is being written meanwhile, what is found need not be so.
///
/// # Errors
/// The store can't be read. A row that can't be understood is a finding.
pub async fn tenant(
    reader: &Reader,
    server: &ServerName,
    to: &mut dyn Listener<Finding>,
) -> Result<usize, ReadError> {
    let mut walk = Walk { reader, server, to };
    let mut tallies = Tallies::default();
    let tallied = walk.tally(&mut tallies).await;
    if !walk.understood("(all)", tallied)? {
        return Ok(0);
    }
    let mut rooms = 0;
    let mut infos = Pages::<Infos>::all();
    while let Some(page) = walk.page(&mut infos).await? {
        for (InRoom { room }, row) in page {
            rooms += 1;
            let name = row.value.room_id.clone();
            let walked = walk.room(room, row.value, &mut tallies).await;
            walk.understood(&name, walked)?;
        }
    }
    let walked = walk.leftovers(&tallies).await;
    walk.understood("(all)", walked)?;
    let walked = walk.names().await;
    walk.understood("(all)", walked)?;
    Ok(rooms)
}

/// A hash that is the same wherever it is made: for comparing sets of rows, not for anything that a sender might want to
/// be the same.
pub(crate) fn hash(of: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    of.hash(&mut hasher);
    hasher.finish()
}

/// A walk over a tenant.
struct Walk<'a> {
    reader: &'a Reader,
    server: &'a ServerName,
    to: &'a mut dyn Listener<Finding>,
}

/// The room that is being walked.
struct Room {
    key: RoomKey,
    info: Info,
    head: Head,
    /// What is kept of its events, by number.
    events: Events,
}

impl Room {
    fn in_room(&self) -> InRoom {
        InRoom { room: self.key }
    }

    /// The rows of a table whose keys begin with the room.
    fn pages<T: Table>(&self) -> Pages<T> {
        let room = self.key;
        Pages::of(Range::of(Home::Room(room), |key| {
            key.room(room);
        }))
    }

    fn num(&self, num: u32) -> tables::RoomNum {
        let room = self.key;
        tables::RoomNum { room, num }
    }
}

impl Walk<'_> {
    fn found(&mut self, room: &str, broken: Broken, at: impl fmt::Display) {
        self.to.found(Finding {
            room: room.to_owned(),
            broken,
            at: at.to_string(),
        });
    }

    /// Whether all rows of a walk could be understood.
    fn understood(&mut self, room: &str, walked: Result<(), ReadError>) -> Result<bool, ReadError> {
        match walked {
            Ok(()) => Ok(true),
            Err(ReadError::Damaged(damaged)) => {
                self.found(room, Broken::Unreadable, damaged);
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// Says something of the room that is being walked.
    fn say(&mut self, room: &Room, broken: Broken, at: impl fmt::Display) {
        self.found(&room.info.room_id, broken, at);
    }

    fn say_of(&mut self, room: &Room, broken: Broken, num: EventNum) {
        self.say(room, broken, format_args!("event {}", num.0));
    }

    /// The next page of a table.
    async fn page<T: Table>(
        &mut self,
        pages: &mut Pages<T>,
    ) -> Result<Option<Vec<(T::Key, Row<T::Value>)>>, ReadError> {
        self.to.page(self.reader, pages).await
    }

    async fn room(
        &mut self,
        room: RoomKey,
        info: Info,
        tallies: &mut Tallies,
    ) -> Result<(), ReadError> {
        let tally = tallies.take(room);
        if RoomKey::of(&info.room_id) != room {
            self.found(&info.room_id, Broken::RoomId, format_args!("{room:?}"));
        }
        let newest = Range::of(Home::Room(room), |key| {
            key.room(room);
        });
        let newest = newest.reverse().limit(1);
        let heads = self.reader.scan::<tables::Heads>(newest).await?;
        let Some((_, head)) = heads.into_iter().next() else {
            self.found(&info.room_id, Broken::NoHead, format_args!("{room:?}"));
            return Ok(());
        };
        let mut room = Room {
            key: room,
            info,
            events: Events::new(head.value.next_num),
            head: head.value,
        };
        let mut closure = self.heads(&room).await?;
        self.keys(&mut room).await?;
        self.ids(&mut room).await?;
        self.events(&mut room, &mut closure).await?;
        self.bare_ids(&room, &tally).await?;
        self.order(&mut room).await?;
        self.head(&room).await?;
        self.states(&room, closure).await?;
        self.cover(&room).await?;
        self.derived(&room, &tally).await?;
        self.relations(&mut room).await?;
        self.receipts(&room, &tally).await
    }
}
