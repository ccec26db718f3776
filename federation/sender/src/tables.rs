//! What is kept of sending: how far the logs were dispatched, and who is owed what.
//!
//! A position stands in the lane whose log it is about, a debt in the lane of the room or user; the debts
//! are written first.

use comity_storage::{
    Damaged, Home, Key, KeyReader, KeyWriter, RoomKey, Slot, postcard_value, tables,
};
use serde::{Deserialize, Serialize};

/// A lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaneKey(pub u8);

impl Key for LaneKey {
    fn home(&self) -> Home<'_> {
        Home::Fixed(Slot::new(self.0))
    }
    fn write(&self, to: &mut KeyWriter) {
        to.u8(self.0);
    }
    fn read(from: &mut KeyReader<'_>) -> Result<Self, Damaged> {
        Ok(Self(from.u8()?))
    }
}

/// A room as far as another server hears of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerRoom {
    /// The server.
    pub server: String,
    /// The room.
    pub room: RoomKey,
}

impl Key for ServerRoom {
    fn home(&self) -> Home<'_> {
        Home::Room(self.room)
    }
    fn write(&self, to: &mut KeyWriter) {
        to.str(&self.server).room(self.room);
    }
    fn read(from: &mut KeyReader<'_>) -> Result<Self, Damaged> {
        Ok(Self {
            server: from.str()?,
            room: from.room()?,
        })
    }
}

/// A user of ours as far as another server hears of their devices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerUser {
    /// The server.
    pub server: String,
    /// The user's id.
    pub user: String,
}

impl Key for ServerUser {
    fn home(&self) -> Home<'_> {
        Home::User(&self.user)
    }
    fn write(&self, to: &mut KeyWriter) {
        to.str(&self.server).str(&self.user);
    }
    fn read(from: &mut KeyReader<'_>) -> Result<Self, Damaged> {
        Ok(Self {
            server: from.str()?,
            user: from.str()?,
        })
    }
}

/// The position up to which a lane's log has been given to the queues and sent, or is owed by rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor {
    /// The position.
    pub pos: u64,
}

/// Events of a room that a server hasn't been told of, by their numbers there: from these it finds the others.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwedEvents {
    /// The room's id; the key has only its hash.
    pub room_id: String,
    /// The last of each earlier stay in the room.
    pub ends: Vec<u32>,
    /// The newest.
    pub newest: Option<u32>,
}

postcard_value!(Cursor, OwedEvents);

tables! {
    /// `lane` → [`Cursor`].
    Cursors: "federation cursor", b"Fc", Hot, LaneKey => Cursor;
    /// `server, room` → [`OwedEvents`]; only while the server is behind.
    Owes: "owed events", b"Fo", Queue, ServerRoom => OwedEvents;
    /// `server, user` → (): their device list has changed; only while the server is behind.
    OwedLists: "owed device list", b"Fd", Queue, ServerUser => ();
}
