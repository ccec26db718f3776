//! Who has read how far, and what counts for whom.

use comity_storage::postcard_value;
use serde::{Deserialize, Serialize};

use super::{RoomReceipt, RoomReceiptAt, Totals, UserHit, table};

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

/// An event whose verdict for one user is not what the totals say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hit {
    /// The thread that the event is in.
    pub thread: Option<u32>,
    /// To add to the notifications.
    pub notify: i8,
    /// To add to the highlights.
    pub highlight: i8,
}

postcard_value!(Receipt, Hit);

table!(
    /// `room, position, user, kind, thread` → [`Receipt`]: receipts by what changed.
    ReceiptMoves, "receipt move", b"Rp", Hot, true, RoomReceiptAt => Receipt);
table!(
    /// `room, user, kind, thread` → [`Receipt`].
    Receipts, "receipt", b"RP", Hot, true, RoomReceipt => Receipt);
table!(
    /// `user, room, seq` → [`Hit`].
    Hits, "hit", b"Uh", Hot, true, UserHit => Hit);
