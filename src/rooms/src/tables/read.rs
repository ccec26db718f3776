//! Who has read how far, and what counts for whom.

use comity_protocol::push::Fingerprint;
use comity_storage::postcard_value;
use serde::{Deserialize, Serialize};

use super::{InRoom, RoomReceipt, RoomReceiptAt, RoomTurn, Totals, UserHit, table};

/// A user's receipt in a room, or the position that they have by joining or writing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// The last event read.
    pub event_id: String,
    /// Its place.
    pub seq: i64,
    /// Likewise.
    pub sub: i64,
    /// When it was read, in milliseconds since 1970.
    pub ts: u64,
    /// The totals at that place; `thread` is the total of the receipt's own thread.
    pub totals: Totals,
}

/// An event whose verdict for one user is not what the totals of their ruleset say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hit {
    /// The thread that the event is in.
    pub thread: Option<u32>,
    /// To add to the notifications.
    pub notify: i8,
    /// To add to the highlights.
    pub highlight: i8,
}

/// The rulesets that are counted in a room beside the default one, by their places, which begin with 1.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rulesets(pub Vec<Fingerprint>);

/// The place of the ruleset by which a member's count goes on; 0 is the default one's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place(pub u8);

postcard_value!(Receipt, Hit, Rulesets, Place);

table!(
    /// `room, position, user, kind, thread` → [`Receipt`]: receipts by what changed.
    ReceiptMoves, "receipt move", b"Rp", Hot, true, RoomReceiptAt => Receipt);
table!(
    /// `room, user, kind, thread` → [`Receipt`].
    Receipts, "receipt", b"RP", Hot, true, RoomReceipt => Receipt);
table!(
    /// `user, room, seq` → [`Hit`].
    Hits, "hit", b"Uh", Hot, true, UserHit => Hit);
table!(
    /// `room` → [`Rulesets`].
    RoomRulesets, "room rulesets", b"Rf", Hot, true, InRoom => Rulesets);
table!(
    /// `room, user, seq` → [`Place`]: from the next event on they count by that ruleset.
    Turns, "turn to a ruleset", b"Ry", Hot, true, RoomTurn => Place);
