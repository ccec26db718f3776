//! What other servers send or answer, on its way to the rooms' door.
//!
//! ```text
//! /send ─▶ transaction ─▶ checks ─▶ staging (durable) ─▶ 200
//!                                      └─▶ worker, one a line ─▶ Rooms::receive ─▶ missing ─▶ …
//!                                                                                      └─▶ waiting
//! ```
//!
//! [`Checks`] is the one way from a peer's JSON to a signed event; whoever asks a peer for events
//! (joins, backfill) goes through it too.
#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing
    )
)]

mod checks;
mod completion;
mod edus;
mod entering;
mod joined;
mod keys;
mod missing;
mod policy;
mod searches;
mod staging;
pub mod tables;
#[cfg(test)]
mod tests;
mod transaction;
mod unheard;
mod waiting;
mod worker;

use std::sync::Arc;

use comity_accounts::Accounts;
use comity_federation_client::PerServer;
use comity_keys::Keys;
use comity_rooms::Rooms;
use comity_runtime::Runtime;
use comity_storage::{ReadError, RoomKey};
use comity_to_device::ToDevice;

pub use checks::{Checked, Checks, PduError};
pub use completion::{Completion, Patience};
pub use entering::{Attempt, Entering};
pub use keys::KeysElsewhere;
pub use missing::Fetcher;
pub use transaction::{MAX_EDUS, MAX_PDUS, Transaction, TransactionError};

use crate::{
    entering::Held, searches::Searches, staging::Staging, tables::Line, waiting::WaitingRoom,
};

/// Takes what other servers send. Cheap to clone.
#[derive(Clone)]
pub struct Receiver(Arc<Inner>);

pub(crate) struct Inner {
    rooms: Rooms,
    accounts: Accounts,
    keys: Keys,
    to_device: ToDevice,
    fetcher: Fetcher,
    runtime: Runtime,
    staging: Staging,
    waiting: WaitingRoom,
    searches: Searches,
    /// One transaction of a server at a time: the specification allows it one in flight, and order and
    /// repetition are only told apart so.
    turns: PerServer,
    /// What is held of rooms that are being entered.
    held: Held,
}

impl Receiver {
    /// A receiver for these rooms, accounts, keys and messages to devices, which asks `fetcher` for what is missing.
    pub fn new(
        rooms: Rooms,
        accounts: Accounts,
        keys: Keys,
        to_device: ToDevice,
        fetcher: Fetcher,
    ) -> Self {
        to_device.use_servers(Arc::new(fetcher.checks.clone()));
        let tenant = rooms.tenant();
        let runtime = tenant.runtime().clone();
        let staging = Staging::new(tenant.clone());
        let waiting = WaitingRoom::new(tenant.clone());
        Self(Arc::new(Inner {
            rooms,
            accounts,
            keys,
            to_device,
            fetcher,
            runtime,
            staging,
            waiting,
            searches: Searches::default(),
            turns: PerServer::new(1),
            held: Held::default(),
        }))
    }

    /// Goes on with what had come in when the server last stopped.
    ///
    /// # Errors
    /// The store can't be read.
    pub async fn resume(&self) -> Result<(), ReadError> {
        for line in self.0.staging.resume().await? {
            self.0.begin(line);
        }
        for room in self.0.waiting.resume().await? {
            self.0.begin_waiting(room);
        }
        Ok(())
    }

    /// The checks that events pass before the door.
    pub fn checks(&self) -> &Checks {
        &self.0.fetcher.checks
    }
}

impl Inner {
    /// Begins to work on a line.
    fn begin(self: &Arc<Self>, line: Line) {
        let work = worker::work(Arc::downgrade(self), line);
        drop(self.runtime.spawn("federation line", work));
    }

    /// Begins to work on a room's events that wait.
    fn begin_waiting(self: &Arc<Self>, room: RoomKey) {
        let work = waiting::work(Arc::downgrade(self), self.runtime.clone(), room);
        drop(self.runtime.spawn("federation waiting", work));
    }
}
