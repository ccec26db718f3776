//! What accounts write into the lanes' logs, for those who follow them: sync, push, and every node's sessions.

use comity_storage::Record;
use serde::{Deserialize, Serialize};

use crate::tables::SessionId;

/// The kind of all our records; the body says which.
pub const KIND: u16 = 0x0100;

/// One change to an account. The record's subject is the user's id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    /// A session's tokens below this generation are dead; all of them if it is `None`.
    TokensEnded {
        /// Which session.
        session: SessionId,
        /// The oldest generation that is still good.
        from_generation: Option<u32>,
    },
    /// What requests must know of the user changed: admin, suspended, locked.
    Standing {
        /// Whether all requests under way must end.
        ended: bool,
    },
    /// A device appeared, got another name or went: the user's device list changed.
    Device {
        /// Which device.
        device: String,
    },
    /// A profile field was set or removed.
    Profile {
        /// Its name.
        field: String,
    },
    /// Global account data was set.
    AccountData {
        /// Its type.
        kind: String,
    },
    /// Room account data was set. Written in the room's lane.
    RoomAccountData {
        /// The room.
        room_id: String,
        /// Its type.
        kind: String,
    },
}

impl Change {
    /// The change as a log record about `user`.
    pub(crate) fn record(&self, user: &str) -> Record {
        Record {
            kind: KIND,
            subject: user.to_owned(),
            // Writing to a vector can't fail for these types.
            body: comity_storage::table::to_postcard(self).unwrap_or_default(),
        }
    }

    /// Reads a log record; `None` if it is another capability's or a newer build's.
    pub fn of(record: &Record) -> Option<Self> {
        (record.kind == KIND)
            .then(|| comity_storage::table::from_postcard(&record.body).ok())
            .flatten()
    }
}
