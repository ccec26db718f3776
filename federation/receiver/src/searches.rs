//! How many searches for what is missing go on at a time. Each may hold megabytes of what it found, and
//! there may be any number of lines.

use std::{collections::BTreeMap, sync::Arc};

use comity_protocol::id::{OwnedServerName, ServerName};
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};

/// Searches at a time.
const ALL: usize = 32;
/// Of these for events that one server sent: one that lets us wait holds up nobody else.
const OF_ONE: usize = 8;
/// Servers whose turns are kept though nothing is searched for theirs.
const KEPT: usize = 1_000;

/// See the module.
pub(crate) struct Searches {
    all: Semaphore,
    of_one: Mutex<BTreeMap<OwnedServerName, Arc<Semaphore>>>,
}

/// Leave to search, until it is dropped.
pub(crate) struct Turn<'a> {
    _of_one: Option<OwnedSemaphorePermit>,
    _of_all: Option<SemaphorePermit<'a>>,
}

impl Default for Searches {
    fn default() -> Self {
        Self {
            all: Semaphore::new(ALL),
            of_one: Mutex::default(),
        }
    }
}

impl Searches {
    /// Waits for leave to search for what an event of this server rests on.
    pub async fn turn(&self, origin: &ServerName) -> Turn<'_> {
        let of_one = {
            let mut servers = self.of_one.lock();
            if servers.len() >= KEPT {
                servers.retain(|_, turns| Arc::strong_count(turns) > 1);
            }
            let turns = servers.entry(origin.to_owned());
            turns
                .or_insert_with(|| Arc::new(Semaphore::new(OF_ONE)))
                .clone()
        };
        // Who waits for its server's turn takes none of the others'. Neither is ever closed.
        let of_one = of_one.acquire_owned().await.ok();
        Turn {
            _of_one: of_one,
            _of_all: self.all.acquire().await.ok(),
        }
    }
}
