//! What keys write into the lanes' logs.

use comity_storage::{Record, table};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// A user's list changed ([`ListChanged`]). The record's subject is whose list it is.
pub const LIST: u16 = 0x0201;
/// A device has other keys to be given away than before. The record's subject is its user; it has no body.
pub const SUPPLY: u16 = 0x0202;

/// A user's device list changed, or their cross-signing keys.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListChanged {
    /// Devices that changed, of a user of ours, in the order of their stream ids.
    pub devices: Vec<DeviceUpdate>,
    /// The master or self-signing key has changed, or has another signature.
    pub cross_signing: bool,
    /// Whether users are to look at the keys anew; not where a device without keys comes or goes.
    pub shown: bool,
    /// Only this user, who has signed a key of the subject's.
    pub only: Option<String>,
}

/// A device of ours that changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceUpdate {
    /// Which.
    pub device: String,
    /// The stream id of this change.
    pub id: u64,
    /// The stream id of the change before it.
    pub prev: u64,
}

impl ListChanged {
    pub(crate) fn record(&self, user: &str) -> Record {
        Record {
            kind: LIST,
            subject: user.to_owned(),
            // Writing to a vector can't fail for these types.
            body: table::to_postcard(self).unwrap_or_default(),
        }
    }

    /// Reads a log record; `None` if it is another capability's or a newer build's.
    pub fn of(record: &Record) -> Option<Self> {
        (record.kind == LIST).then(|| body(record)).flatten()
    }
}

fn body<T: DeserializeOwned>(record: &Record) -> Option<T> {
    table::from_postcard(&record.body).ok()
}

pub(crate) fn supply(user: &str) -> Record {
    Record {
        kind: SUPPLY,
        subject: user.to_owned(),
        body: Vec::new(),
    }
}
