//! The rows of messages to devices. Names that others choose (devices, transactions, messages) stand in keys as the first 16
//! bytes of their SHA-256.

use std::collections::BTreeMap;

use comity_storage::{At, Damaged, Home, Key, KeyReader, KeyWriter, postcard_value, tables};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// A name in a key.
pub type Hash = [u8; 16];

pub(crate) fn hash(parts: &[&str]) -> Hash {
    let mut digest = Sha256::new();
    for part in parts {
        digest.update(part.as_bytes());
        // No name has this byte, so that no two lists of names are one.
        digest.update([255]);
    }
    let mut hash = [0; 16];
    hash.iter_mut()
        .zip(digest.finalize())
        .for_each(|(to, from)| *to = from);
    hash
}

/// A place in a device's queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InQueue {
    /// The device's user.
    pub user: String,
    /// The device.
    pub device: Hash,
    /// The commit that put it there.
    pub pos: At,
    /// Its place among what that commit put there.
    pub index: u32,
}

impl Key for InQueue {
    fn home(&self) -> Home<'_> {
        Home::User(&self.user)
    }
    fn write(&self, to: &mut KeyWriter) {
        to.str(&self.user)
            .fixed(&self.device)
            .position(self.pos)
            .u32(self.index);
    }
    fn read(from: &mut KeyReader<'_>) -> Result<Self, Damaged> {
        Ok(Self {
            user: from.str()?,
            device: from.fixed()?,
            pos: from.position()?,
            index: from.u32()?,
        })
    }
}

/// A place in the queue of another server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InOutgoing {
    /// The server.
    pub server: String,
    /// The commit that put it there.
    pub pos: At,
    /// Its place among what that commit put there.
    pub index: u32,
}

impl Key for InOutgoing {
    fn home(&self) -> Home<'_> {
        Home::Server(&self.server)
    }
    fn write(&self, to: &mut KeyWriter) {
        to.str(&self.server).position(self.pos).u32(self.index);
    }
    fn read(from: &mut KeyReader<'_>) -> Result<Self, Damaged> {
        Ok(Self {
            server: from.str()?,
            pos: from.position()?,
            index: from.u32()?,
        })
    }
}

/// Another server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server(pub String);

impl Key for Server {
    fn home(&self) -> Home<'_> {
        Home::Server(&self.0)
    }
    fn write(&self, to: &mut KeyWriter) {
        to.str(&self.0);
    }
    fn read(from: &mut KeyReader<'_>) -> Result<Self, Damaged> {
        Ok(Self(from.str()?))
    }
}

/// A device's transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Txn {
    /// The day it was done, so that those of a day go together.
    pub day: u32,
    /// Who.
    pub user: String,
    /// With which device, of which type, under which transaction id.
    pub txn: Hash,
}

impl Key for Txn {
    fn home(&self) -> Home<'_> {
        Home::User(&self.user)
    }
    fn write(&self, to: &mut KeyWriter) {
        to.u32(self.day).str(&self.user).fixed(&self.txn);
    }
    fn read(from: &mut KeyReader<'_>) -> Result<Self, Damaged> {
        Ok(Self {
            day: from.u32()?,
            user: from.str()?,
            txn: from.fixed()?,
        })
    }
}

/// A message of another server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    /// The week it came, so that those of a week go together.
    pub week: u32,
    /// The server.
    pub server: String,
    /// Its id.
    pub message: Hash,
}

impl Key for Received {
    fn home(&self) -> Home<'_> {
        Home::Server(&self.server)
    }
    fn write(&self, to: &mut KeyWriter) {
        to.u32(self.week).str(&self.server).fixed(&self.message);
    }
    fn read(from: &mut KeyReader<'_>) -> Result<Self, Damaged> {
        Ok(Self {
            week: from.u32()?,
            server: from.str()?,
            message: from.fixed()?,
        })
    }
}

/// Something in a queue that is bounded. Its totals say, by their difference between the last and the first, how much there
/// is: nobody counts, and nothing is read but the two ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Queued<T> {
    /// How many went before it, and itself.
    pub nth: u64,
    /// The bytes of all those.
    pub bytes: u64,
    /// What it is.
    pub item: T,
}

/// A device, whose queue is crowded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Crowd {
    /// The device's user.
    pub user: String,
    /// The device.
    pub device: Hash,
}

impl Key for Crowd {
    fn home(&self) -> Home<'_> {
        Home::User(&self.user)
    }
    fn write(&self, to: &mut KeyWriter) {
        to.str(&self.user).fixed(&self.device);
    }
    fn read(from: &mut KeyReader<'_>) -> Result<Self, Damaged> {
        Ok(Self {
            user: from.str()?,
            device: from.fixed()?,
        })
    }
}

/// What each has put into a queue since it was half full, by their hash: how many messages, of how many bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shares(pub BTreeMap<Hash, (u64, u64)>);

/// A message to a device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Who sent it.
    pub sender: String,
    /// Its type.
    pub event_type: String,
    /// Its content, as JSON.
    pub content: String,
}

/// An EDU, as JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Edu(pub String);

postcard_value!(Queued<Message>, Queued<Edu>, Shares);

tables! {
    /// `user, device, position, index` → [`Message`].
    Queues: "message to a device", b"Dq", Queue, InQueue => Queued<Message>;
    /// `user, device` → [`Shares`].
    Crowded: "shares of a device's queue", b"Ds", Hot, Crowd => Shares;
    /// `server, position, index` → [`Edu`].
    Outgoing: "message to another server's device", b"Do", Queue, InOutgoing => Queued<Edu>;
    /// `server` → (): it has rows in [`Outgoing`].
    Owed: "server with outgoing messages", b"Dw", Hot, Server => ();
    /// `day, user, transaction` → (): it is done.
    Txns: "to-device transaction", b"Dt", Hot, Txn => ();
    /// `week, server, message` → (): it has come.
    Ids: "received message id", b"Di", Hot, Received => ();
}
