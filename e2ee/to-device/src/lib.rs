//! Messages to devices: keys on their way, verification, signalling.
//!
//! Each device has a queue in its user's lane, in the order in which that lane took the messages; a device's position in it is part
//! of its sync token. What a device sends is one commit of its own lane, in which are the messages to users of that lane and, as
//! debts, those to users of others; what another server sends is one commit of that server's lane. Both are answered once the debts
//! are paid, so that a message is in its queue before whatever is said after it.
//!
//! ```text
//! /sendToDevice ─▶ lane of the sender ─┬─▶ queues of its users              ─▶ sync
//!                                      ├─▶ owed to other users' lanes       ─▶ queues ─▶ sync
//!                                      └─▶ owed to other servers' lanes     ─▶ outgoing ─▶ their /send
//! /send (EDUs)  ─▶ lane of the server ─┴─▶ as above
//! ```
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#send-to-device-messaging>

#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing
    )
)]

mod bounded;
pub mod check;
mod deliver;
pub mod log;
mod outgoing;
mod queue;
mod receive;
mod send;
mod shares;
mod strangers;
pub mod tables;
mod tend;

use std::sync::{Arc, OnceLock};

use comity_accounts::Accounts;
use comity_protocol::id::OwnedServerName;
use comity_storage::{Apply, CommitError, LaneWriter, ReadError, Tenant};
use tokio::sync::{Mutex, MutexGuard};

pub use deliver::{Delivery, MOST};
pub use outgoing::OnTheirWay;
pub use receive::DirectToDevice;
pub use send::{Contents, Transaction};
pub use strangers::Servers;

/// Why messages were not sent.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ToDeviceError {
    /// A value in the request can't be used (`M_INVALID_PARAM`).
    #[error("{0}")]
    InvalidParam(&'static str),
    /// A message is too large, or there are too many (`M_TOO_LARGE`).
    #[error("{0}")]
    TooLarge(&'static str),
    /// The store could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The messages could not be stored.
    #[error(transparent)]
    Commit(#[from] CommitError),
}

/// The messages of one tenant's devices. Cheap to clone.
#[derive(Clone)]
pub struct ToDevice(Arc<Inner>);

struct Inner {
    tenant: Tenant,
    server_name: OwnedServerName,
    /// One writer of queues a lane at a time, so that what a queue holds is known when something is added. What is owed comes beside
    /// them: then a queue may hold more than its bound by what comes at the same time.
    turns: Vec<Mutex<()>>,
    quiet: deliver::Quiet,
    servers: OnceLock<Arc<dyn Servers>>,
}

impl ToDevice {
    /// Those of these accounts' devices, with which they go. Their store has to have [`appliers`] among its options.
    pub fn new(accounts: &Accounts, server_name: OwnedServerName) -> Self {
        let tenant = accounts.tenant().clone();
        accounts.keep_with_devices(Arc::new(queue::OfDevices));
        Self(Arc::new(Inner {
            turns: tenant.lanes().all().map(|_| Mutex::default()).collect(),
            tenant,
            server_name,
            quiet: deliver::Quiet::default(),
            servers: OnceLock::new(),
        }))
    }

    /// Waits for its turn to add to queues of a lane.
    async fn turn(&self, lane: &LaneWriter) -> Option<MutexGuard<'_, ()>> {
        let turn = self.0.turns.get(usize::from(lane.lane().0))?;
        Some(turn.lock().await)
    }

    fn now_ms(&self) -> u64 {
        self.0.tenant.runtime().clock().now_ms()
    }
}

/// What pays the debts of one lane to another.
pub fn appliers() -> Vec<Arc<dyn Apply>> {
    vec![Arc::new(queue::Payer), Arc::new(outgoing::Payer)]
}
