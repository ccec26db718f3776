//! Servers that are silent when they are asked for their keys, and how long there is hope for them.
//!
//! What they signed can't be checked meanwhile. A state without it is another than everybody else's for good, so it is
//! waited for; but whoever has a dead server in a room mustn't keep all others from using it.

use std::collections::BTreeSet;

use comity_protocol::id::OwnedServerName;
use comity_storage::ReadError;

use crate::Fetcher;

/// How long, in milliseconds.
pub(crate) const HOPE_MS: u64 = 60 * 60 * 1_000;

impl Fetcher {
    /// Whether any of these servers, which gave no answer when they were asked for their keys, may give one soon: none that
    /// has been silent for an hour.
    ///
    /// # Errors
    /// The store can't be read.
    pub async fn may_tell_keys(
        &self,
        servers: &BTreeSet<OwnedServerName>,
    ) -> Result<bool, ReadError> {
        for server in servers {
            // One that has answered since tells its keys when it is asked again.
            if self.peers.backoff().silent_ms(server).await? < HOPE_MS {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
