//! An event's rows: seven, an eighth for a local send.

use comity_storage::postcard_value;
use serde::{Deserialize, Serialize};

use super::{IdRoom, RoomNum, RoomPair, RoomPlace, RoomSeq, RoomText, RoomTxn, table};

/// An event's number within its room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Num(pub u32);

/// What auth, resolution and filters read of an event without its JSON. Immutable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// Its id.
    pub event_id: String,
    /// `type`
    pub event_type: String,
    /// `state_key`
    pub state_key: Option<String>,
    /// `sender`
    pub sender: String,
    /// `depth`
    pub depth: u64,
    /// `origin_server_ts`
    pub ts: i64,
    /// Its parents.
    pub prev: Vec<u32>,
    /// Its auth events.
    pub auth: Vec<u32>,
    /// The event this redaction names.
    pub redacts: Option<u32>,
}

/// What the checks made of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verdict {
    /// Known by name only.
    Named,
    /// Outside the graph that we hold: part of another event's past or state.
    Outlier,
    /// Forbidden by the state it claims: never shown, never a parent's state.
    Rejected,
    /// Forbidden by the current state when it arrived: kept, not shown, not built upon.
    SoftFailed,
    /// Part of the room.
    Accepted,
}

/// Where an event stands and what became of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The verdict.
    pub verdict: Verdict,
    /// The state before it ([`crate::state::AnyRoot`], encoded).
    pub root_before: Vec<u8>,
    /// Its place in the room's order.
    pub place: Option<(i64, i64)>,
    /// The redaction that took its content.
    pub redacted_by: Option<u32>,
    /// Which device of ours sent it, in which transaction.
    pub sent: Option<Sent>,
}

/// The transaction that an event of ours came in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sent {
    /// The device.
    pub device: String,
    /// The transaction id.
    pub txn: String,
}

/// An entry of the room's order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The event.
    pub num: u32,
    /// The thread it belongs to, by its root's number.
    pub thread: Option<u32>,
    /// Running totals of what notifies.
    pub totals: Totals,
}

/// How many events notify, and how many of them highlight.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Those that notify.
    pub notify: u32,
    /// Those that highlight too.
    pub highlight: u32,
}

/// How many events so far notify a reader with certain push rules.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Total {
    /// Of all events.
    pub all: Tally,
    /// Of those outside threads.
    pub main: Tally,
    /// Of those in this entry's thread.
    pub thread: Tally,
}

/// The running totals by ruleset: those of the default rules, then those of the rulesets that have a place
/// in the room ([`super::Rulesets`]). Counts are differences of totals, so that a message costs the same in
/// a room of any size.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals(pub Vec<Total>);

impl Totals {
    /// Under the ruleset at a place; nothing under one that had none yet.
    pub fn of(&self, place: u8) -> Total {
        let total = self.0.get(usize::from(place));
        total.copied().unwrap_or_default()
    }
}

/// A transaction done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    /// The event it made.
    pub event_id: String,
    /// Its sequence number.
    pub seq: i64,
    /// When it may be forgotten, in milliseconds since 1970.
    pub expires: u64,
}

/// A hole in the room's order: history before a live event that isn't here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// The latest events that are missing.
    pub missing: Vec<String>,
    /// The lowest `sub` that history fetched for it has; 0 while there is none.
    pub lowest: i64,
    /// What follows it.
    pub by: FollowedBy,
}

/// An event of the room follows one that isn't here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FollowedBy {
    /// It is the join by which we came in, or came before that: what it follows is the past, and nothing there is an end of the graph.
    pub entry: bool,
}

postcard_value!(Num, Header, Status, Entry, Done, Gap, FollowedBy);

table!(
    /// `room, event id` → its number: the truth about which ids we know.
    EventNums, "event number", b"Re", Index, false, RoomText => Num);
table!(
    /// `room, number` → [`Header`].
    Headers, "event header", b"Rh", Index, false, RoomNum => Header);
table!(
    /// `room, number` → [`Status`].
    Statuses, "event status", b"Rs", Index, true, RoomNum => Status);
table!(
    /// `room, seq, sub` → [`Entry`].
    Timeline, "timeline", b"Rt", Index, true, RoomPlace => Entry);
table!(
    /// `room, seq` → [`Gap`]: before that live event history is missing.
    Gaps, "gap", b"Ro", Index, true, RoomSeq => Gap);
table!(
    /// `day, room, user, device, txn` → [`Done`].
    Txns, "transaction", b"Rx", Queue, true, RoomTxn => Done);
table!(
    /// `event id, room` → nothing; serves `/event/{id}` without a room and decides nothing.
    IdRooms, "event id", b"Xi", Index, false, IdRoom => ());
table!(
    /// `room, target, redaction` → nothing: the redaction came before its target.
    EarlyRedactions, "early redaction", b"Rd", Index, false, RoomPair => ());
table!(
    /// `room, number` → [`FollowedBy`]: an event of the room follows this one, which isn't here.
    Followed, "followed event", b"Rb", Index, false, RoomNum => FollowedBy);
