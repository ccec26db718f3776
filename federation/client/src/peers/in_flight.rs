//! How much is asked of one server at a time. Who has much to ask of it waits for its turn, first come,
//! first served; a server that holds its answers back holds so many requests of ours and no more.

use std::{collections::BTreeMap, sync::Arc};

use comity_protocol::id::{OwnedServerName, ServerName};
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Requests to a server under way.
const EACH: usize = 32;
/// Servers whose turns are kept though nothing is under way to them.
const KEPT: usize = 1_000;

/// See the module.
#[derive(Default)]
pub(crate) struct InFlight(Mutex<BTreeMap<OwnedServerName, Arc<Semaphore>>>);

impl InFlight {
    /// Waits until another request may go to a server; it is under way until this is dropped.
    pub async fn turn(&self, server: &ServerName) -> Option<OwnedSemaphorePermit> {
        let turns = {
            let mut servers = self.0.lock();
            if servers.len() >= KEPT {
                servers.retain(|_, turns| Arc::strong_count(turns) > 1);
            }
            let turns = servers.entry(server.to_owned());
            turns
                .or_insert_with(|| Arc::new(Semaphore::new(EACH)))
                .clone()
        };
        // It is never closed.
        turns.acquire_owned().await.ok()
    }
}
