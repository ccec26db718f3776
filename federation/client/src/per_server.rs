//! So many things at a time for each server: who has more waits for its turn, first come, first served, and one server's
//! slowness holds up so many of ours and no more.

use std::{collections::BTreeMap, sync::Arc};

use comity_protocol::id::{OwnedServerName, ServerName};
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Servers whose turns are kept though nobody has one.
const KEPT: usize = 1_000;

/// Turns by server.
pub struct PerServer {
    each: usize,
    servers: Mutex<BTreeMap<OwnedServerName, Arc<Semaphore>>>,
}

impl PerServer {
    /// `each` turns at a time for every server.
    pub fn new(each: usize) -> Self {
        Self {
            each,
            servers: Mutex::default(),
        }
    }

    /// Waits for a turn of this server's; it is over when the answer is dropped.
    pub async fn turn(&self, server: &ServerName) -> Option<OwnedSemaphorePermit> {
        let turns = {
            let mut servers = self.servers.lock();
            if servers.len() >= KEPT {
                servers.retain(|_, turns| Arc::strong_count(turns) > 1);
            }
            let turns = servers.entry(server.to_owned());
            turns
                .or_insert_with(|| Arc::new(Semaphore::new(self.each)))
                .clone()
        };
        // It is never closed.
        turns.acquire_owned().await.ok()
    }
}
