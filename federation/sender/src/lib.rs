//! What other servers are told of our own accord: events, device lists, receipts, typing, presence.
//!
//! One [dispatcher](dispatch) follows the lanes' logs and gives each event of ours to the queues of the
//! servers that are to hear of it; a queue has a [worker] while there is something in it, and a worker
//! one request on its way. What is in a queue needs no rows: the dispatcher's [position](progress), saved
//! each second, stays before it, and after a crash the log is read again from there. Only a server that
//! doesn't answer for long, or that more is waiting for than is kept in memory, gets rows: that it is
//! owed a room, up to which event. When it answers again it is told the newest of each such room and
//! asks for what it lacks.
//!
//! See <https://spec.matrix.org/v1.19/server-server-api/#transactions>.

#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing
    )
)]

mod alone;
mod dispatch;
mod edus;
mod ephemeral;
mod lists;
mod progress;
mod queue;
pub mod tables;
mod worker;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use comity_accounts::Accounts;
use comity_federation_client::Peers;
use comity_keys::Keys;
use comity_protocol::id::{OwnedServerName, ServerName};
use comity_rooms::Rooms;
use comity_runtime::Runtime;
use comity_storage::{CommitError, Consumer, Heads, Lane, Tenant};
use comity_to_device::ToDevice;
use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore};

use queue::Queue;

/// Workers that send at once; when a thousand servers come back, the others wait their turn.
const SENDING: usize = 100;
/// Who failed only now is given its first wait, even if it speaks: two servers that fail each other would
/// otherwise ask without end.
const FIRST_WAIT: Duration = Duration::from_secs(2);

/// Tells other servers. Cheap to clone; it ends when the last clone is dropped.
#[derive(Clone)]
pub struct Sender(Arc<Inner>);

struct Inner {
    tenant: Tenant,
    runtime: Runtime,
    rooms: Rooms,
    accounts: Accounts,
    keys: Keys,
    to_device: ToDevice,
    peers: Peers,
    /// Those that there is something to do for.
    destinations: Mutex<BTreeMap<OwnedServerName, Arc<Destination>>>,
    sending: Semaphore,
    /// Before the number of each transaction: no two runs of the server have the same.
    run: String,
    transactions: AtomicU64,
    /// Up to where all that the log says is in the queues.
    dispatched: Mutex<Heads>,
    /// Lanes from which something was put into queues since their cursor was saved.
    touched: Mutex<BTreeSet<Lane>>,
    /// The cursors as their rows have them.
    saved: tokio::sync::Mutex<Heads>,
    parked: AtomicU64,
}

/// Another server and what it is to be told.
struct Destination {
    name: OwnedServerName,
    queue: Mutex<Queue>,
    /// There is a reason to try at once.
    wake: Notify,
    /// Its worker waits because it didn't answer.
    left_alone: AtomicBool,
}

/// Hears of those who speak to us, without keeping the [`Sender`].
#[derive(Clone)]
pub struct Ear(Held);

impl Ear {
    /// A server spoke to us: it may be asked again, and what it is owed goes out now.
    ///
    /// # Errors
    /// The store can't be read or written.
    pub async fn heard_from(&self, server: &ServerName) -> Result<(), CommitError> {
        match self.0.upgrade() {
            Some(inner) => inner.heard_from(server).await,
            None => Ok(()),
        }
    }
}

impl Sender {
    /// Takes up where the last run stopped, and follows the log from there.
    ///
    /// # Errors
    /// The store can't be read or written.
    pub async fn start(
        rooms: Rooms,
        accounts: Accounts,
        keys: Keys,
        to_device: ToDevice,
        peers: Peers,
    ) -> Result<Self, CommitError> {
        let tenant = rooms.tenant().clone();
        let runtime = tenant.runtime().clone();
        let (cursor, owed) = progress::load(&tenant).await?;
        let sender = Self(Arc::new(Inner {
            runtime: runtime.clone(),
            rooms,
            accounts,
            keys,
            to_device,
            peers,
            destinations: Mutex::default(),
            sending: Semaphore::new(SENDING),
            run: runtime.random().alphanumeric(12),
            transactions: AtomicU64::new(0),
            dispatched: Mutex::new(cursor.clone()),
            touched: Mutex::default(),
            saved: tokio::sync::Mutex::new(cursor.clone()),
            parked: AtomicU64::new(0),
            tenant,
        }));
        for (server, room, owed) in owed.events {
            sender.0.put(&server, |queue| queue.recall(room, owed));
        }
        for (server, user) in owed.lists {
            sender.0.put(&server, |queue| queue.lists.recall(user));
        }
        // What was stored before the follower begins; later ones it tells.
        for server in sender.0.to_device.servers_owed().await? {
            sender.0.put(&server, Queue::messages);
        }
        let inner = || Arc::downgrade(&sender.0);
        let log = sender.0.tenant.follow(cursor);
        let consumer: Weak<dyn Consumer> = inner();
        sender.0.tenant.keep_logs_for(consumer);
        drop(runtime.spawn("federation dispatcher", dispatch::follow(inner(), log)));
        drop(runtime.spawn("federation progress", progress::save(inner())));
        drop(runtime.spawn("federation back-off", progress::tend(inner())));
        drop(runtime.spawn("federation typing", ephemeral::typing(inner())));
        drop(runtime.spawn("federation presence", ephemeral::presence(inner())));
        Ok(sender)
    }

    /// What is to know who spoke to us.
    pub fn ear(&self) -> Ear {
        Ear(Arc::downgrade(&self.0))
    }

    /// Saves how far it has come before the server stops, so that the next run tells nothing of it again.
    ///
    /// # Errors
    /// The store can't be written.
    pub async fn close(&self) -> Result<(), CommitError> {
        self.0.done().await.map(drop)
    }

    /// How many events and messages a server refused for good so far, for metrics.
    pub fn parked(&self) -> u64 {
        self.0.parked.load(Ordering::Relaxed)
    }
}

impl Inner {
    /// Changes a server's queue, and starts its worker if it has none.
    fn put(self: &Arc<Self>, server: &ServerName, change: impl FnOnce(&mut Queue)) {
        let mut destinations = self.destinations.lock();
        let destination = destinations.entry(server.to_owned()).or_insert_with(|| {
            Arc::new(Destination {
                name: server.to_owned(),
                queue: Mutex::default(),
                wake: Notify::new(),
                left_alone: AtomicBool::new(false),
            })
        });
        let mut queue = destination.queue.lock();
        change(&mut queue);
        let begins = queue.begins();
        drop(queue);
        let destination = destination.clone();
        drop(destinations);
        if begins {
            let weak = Arc::downgrade(self);
            drop(
                self.runtime
                    .spawn("federation worker", worker::run(weak, destination)),
            );
        }
    }

    async fn heard_from(&self, server: &ServerName) -> Result<(), CommitError> {
        let backoff = self.peers.backoff();
        if let Some(since) = backoff.failing_since(server).await? {
            let first_wait = u64::try_from(FIRST_WAIT.as_millis()).unwrap_or(u64::MAX);
            if self.runtime.clock().now_ms() < since.saturating_add(first_wait) {
                return Ok(());
            }
            backoff.answered(server).await?;
        }
        // It may have answered somebody else since its worker began to wait.
        let destination = self.destinations.lock().get(server).cloned();
        if let Some(destination) = destination
            && destination.left_alone.load(Ordering::Relaxed)
        {
            destination.wake.notify_one();
        }
        Ok(())
    }

    /// All servers with a queue, in the order of their names.
    fn destinations(&self) -> Vec<Arc<Destination>> {
        self.destinations.lock().values().cloned().collect()
    }

    fn is_local(&self, server: &ServerName) -> bool {
        server == self.rooms.server_name()
    }
}

/// The sender, as its tasks hold it: they end when it is gone.
type Held = Weak<Inner>;
