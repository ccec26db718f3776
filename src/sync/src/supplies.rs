//! What devices have left to be given away, as it was last read: every answer says it, and it seldom changes.

use std::collections::HashMap;

use comity_keys::Left;
use comity_protocol::id::{OwnedUserId, UserId};
use comity_storage::{Home, Pos};
use parking_lot::Mutex;

use crate::{Sync, SyncError};

/// Devices kept.
const DEVICES: usize = 100_000;

/// By user and device: what was read, and the latest change of the user's own rows that was known before. While that is the latest,
/// what was read holds.
#[derive(Default)]
pub(crate) struct Supplies(Mutex<HashMap<(OwnedUserId, String), (Pos, Left)>>);

impl Sync {
    /// What a device has left: not as of an answer's heads, but as far as the index has come, or later.
    pub(crate) async fn keys_left(&self, user: &UserId, device: &str) -> Result<Left, SyncError> {
        let lanes = self.0.rooms.tenant().lanes();
        let changed = self
            .0
            .index
            .own(user, lanes.of(Home::User(user.as_str()).slot()));
        let key = (user.to_owned(), device.to_owned());
        if let Some((at, left)) = self.0.supplies.0.lock().get(&key)
            && Some(*at) == changed
        {
            return Ok(left.clone());
        }
        let left = self.0.keys.left(user.as_str(), device).await?;
        if let Some(changed) = changed {
            let mut supplies = self.0.supplies.0.lock();
            if supplies.len() >= DEVICES {
                supplies.clear();
            }
            supplies.insert(key, (changed, left.clone()));
        }
        Ok(left)
    }
}
