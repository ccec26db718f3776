//! What other capabilities keep of devices comes and goes with them, in the same batch: no key outlives its device, and
//! none is told of without it.

use std::sync::Arc;

use async_trait::async_trait;
use comity_storage::{Batch, CommitError, Reader};

use crate::Accounts;

/// The public keys that a device comes with, checked by who keeps them. All are canonical JSON.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicKeys {
    /// Its identity keys.
    pub identity: String,
    /// Its one-time keys, in their order.
    pub one_time: Vec<PublicKey>,
    /// Its fallback keys, one an algorithm.
    pub fallback: Vec<PublicKey>,
}

/// A key to be given away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicKey {
    /// For what.
    pub algorithm: String,
    /// `algorithm:name`
    pub key_id: String,
    /// The key.
    pub json: String,
}

/// What happens to a user's devices in one batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeviceChange {
    /// A device appears, or gets another name.
    Named {
        /// Which.
        device: String,
        /// Its name now.
        name: Option<String>,
    },
    /// A device appears that nobody signs in by, with its keys.
    Dehydrated {
        /// Which.
        device: String,
        /// Its name.
        name: Option<String>,
        /// Its keys.
        keys: Arc<PublicKeys>,
    },
    /// A device goes.
    Removed {
        /// Which.
        device: String,
    },
    /// The account ends; comes after the end of its devices.
    AccountEnded,
}

/// Keeps something of users' devices, in the user's lane.
#[async_trait]
pub trait Belongings: Send + Sync {
    /// Adds to the batch what the end of a device calls for, where nothing needs to be read for it.
    fn remove(&self, _user_id: &str, _device: &str, _batch: &mut Batch) {}

    /// Adds to the batch what the changes call for. `reader` sees what the lane has appended; it may be asked anew for a batch
    /// that could not be committed. By itself it removes what belongs to devices that go.
    ///
    /// # Errors
    /// The store's; then nothing changes.
    async fn follow(
        &self,
        _: &Reader,
        user_id: &str,
        changes: &[DeviceChange],
        batch: &mut Batch,
    ) -> Result<(), CommitError> {
        for change in changes {
            if let DeviceChange::Removed { device } = change {
                self.remove(user_id, device, batch);
            }
        }
        Ok(())
    }

    /// Whether something else of the user's has this id, so that no new device can.
    ///
    /// # Errors
    /// The store's.
    async fn has_id(&self, _: &Reader, _user_id: &str, _id: &str) -> Result<bool, CommitError> {
        Ok(false)
    }
}

impl Accounts {
    /// From now on these belong to devices. To be said before the first request.
    pub fn keep_with_devices(&self, belongings: Arc<dyn Belongings>) {
        self.0.belongings.write().push(belongings);
    }

    /// Whether a new device can't have this id.
    pub(crate) async fn is_taken(
        &self,
        reader: &Reader,
        user_id: &str,
        device: &str,
    ) -> Result<bool, CommitError> {
        let belongings = self.0.belongings.read().clone();
        for belongings in belongings {
            if belongings.has_id(reader, user_id, device).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Adds to a batch what belongs to the devices that it changes.
    pub(crate) async fn add_belongings(
        &self,
        reader: &Reader,
        user_id: &str,
        changes: &[DeviceChange],
        batch: &mut Batch,
    ) -> Result<(), CommitError> {
        let belongings = self.0.belongings.read().clone();
        for belongings in belongings {
            belongings.follow(reader, user_id, changes, batch).await?;
        }
        Ok(())
    }
}
