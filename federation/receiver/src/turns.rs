//! One transaction of a server at a time: the specification allows it one in flight, and order and
//! repetition are only told apart so.

use std::{collections::BTreeMap, sync::Arc};

use comity_protocol::id::{OwnedServerName, ServerName};
use parking_lot::Mutex;
use tokio::sync::OwnedMutexGuard;

/// Servers whose turns are kept though nobody waits for them.
const KEPT: usize = 1_000;

/// See the module.
#[derive(Default)]
pub(crate) struct Turns(Mutex<BTreeMap<OwnedServerName, Arc<tokio::sync::Mutex<()>>>>);

impl Turns {
    /// Waits until no other transaction of the server is being taken.
    pub async fn of(&self, server: &ServerName) -> OwnedMutexGuard<()> {
        let turn = {
            let mut turns = self.0.lock();
            if turns.len() >= KEPT {
                turns.retain(|_, turn| Arc::strong_count(turn) > 1);
            }
            turns.entry(server.to_owned()).or_default().clone()
        };
        turn.lock_owned().await
    }
}
