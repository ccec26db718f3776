//! W4: what waiting costs. Tens of thousands of syncs that nothing happens to: bytes each, and CPU
//! with and without their expiring every 30 seconds.
//!
//! The connections come from several loopback addresses, as one has 28,000 ports. The polls are
//! spread over fewer accounts than there are polls, and each has a timeout of its own, so that no
//! server can answer two with one computation. Each takes a file descriptor on both sides: the limit
//! on open files (`ulimit -Hn`) must be above the largest case.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;

use super::crowd::{Crowd, Listener};
use super::{Measurement, Meter, Site, Sizes, number};
use crate::error::{Error, Result};
use crate::http::Connection;
use crate::matrix;

/// Connections from one address: its ports must do for all cases and servers of a run, as each is taken for a minute after.
const PER_ADDRESS: usize = 2_500;
/// Connections being opened at a time: fewer than any listen backlog.
const OPENING: usize = 100;
/// How clients wait.
const EXPIRY_MS: u64 = 30_000;

/// Runs a case for each number of polls.
///
/// # Errors
/// When a request is refused.
pub async fn run(site: &Site, crowd: &Crowd, sizes: &Sizes) -> Result<Vec<Measurement>> {
    let mut measured = Vec::new();
    for &count in &sizes.polls {
        let listeners = crowd.awake(site, sizes.poll_accounts).await?;
        measured.push(case(site, &listeners, count).await?);
    }
    Ok(measured)
}

/// What a server holds in memory that has just started on its data and was asked nothing.
pub fn at_rest(site: &Site) -> Measurement {
    let memory = site.processes.usage().memory_bytes;
    Measurement::new("W4", "started on its data, idle").with("memory_mb", memory / 1e6)
}

async fn case(site: &Site, listeners: &[Arc<Listener>], count: usize) -> Result<Measurement> {
    let known = site.processes.known();
    site.processes.settle().await;
    let before = site.processes.usage().memory_bytes;

    // Without expiries: nobody's timeout ends while we look.
    let parked = park(site, listeners, count, |index| 600_000 + index).await?;
    site.processes.settle().await;
    let after = site.processes.usage().memory_bytes;
    let quiet = Meter::start(&site.processes);
    tokio::time::sleep(Duration::from_secs(10)).await;
    let quiet = quiet.cpu_seconds() / quiet.elapsed().as_secs_f64() * 100.0;
    parked.end().await?;
    site.processes.settle().await;

    // With expiries, spread evenly over the half minute.
    let step = number(count).max(1.0);
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss
    )]
    let parked = park(site, listeners, count, |index| {
        1_000 + (index as f64 / step * EXPIRY_MS as f64) as u64
    })
    .await?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let expiring = Meter::start(&site.processes);
    tokio::time::sleep(Duration::from_millis(EXPIRY_MS)).await;
    let expiring = expiring.cpu_seconds() / expiring.elapsed().as_secs_f64() * 100.0;
    parked.end().await?;

    Ok(Measurement::new("W4", format!("{count} idle long-polls"))
        .with_if(known, "idle_memory_mb", before / 1e6)
        .with_if(known, "bytes_each", (after - before) / number(count))
        .with_if(known, "cpu_percent_quiet", quiet)
        .with_if(known, "cpu_percent_expiring", expiring))
}

struct Parked {
    polls: Vec<JoinHandle<()>>,
    failures: mpsc::UnboundedReceiver<Error>,
}

impl Parked {
    /// Hangs up; an error if any poll failed before.
    async fn end(mut self) -> Result<()> {
        self.polls.iter().for_each(JoinHandle::abort);
        join_all(self.polls).await;
        self.failures.try_recv().map_or(Ok(()), Err)
    }
}

/// Opens `count` connections and leaves a sync waiting on each, then another whenever one ends.
async fn park(
    site: &Site,
    listeners: &[Arc<Listener>],
    count: usize,
    first_timeout: impl Fn(u64) -> u64,
) -> Result<Parked> {
    let opening = Arc::new(Semaphore::new(OPENING));
    let (failed, failures) = mpsc::unbounded_channel();
    let (opened, mut all_opened) = mpsc::channel::<()>(1);
    let polls = listeners
        .iter()
        .cycle()
        .take(count)
        .zip(0_u64..)
        .map(|(listener, index)| {
            let connection = connection(site, usize::try_from(index).unwrap_or(0) / PER_ADDRESS);
            let (listener, opening, opened) =
                (Arc::clone(listener), Arc::clone(&opening), opened.clone());
            let (failed, timeout) = (failed.clone(), first_timeout(index));
            tokio::spawn(async move {
                if let Err(error) =
                    poll(connection, &listener, &opening, opened, timeout, index).await
                {
                    // Closed only when the case is over.
                    let _ = failed.send(error);
                }
            })
        })
        .collect();
    drop(opened);
    // Nobody sends: it ends when every poll has dropped its end.
    all_opened.recv().await;
    Ok(Parked { polls, failures })
}

fn connection(site: &Site, address: usize) -> Connection {
    if site.target.is_loopback_v4() {
        let last = u8::try_from(2 + address).unwrap_or(u8::MAX);
        Connection::from_address(&site.target, IpAddr::V4(Ipv4Addr::new(127, 0, 1, last)))
    } else {
        Connection::new(&site.target)
    }
}

async fn poll(
    mut connection: Connection,
    listener: &Listener,
    opening: &Semaphore,
    opened: mpsc::Sender<()>,
    first_timeout: u64,
    index: u64,
) -> Result<()> {
    let permit = opening.acquire().await;
    connection.connect().await?;
    drop((permit, opened));
    let mut timeout = first_timeout;
    let mut since = listener.since.lock().clone();
    loop {
        (since, _) = matrix::sync(
            &mut connection,
            &listener.account,
            Some(&since),
            Some(&listener.filter),
            timeout,
        )
        .await?;
        timeout = EXPIRY_MS + index % 1_000;
    }
}
