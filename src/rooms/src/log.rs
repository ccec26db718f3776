//! What the rooms write into their lanes' logs, for sync and every other consumer.

use comity_storage::{Damaged, Record, table};
use serde::{Deserialize, Serialize};

/// The kind numbers of this crate's records.
pub mod kind {
    /// An event took a place in a room's order ([`super::Placed`]).
    pub const PLACED: u16 = 0x0101;
    /// A read receipt moved ([`super::ReceiptMoved`]).
    pub const RECEIPT: u16 = 0x0102;
    /// A user forgot a room ([`super::Forgot`]).
    pub const FORGOT: u16 = 0x0103;
    /// State resolution changed memberships ([`super::Resolved`]).
    pub const RESOLVED: u16 = 0x0104;
    /// An event that was placed is ours to make known ([`super::Relayed`]).
    pub const RELAYED: u16 = 0x0105;
    /// The state of a room that was entered partially is whole now ([`super::Completed`]).
    pub const COMPLETED: u16 = 0x0106;
    /// A room has been replaced by another ([`super::Replaced`]).
    pub const REPLACED: u16 = 0x0107;
    /// History was fetched for a hole ([`super::Fetched`]).
    pub const FETCHED: u16 = 0x0108;
    /// A room was entered by the answer to a join, for the first time or anew: what is said in it from here on doesn't follow what was
    /// said before. Comes before the [`super::Placed`] of that join; its subject, the room's id, says it all.
    pub const ENTERED: u16 = 0x0109;
}

/// An event took a place. The record's subject is the room's id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placed {
    /// Its sequence number.
    pub seq: i64,
    /// Its number in the room.
    pub num: u32,
    /// Who sent it.
    pub sender: String,
    /// Of a member event, whose membership it sets, and to what.
    pub member: Option<(String, String)>,
    /// Whether it is a state event.
    pub state: bool,
}

/// Another server handed us an event to be made part of the room: it is ours to make known to the
/// others. Comes with the [`Placed`] of that event. The record's subject is the room's id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Relayed {
    /// The event's number in the room.
    pub num: u32,
}

/// The state says now that another room replaces this one. The record's subject is the room's id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replaced {
    /// That room, as the tombstone names it.
    pub by: String,
}

/// A run of history got its places, `(seq, lowest)` up to but without `(seq, end)`. It is no news to
/// anybody, but there to be found (law 2). The record's subject is the room's id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fetched {
    /// The live event before which the run stands.
    pub seq: i64,
    /// Its first place.
    pub lowest: i64,
    /// The place after its last.
    pub end: i64,
}

/// The state has other memberships of this server's users than before, apart from what the event that
/// was placed says itself: where forks meet, where a room is entered, where a user was invited to a
/// room that we aren't in. The record's subject is the room's id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resolved {
    /// The sequence number of the event with which they changed.
    pub seq: i64,
    /// Whose membership, and what it is now.
    pub members: Vec<(String, String)>,
}

/// A room's state is whole now: whoever left it out shows it. The record's subject is the room's id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Completed {
    /// The sequence number of the join by which it was entered.
    pub join: i64,
    /// The servers that were taken to be in the room until now.
    pub servers: Vec<String>,
}

/// A receipt moved. The record's subject is the room's id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReceiptMoved {
    /// Whose.
    pub user: String,
    /// Only its owner may see it.
    pub private: bool,
}

/// A user forgot a room. The record's subject is the room's id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Forgot {
    /// Who.
    pub user: String,
}

/// A record of this crate.
pub(crate) fn record<T: Serialize>(kind: u16, subject: &str, body: &T) -> Result<Record, Damaged> {
    Ok(Record {
        kind,
        subject: subject.to_owned(),
        body: table::to_postcard(body)?,
    })
}

/// The body of a record whose kind says that it is a `T`.
///
/// # Errors
/// The record was written by another build, or is damaged.
pub fn read<T: serde::de::DeserializeOwned>(record: &Record) -> Result<T, Damaged> {
    table::from_postcard(&record.body)
}
