//! The workloads of `docs/benchmarks.md`, each in two halves: `prepare` makes its accounts and
//! rooms once a server, `run` loads and measures as often as wanted. W7–W9 make rooms on other servers as they run.
//!
//! W10 of the targets (backfill, search, a cold start on 10 GB) isn't there.

pub mod account;
pub mod crowd;
pub mod deliver;
pub mod encryption;
pub mod enter;
pub mod fanout;
pub mod idle;
pub mod ingest;
pub mod initial;
pub mod resolve;
pub mod sends;
mod sliding;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use rand::SeedableRng as _;
use rand_chacha::ChaCha12Rng;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::error::{Error, Result};
use crate::http::Connection;
use crate::machine::Processes;
use crate::matrix::{self, Account};
use crate::remote::Remotes;
use crate::stats::Latencies;
use crate::target::Target;

/// A homeserver under load, as the workloads see it.
pub struct Site {
    /// Where it listens.
    pub target: Target,
    /// Its processes and its database's.
    pub processes: Processes,
    /// The shared secret for registrations; without one registration must be open.
    pub secret: Option<String>,
    /// Told apart from other runs against the same server, in user names and transaction IDs.
    pub tag: String,
    /// Counts everything that must be unique within the tag.
    pub serial: AtomicU64,
    /// Servers to share rooms with; they must be trusted by the one that is measured.
    pub remotes: Option<Remotes>,
}

impl Site {
    /// A name never used before on this server.
    pub fn unique(&self) -> String {
        format!(
            "{}-{}",
            self.tag,
            self.serial.fetch_add(1, Ordering::Relaxed)
        )
    }

    /// Chance, another each time.
    pub fn random(&self) -> ChaCha12Rng {
        ChaCha12Rng::seed_from_u64(self.serial.fetch_add(1, Ordering::Relaxed))
    }

    /// The servers to share rooms with.
    ///
    /// # Errors
    /// There are none: somebody else started the measured server.
    pub fn remotes(&self) -> Result<&Remotes> {
        let none = || Error::Program("needs a server that `compare` started".to_owned());
        self.remotes.as_ref().ok_or_else(none)
    }
}

/// How much of everything.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Sizes {
    /// Seconds each sending case lasts.
    pub seconds: u64,
    /// W1: rooms of the many-rooms case.
    pub send_rooms: usize,
    /// W2: numbers of syncing users, one case each.
    pub listeners: Vec<usize>,
    /// W3: numbers of waiting users, one case each.
    pub waiting: Vec<usize>,
    /// W4: numbers of idle long-polls, one case each.
    pub polls: Vec<usize>,
    /// W4: accounts over which the polls are spread.
    pub poll_accounts: usize,
    /// W5: rooms of the account.
    pub account_rooms: usize,
    /// W6: users who sync for the first time, rooms that each is in, members of each room.
    #[serde(default)]
    pub initial: (usize, usize, usize),
    /// W7: members of the rooms, one case each.
    #[serde(default)]
    pub join_members: Vec<usize>,
    /// W8: events of each case.
    #[serde(default)]
    pub ingest_pdus: usize,
    /// W9: state entries of the rooms, one case each.
    #[serde(default)]
    pub resolve_entries: Vec<usize>,
    /// W9: forks, and what they disagree about, one case each.
    #[serde(default)]
    pub forks: Vec<(usize, usize)>,
    /// W11: users with keys, of two devices each.
    #[serde(default)]
    pub key_users: usize,
    /// W11: one-time keys claimed.
    #[serde(default)]
    pub claims: usize,
}

/// What one case of one run gave.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Measurement {
    /// `W1` … `W11`.
    pub workload: String,
    /// Which case of it, as the table says it.
    pub case: String,
    /// Values by name; the name ends with the unit.
    pub values: BTreeMap<String, f64>,
}

impl Measurement {
    /// A case without values yet.
    #[must_use]
    pub fn new(workload: &str, case: impl Into<String>) -> Self {
        Self {
            workload: workload.to_owned(),
            case: case.into(),
            values: BTreeMap::new(),
        }
    }

    /// Adds a value.
    #[must_use]
    pub fn with(mut self, name: &str, value: f64) -> Self {
        self.values.insert(name.to_owned(), value);
        self
    }

    /// Adds a value that only known processes give.
    #[must_use]
    pub fn with_if(self, known: bool, name: &str, value: f64) -> Self {
        if known { self.with(name, value) } else { self }
    }
}

/// CPU and time from a moment on.
pub(crate) struct Meter<'a> {
    processes: &'a Processes,
    cpu: f64,
    begun: Instant,
}

impl<'a> Meter<'a> {
    pub(crate) fn start(processes: &'a Processes) -> Self {
        let cpu = processes.cpu().cpu_seconds;
        Self {
            processes,
            cpu,
            begun: Instant::now(),
        }
    }

    /// CPU-seconds used since.
    pub(crate) fn cpu_seconds(&self) -> f64 {
        self.processes.cpu().cpu_seconds - self.cpu
    }

    /// Time since.
    pub(crate) fn elapsed(&self) -> Duration {
        self.begun.elapsed()
    }
}

/// How often a request is repeated that is timed, fewer times where that takes longer than [`REPEATED_FOR`].
const REPEATED: usize = 100;
/// See [`REPEATED`].
const REPEATED_FOR: Duration = Duration::from_secs(10);

/// Asks the same again and again, one at a time: what each took, its answer's size and its CPU are put into
/// `measurement`. The first is not measured; its answer is given, to be held against what it must be.
///
/// # Errors
/// When a request fails.
pub(crate) async fn repeated(
    site: &Site,
    measurement: Measurement,
    mut ask: impl AsyncFnMut() -> Result<Bytes>,
) -> Result<(Measurement, Bytes)> {
    let answer = ask().await?;
    site.processes.settle().await;
    let meter = Meter::start(&site.processes);
    let (mut latencies, mut bytes) = (Latencies::default(), 0);
    while latencies.count() < REPEATED && meter.elapsed() < REPEATED_FOR {
        let start = Instant::now();
        bytes += ask().await?.len();
        latencies.push(start.elapsed());
    }
    let cpu_ms = meter.cpu_seconds() * 1e3;
    let count = number(latencies.count()).max(1.0);
    let measurement = measurement
        .with("p50_ms", latencies.quantile_ms(0.5))
        .with("p99_ms", latencies.quantile_ms(0.99))
        .with("mb", number(bytes) / count / 1e6)
        .with_if(site.processes.known(), "cpu_ms", cpu_ms / count);
    Ok((measurement, answer))
}

/// How often it is asked whether something has come.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Waits until the server shows an event to `account`.
///
/// # Errors
/// It doesn't within `patience`.
pub(crate) async fn shown(
    connection: &mut Connection,
    account: &Account,
    (room, event): (&str, &str),
    patience: Duration,
) -> Result<()> {
    let begun = Instant::now();
    while !matrix::has_event(connection, account, room, event).await? {
        if begun.elapsed() > patience {
            return Err(Error::Program(format!(
                "an event was not shown within {patience:?}"
            )));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Ok(())
}

/// A count as a number to calculate with.
#[allow(clippy::cast_precision_loss)]
pub(crate) fn number(count: usize) -> f64 {
    count as f64
}
