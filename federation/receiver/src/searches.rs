//! How many searches for what is missing go on at a time. Each may hold megabytes of what it found, and
//! there may be any number of lines.

use comity_federation_client::PerServer;
use comity_protocol::id::ServerName;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};

/// Searches at a time.
const ALL: usize = 32;
/// Of these for events that one server sent: one that lets us wait holds up nobody else.
const OF_ONE: usize = 8;

/// See the module.
pub(crate) struct Searches {
    all: Semaphore,
    of_one: PerServer,
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
            of_one: PerServer::new(OF_ONE),
        }
    }
}

impl Searches {
    /// Waits for leave to search for what an event of this server rests on.
    pub async fn turn(&self, origin: &ServerName) -> Turn<'_> {
        // Who waits for its server's turn takes none of the others'.
        let of_one = self.of_one.turn(origin).await;
        Turn {
            _of_one: of_one,
            _of_all: self.all.acquire().await.ok(),
        }
    }
}
