//! The log of a lane: one row a commit, saying what changed for whom.
//!
//! The log is the source of every projection (law 2) and carries what one lane owes another.

use serde::{Deserialize, Serialize};

use crate::{
    heads::Pos,
    key::{At, Home, Key, KeyReader, KeyWriter, Lane, RoomKey, Slot},
    table::{Damaged, Family, Table},
};

/// One thing that a commit changed, in the words of the capability that wrote it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Which capability and what kind; the writer's crate says what the numbers mean.
    pub kind: u16,
    /// What the change is about: a room id, a user id.
    pub subject: String,
    /// The rest, in the writer's own form.
    pub body: Vec<u8>,
}

/// What this lane owes another: applied there exactly once, in order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owed {
    /// Which applier takes it.
    pub kind: u16,
    /// To whom: the slot decides the lane when it is applied, it is never stored.
    pub target: Target,
    /// What to do there.
    pub body: Vec<u8>,
}

/// [`Home`] with its names owned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Target {
    /// A room.
    Room([u8; 16]),
    /// A local user.
    User(String),
    /// Another server.
    Server(String),
    /// A tenant-wide name.
    Name(String),
}

impl Target {
    /// Whose rows the applier will write.
    pub fn home(&self) -> Home<'_> {
        match self {
            Self::Room(key) => Home::Room(RoomKey(*key)),
            Self::User(name) => Home::User(name),
            Self::Server(name) => Home::Server(name),
            Self::Name(name) => Home::Name(name),
        }
    }
}

/// A commit as its lane's log tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Logged {
    /// The lane.
    pub lane: Lane,
    /// Its position there.
    pub pos: Pos,
    /// What changed.
    pub records: Vec<Record>,
    /// What is owed to other lanes.
    pub owed: Vec<Owed>,
}

impl Logged {
    /// What it weighs in memory, about.
    pub(crate) fn weight(&self) -> usize {
        let records = self.records.iter().map(|r| r.subject.len() + r.body.len());
        let owed = self.owed.iter().map(|o| o.body.len());
        size_of::<Self>()
            + records.map(|n| n + size_of::<Record>()).sum::<usize>()
            + owed.map(|n| n + size_of::<Owed>()).sum::<usize>()
    }
}

/// The stored part of [`Logged`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub(crate) struct Entry {
    /// The position of the log's commit before this one. Positions given to what was dropped are
    /// not given again, so they don't tell by themselves that nothing is missing.
    pub after: Pos,
    pub records: Vec<Record>,
    pub owed: Vec<Owed>,
}

crate::postcard_value!(Entry);

/// `T L lane pos` → [`Entry`].
pub(crate) struct LogTable;

pub(crate) struct LogKey {
    pub lane: Lane,
    pub pos: At,
}

impl Key for LogKey {
    /// The log's rows go with the lane, whatever its slots.
    fn home(&self) -> Home<'_> {
        Home::Fixed(Slot::new(self.lane.0))
    }
    fn write(&self, to: &mut KeyWriter) {
        to.u8(self.lane.0).position(self.pos);
    }
    fn read(from: &mut KeyReader<'_>) -> Result<Self, Damaged> {
        Ok(Self {
            lane: Lane(from.u8()?),
            pos: from.position()?,
        })
    }
}

impl Table for LogTable {
    const NAME: &'static str = "log";
    const FAMILY: Family = Family::Log;
    const TAG: [u8; 2] = *b"L.";
    const STAMPED: bool = false;
    type Key = LogKey;
    type Value = Entry;
}
