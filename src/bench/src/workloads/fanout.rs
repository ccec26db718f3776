//! W3: one room, many waiting syncs, one message: when it is acknowledged and when the last one has it.
//!
//! Everyone polls again at once, as clients do, so the last answers compete with new requests.

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
    let (seen, mut copies) = mpsc::unbounded_channel();
    let listening: Vec<_> = listeners
        .into_iter()
        .map(|listener| {
            let (connection, mark, seen) =
                (Connection::new(&site.target), mark.clone(), seen.clone());
            tokio::spawn(async move {
                if let Err(error) = listen(connection, &listener, &mark, &seen).await {
                    // Closed only when the case is over.
                    let _ = seen.send(Err(error));
                }
            })
        })
        .collect();
    site.processes.settle().await;

    let (mut acks, mut lasts, mut cpu) = (Latencies::default(), Latencies::default(), 0.0);
    let stage = &crowd.hall;
    let mut connection = Connection::new(&site.target);
    // One more, unmeasured, opens the connection.
    for message in 0..=MESSAGES {
        let meter = Meter::start(&site.processes);
        let start = Instant::now();
        let sending = async {
            let transaction = format!("{}{message}", matrix::encode(&mark));
            let body = format!("{mark}{message}~");
            matrix::send(
                &mut connection,
                &stage.speaker.token,
                &stage.room,
                &transaction,
                &body,
            )
            .await?;
            Ok::<_, Error>(start.elapsed())
        };
        let receiving = async {
            let mut missing = count;
            while missing > 0 {
                let copy = timeout(PATIENCE, copies.recv()).await;
                let Ok(Some(copy)) = copy else {
                    return Err(Error::Program(format!(
                        "{missing} of {count} waiting users never got message {message}"
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
            cpu += meter.cpu_seconds();
        }
    }
    listening.iter().for_each(tokio::task::JoinHandle::abort);
    join_all(listening).await;
    Ok(
        Measurement::new("W3", format!("{count} waiting users, one message"))
            .with("ack_ms", acks.quantile_ms(0.5))
            .with("last_ms", lasts.quantile_ms(0.5))
            .with_if(site.processes.known(), "cpu_s", cpu / number(MESSAGES)),
    )
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
