//! The rows of sliding sync: what a connection has been told, all in the lane of the device's user. Names that clients choose
//! (devices, connections) stand in keys as the first 16 bytes of their SHA-256.

use comity_storage::{
    Damaged, Family, Home, Key, KeyReader, KeyWriter, Pos, Registered, RoomKey, Table,
    postcard_value,
};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{sliding::Required, token::Ephemeral};

/// A name in a key.
pub type Hash = [u8; 16];

/// The name of a device or connection in a key.
pub(crate) fn hash(name: &str) -> Hash {
    let mut hash = [0; 16];
    let digest = Sha256::digest(name.as_bytes());
    hash.iter_mut()
        .zip(digest)
        .for_each(|(to, from)| *to = from);
    hash
}

/// A connection of a device.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OfDevice {
    /// The device's user.
    pub user: String,
    /// The device.
    pub device: Hash,
    /// The connection's name.
    pub conn: Hash,
}

impl Key for OfDevice {
    fn home(&self) -> Home<'_> {
        Home::User(&self.user)
    }
    fn write(&self, to: &mut KeyWriter) {
        to.str(&self.user).fixed(&self.device).fixed(&self.conn);
    }
    fn read(from: &mut KeyReader<'_>) -> Result<Self, Damaged> {
        Ok(Self {
            user: from.str()?,
            device: from.fixed()?,
            conn: from.fixed()?,
        })
    }
}

/// A room of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InConnection {
    /// Which connection.
    pub of: OfDevice,
    /// The room.
    pub room: RoomKey,
}

impl Key for InConnection {
    fn home(&self) -> Home<'_> {
        self.of.home()
    }
    fn write(&self, to: &mut KeyWriter) {
        self.of.write(to);
        to.room(self.room);
    }
    fn read(from: &mut KeyReader<'_>) -> Result<Self, Damaged> {
        Ok(Self {
            of: OfDevice::read(from)?,
            room: from.room()?,
        })
    }
}

/// A number of a connection's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OfConnection {
    /// Which connection.
    pub of: OfDevice,
    /// The number.
    pub number: u16,
}

impl Key for OfConnection {
    fn home(&self) -> Home<'_> {
        self.of.home()
    }
    fn write(&self, to: &mut KeyWriter) {
        self.of.write(to);
        to.u32(self.number.into());
    }
    fn read(from: &mut KeyReader<'_>) -> Result<Self, Damaged> {
        let of = OfDevice::read(from)?;
        let number = u16::try_from(from.u32()?).map_err(|_| Damaged("a number is too great"))?;
        Ok(Self { of, number })
    }
}

/// How far an answer went: what its `pos` names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// Drawn for each, so that no two are taken for one, whatever was lost in between.
    pub id: u64,
    /// One more than that of the position it follows.
    pub serial: u64,
    /// The store's incarnation that the heads are of.
    pub incarnation: u32,
    /// The lanes' positions.
    pub heads: Vec<Pos>,
    /// How far in what lives in memory.
    pub ephemeral: Ephemeral,
    /// How far in the user's own account data, as a position of the user's lane; `None` if none was told.
    pub data: Option<Pos>,
}

/// What a client knows of a room. All positions are of the room's lane.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Known {
    /// Up to where it knows the room.
    pub upto: Pos,
    /// How many of the latest events up to there it has been given, without a gap between them.
    pub limit: u32,
    /// Which state it knows: a number of one of [`ConnectionStates`].
    pub required: u16,
    /// What it was told of the room's being direct.
    pub dm: bool,
    /// The unread counts that it was told: of notifications, of highlights.
    pub unread: (u32, u32),
    /// Up to where it knows the user's account data of the room; 0: it knows none.
    pub data: Pos,
    /// Up to where it knows the receipts; 0: it knows none.
    pub receipts: Pos,
    /// The run of the server, and its serial of typing ([`Ephemeral`]), up to which it knows who types; serial 0: it was shown nobody.
    pub typing: (u64, u64),
}

/// A connection: the position that the client has come back with, and the one it was given then.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connection {
    /// The position that the client has; `None` before its second request.
    pub base: Option<Position>,
    /// The latest position given.
    pub newest: Position,
    /// What the client knows at that one and not at the base yet, by room.
    pub told: Vec<([u8; 16], Known)>,
}

postcard_value!(Connection, Known, Required);

/// `user, device, connection` → [`Connection`].
#[derive(Debug)]
pub struct Connections;

impl Table for Connections {
    const NAME: &'static str = "sliding sync connection";
    const FAMILY: Family = Family::Hot;
    const TAG: [u8; 2] = *b"Yc";
    type Key = OfDevice;
    type Value = Connection;
}

/// `user, device, connection, room` → [`Known`] at the connection's base.
#[derive(Debug)]
pub struct ConnectionRooms;

impl Table for ConnectionRooms {
    const NAME: &'static str = "sliding sync room";
    const FAMILY: Family = Family::Hot;
    const TAG: [u8; 2] = *b"Yr";
    type Key = InConnection;
    type Value = Known;
}

/// `user, device, connection, number` → the required state that rooms were told by under this number, from 0 on. A row of its own,
/// written when the first room is told by it, for it may be long and each answer writes the connection's row.
#[derive(Debug)]
pub struct ConnectionStates;

impl Table for ConnectionStates {
    const NAME: &'static str = "sliding sync required state";
    const FAMILY: Family = Family::Hot;
    const TAG: [u8; 2] = *b"Yq";
    type Key = OfConnection;
    type Value = Required;
}

/// Every table of this crate, for the check of a store.
pub fn all() -> Vec<Registered> {
    vec![
        Registered::of::<Connections>(),
        Registered::of::<ConnectionRooms>(),
        Registered::of::<ConnectionStates>(),
    ]
}
