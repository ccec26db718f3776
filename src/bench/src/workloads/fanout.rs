//! W3: one room, many waiting syncs, one message: when it is acknowledged and when the last one has it.
//!
//! Everyone polls again at once, as clients do, so the last answers compete with new requests. What is said to
//! devices rather than in a room is measured in the same way ([`tell`]).

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

use super::crowd::{Crowd, Listener};
use super::deliver::marked;
use super::{Measurement, Meter, Site, Sizes, number};
use crate::error::{Error, Result};
use crate::http::Connection;
use crate::matrix;
use crate::stats::Latencies;

/// Messages a run; the figures are their medians.
const MESSAGES: usize = 5;
/// After this the last answer counts as lost.
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs a case for each number of waiting users.
///
/// # Errors
/// When a request is refused or an answer never comes.
pub async fn run(site: &Site, crowd: &Crowd, sizes: &Sizes) -> Result<Vec<Measurement>> {
    let mut measured = Vec::new();
    for &count in &sizes.waiting {
        measured.push(case(site, crowd, count).await?);
    }
    Ok(measured)
}

async fn case(site: &Site, crowd: &Crowd, count: usize) -> Result<Measurement> {
    let listeners = crowd.awake(site, count).await?;
    let mark = format!("~{}.", site.unique());
    let stage = &crowd.hall;
    let told = tell(
        site,
        listeners,
        &mark,
        MESSAGES,
        async |connection, message| {
            let transaction = format!("{}{message}", matrix::encode(&mark));
            let body = format!("{mark}{message}~");
            matrix::send(
                connection,
                &stage.speaker.token,
                &stage.room,
                &transaction,
                &body,
            )
            .await
        },
    )
    .await?;
    let measurement = Measurement::new("W3", format!("{count} waiting users, one message"));
    Ok(told.said_in(measurement, site.processes.known()))
}

/// What it took to tell something to all who waited, once a message.
pub(super) struct Told {
    acks: Latencies,
    lasts: Latencies,
    cpu_s: f64,
}

impl Told {
    /// The medians, and the mean of the CPU.
    pub(super) fn said_in(mut self, measurement: Measurement, known: bool) -> Measurement {
        let messages = number(self.acks.count()).max(1.0);
        measurement
            .with("ack_ms", self.acks.quantile_ms(0.5))
            .with("last_ms", self.lasts.quantile_ms(0.5))
            .with_if(known, "cpu_s", self.cpu_s / messages)
    }
}

/// Lets all of `listeners` wait and tells them so many messages, one after the other, by `send`. A message has
/// arrived where `mark`, its number and `~` begin a string. Before the first, number 0 opens the connection, unmeasured.
///
/// # Errors
/// When a request is refused or a message doesn't reach everybody.
pub(super) async fn tell(
    site: &Site,
    listeners: Vec<Arc<Listener>>,
    mark: &str,
    messages: usize,
    send: impl AsyncFn(&mut Connection, usize) -> Result<()>,
) -> Result<Told> {
    let count = listeners.len();
    let (seen, mut copies) = mpsc::unbounded_channel();
    let listening: Vec<_> = listeners
        .into_iter()
        .map(|listener| {
            let (connection, mark, seen) =
                (Connection::new(&site.target), mark.to_owned(), seen.clone());
            tokio::spawn(async move {
                if let Err(error) = listen(connection, &listener, &mark, &seen).await {
                    // Closed only when the case is over.
                    let _ = seen.send(Err(error));
                }
            })
        })
        .collect();
    site.processes.settle().await;

    let (mut acks, mut lasts, mut cpu_s) = (Latencies::default(), Latencies::default(), 0.0);
    let mut connection = Connection::new(&site.target);
    for message in 0..=messages {
        let meter = Meter::start(&site.processes);
        let start = Instant::now();
        let sending = async {
            send(&mut connection, message).await?;
            Ok::<_, Error>(start.elapsed())
        };
        let receiving = async {
            let mut missing = count;
            while missing > 0 {
                let copy = timeout(PATIENCE, copies.recv()).await;
                let Ok(Some(copy)) = copy else {
                    return Err(Error::Program(format!(
                        "{missing} of {count} who waited never got message {message}"
                    )));
                };
                missing -= usize::from(copy? == message);
            }
            Ok(start.elapsed())
        };
        let (ack, last) = tokio::try_join!(sending, receiving)?;
        // The polls that follow the answers are part of the cost; a second lets them arrive.
        tokio::time::sleep(Duration::from_secs(1)).await;
        if message > 0 {
            acks.push(ack);
            lasts.push(last);
            cpu_s += meter.cpu_seconds();
        }
    }
    listening.iter().for_each(tokio::task::JoinHandle::abort);
    join_all(listening).await;
    Ok(Told { acks, lasts, cpu_s })
}

async fn listen(
    mut connection: Connection,
    listener: &Arc<Listener>,
    mark: &str,
    seen: &mpsc::UnboundedSender<Result<usize>>,
) -> Result<()> {
    loop {
        let since = listener.since.lock().clone();
        let (next, body) = matrix::sync(
            &mut connection,
            &listener.account,
            Some(&since),
            Some(&listener.filter),
            120_000,
        )
        .await?;
        *listener.since.lock() = next;
        for message in marked(&body, mark) {
            // Closed only when the case is over.
            let _ = seen.send(Ok(message));
        }
    }
}
