//! What came in and isn't judged yet, and which transactions were answered.

use comity_protocol::id::{OwnedServerName, ServerName};
use comity_storage::{
    At, Damaged, Family, Home, Key, KeyReader, KeyWriter, Registered, RoomKey, Table,
    postcard_value,
};
use serde::{Deserialize, Serialize};

/// Every table of this crate, for the check of a store.
pub fn all() -> Vec<Registered> {
    vec![
        Registered::of::<StagedEvents>(),
        Registered::of::<WaitingEvents>(),
        Registered::of::<Transactions>(),
    ]
}

/// A line: what one server has sent for one room.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Line {
    /// The room.
    pub room: RoomKey,
    /// Who sent.
    pub origin: OwnedServerName,
}

/// A place in a line.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct InLine {
    /// The line.
    pub line: Line,
    /// The commit it came with.
    pub pos: At,
    /// Its place among what came with it.
    pub index: u32,
}

impl Key for InLine {
    fn home(&self) -> Home<'_> {
        Home::Room(self.line.room)
    }

    fn write(&self, to: &mut KeyWriter) {
        to.room(self.line.room)
            .str(self.line.origin.as_str())
            .position(self.pos)
            .u32(self.index);
    }

    fn read(from: &mut KeyReader<'_>) -> Result<Self, Damaged> {
        let room = from.room()?;
        let origin = ServerName::parse(from.str()?)
            .map_err(|_| Damaged("a staged event's origin is no server name"))?;
        Ok(Self {
            line: Line { room, origin },
            pos: from.position()?,
            index: from.u32()?,
        })
    }
}

/// A place among a room's events that wait for what they rest on.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct InWait {
    /// The room.
    pub room: RoomKey,
    /// The commit that put it there.
    pub pos: At,
    /// Its place among what was put there then.
    pub index: u32,
}

impl Key for InWait {
    fn home(&self) -> Home<'_> {
        Home::Room(self.room)
    }

    fn write(&self, to: &mut KeyWriter) {
        to.room(self.room).position(self.pos).u32(self.index);
    }

    fn read(from: &mut KeyReader<'_>) -> Result<Self, Damaged> {
        Ok(Self {
            room: from.room()?,
            pos: from.position()?,
            index: from.u32()?,
        })
    }
}

/// Another server.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Server {
    /// Its name.
    pub name: String,
}

impl Key for Server {
    fn home(&self) -> Home<'_> {
        Home::Server(&self.name)
    }

    fn write(&self, to: &mut KeyWriter) {
        to.str(&self.name);
    }

    fn read(from: &mut KeyReader<'_>) -> Result<Self, Damaged> {
        Ok(Self { name: from.str()? })
    }
}

/// An event that waits to be judged. Its signatures were good when it came.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Staged {
    /// The room's id.
    pub room_id: String,
    /// The event's id.
    pub event_id: String,
    /// Its canonical JSON; `None` where the line was full, to be fetched when its turn comes.
    pub json: Option<String>,
}

/// An event that waits for what it rests on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiting {
    /// The event.
    pub event: Staged,
    /// Who sent it.
    pub origin: String,
    /// Since when, in milliseconds since 1970.
    pub since_ts: u64,
}

/// A transaction that was answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answered {
    /// SHA-256 of its id, which may be long.
    pub txn: [u8; 32],
    /// The answer's body.
    pub answer: String,
}

/// The last transactions of a server, oldest first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recent(pub Vec<Answered>);

postcard_value!(Staged, Waiting, Recent);

/// `room, origin, position, index` → [`Staged`].
#[derive(Debug)]
pub struct StagedEvents;

impl Table for StagedEvents {
    const NAME: &'static str = "staged event";
    const FAMILY: Family = Family::Queue;
    const TAG: [u8; 2] = *b"RI";
    type Key = InLine;
    type Value = Staged;
}

/// `room, position, index` → [`Waiting`].
#[derive(Debug)]
pub struct WaitingEvents;

impl Table for WaitingEvents {
    const NAME: &'static str = "waiting event";
    const FAMILY: Family = Family::Queue;
    const TAG: [u8; 2] = *b"RW";
    type Key = InWait;
    type Value = Waiting;
}

/// `server` → [`Recent`].
#[derive(Debug)]
pub struct Transactions;

impl Table for Transactions {
    const NAME: &'static str = "federation transaction";
    const FAMILY: Family = Family::Hot;
    const TAG: [u8; 2] = *b"Ft";
    type Key = Server;
    type Value = Recent;
}
