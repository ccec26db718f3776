//! W2: from a send to every member's sync, with many users syncing and 50 messages a second.
//!
//! Open loop: messages have their times beforehand and a slow server doesn't slow the schedule;
//! latency counts from the intended time. Every user's copy of every message is awaited, none may
//! come twice. (The client's timer rounds up to a millisecond; that is in the latencies.)

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{join_all, try_join_all};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::crowd::{Crowd, Listener, ROOMS};
use super::{Measurement, Meter, Site, Sizes, number};
use crate::error::{Error, Result};
use crate::http::Connection;
use crate::matrix;
use crate::stats::Latencies;

/// Messages a second over all rooms.
const RATE: u32 = 50;
/// How long after the last message a copy may come before it counts as lost.
const GRACE: Duration = Duration::from_secs(10);

/// One copy seen: which user, which message, when.
struct Copy {
    listener: usize,
    message: usize,
    at: Instant,
}

/// Runs a case for each number of users.
///
/// # Errors
/// When a request is refused.
pub async fn run(site: &Site, crowd: &Crowd, sizes: &Sizes) -> Result<Vec<Measurement>> {
    let mut measured = Vec::new();
    for &count in &sizes.listeners {
        measured.push(case(site, crowd, count, sizes.seconds).await?);
    }
    Ok(measured)
}

/// When message `index` is to be sent.
fn intended(start: Instant, index: usize) -> Instant {
    start + Duration::from_secs(1) * u32::try_from(index).unwrap_or(u32::MAX) / RATE
}

async fn case(site: &Site, crowd: &Crowd, count: usize, seconds: u64) -> Result<Measurement> {
    let listeners = crowd.awake(site, count).await?;
    let messages = usize::try_from(seconds).unwrap_or(1) * usize::try_from(RATE).unwrap_or(1);
    let mark = format!("~{}.", site.unique());
    let (seen, mut copies) = mpsc::unbounded_channel();
    let (failed, mut failures) = mpsc::unbounded_channel();
    let listening: Vec<_> = listeners
        .iter()
        .enumerate()
        .map(|(index, listener)| {
            let (connection, listener) = (Connection::new(&site.target), Arc::clone(listener));
            let (mark, seen, failed) = (mark.clone(), seen.clone(), failed.clone());
            tokio::spawn(async move {
                if let Err(error) = listen(connection, index, &listener, &mark, &seen).await {
                    // The receiver is gone only when the case is over.
                    let _ = failed.send(error);
                }
            })
        })
        .collect();
    drop(seen);
    site.processes.settle().await;

    let per_room = |room: usize| (room..listeners.len()).step_by(ROOMS).count();
    let expected: usize = (0..messages).map(|message| per_room(message % ROOMS)).sum();
    let meter = Meter::start(&site.processes);
    let start = Instant::now() + Duration::from_millis(100);
    let speaking: Vec<_> = crowd
        .stages
        .iter()
        .enumerate()
        .map(|(room, stage)| {
            let (mut connection, stage) = (Connection::new(&site.target), Arc::clone(stage));
            let mark = mark.clone();
            tokio::spawn(async move {
                for message in (room..messages).step_by(ROOMS) {
                    sleep_until(intended(start, message)).await;
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
                }
                Ok::<_, Error>(())
            })
        })
        .collect();

    let deadline = intended(start, messages) + GRACE;
    let mut latencies = Latencies::default();
    let (mut once, mut twice) = (BTreeSet::new(), 0_usize);
    while once.len() < expected {
        let Ok(Some(copy)) = timeout_at(deadline, copies.recv()).await else {
            break;
        };
        if once.insert((copy.message, copy.listener)) {
            latencies.push(
                copy.at
                    .saturating_duration_since(intended(start, copy.message)),
            );
        } else {
            twice += 1;
        }
    }
    let cpu = meter.cpu_seconds();
    let elapsed = meter.elapsed().as_secs_f64();
    for spoken in try_join_all(speaking).await? {
        spoken?;
    }
    // A second copy would come now.
    tokio::time::sleep(Duration::from_millis(300)).await;
    while let Ok(copy) = copies.try_recv() {
        twice += usize::from(!once.insert((copy.message, copy.listener)));
    }
    listening.iter().for_each(tokio::task::JoinHandle::abort);
    join_all(listening).await;
    if let Ok(error) = failures.try_recv() {
        return Err(error);
    }
    let rate = format!("{count} users in {ROOMS} rooms, {RATE} messages/s");
    Ok(Measurement::new("W2", rate)
        .with("deliver_p50_ms", latencies.quantile_ms(0.5))
        .with("deliver_p99_ms", latencies.quantile_ms(0.99))
        .with("deliver_max_ms", latencies.quantile_ms(1.0))
        .with("lost", number(expected.saturating_sub(once.len())))
        .with("twice", number(twice))
        .with_if(site.processes.known(), "cpu_percent", cpu / elapsed * 100.0))
}

/// Syncs for ever and reports each message of ours.
async fn listen(
    mut connection: Connection,
    index: usize,
    listener: &Listener,
    mark: &str,
    seen: &mpsc::UnboundedSender<Copy>,
) -> Result<()> {
    loop {
        let since = listener.since.lock().clone();
        let (next, body) = matrix::sync(
            &mut connection,
            &listener.account,
            Some(&since),
            Some(&listener.filter),
            30_000,
        )
        .await?;
        let at = Instant::now();
        *listener.since.lock() = next;
        for message in marked(&body, mark) {
            // Closed only when the case is over.
            let _ = seen.send(Copy {
                listener: index,
                message,
                at,
            });
        }
    }
}

/// The numbers of the messages in a sync answer, found by their mark and not by parsing: the body of
/// each is `mark` number `~`.
pub(super) fn marked(answer: &[u8], mark: &str) -> Vec<usize> {
    let text = std::str::from_utf8(answer).unwrap_or_default();
    // Only bodies: a transaction ID in `unsigned` holds the mark percent-encoded or not at all.
    let opening = format!("\"{mark}");
    text.match_indices(&opening)
        .filter_map(|(at, found)| {
            text.get(at + found.len()..)?
                .split_once('~')?
                .0
                .parse()
                .ok()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_found_in_bodies_of_this_run_only() {
        let answer = br#"{"content":{"body":"~r-1.17~"}},{"content":{"body":"~r-1.18~"},{"body":"~r-2.19~"}"#;
        assert_eq!(marked(answer, "~r-1."), [17, 18]);
    }

    #[test]
    fn the_schedule_does_not_drift() {
        let start = Instant::now();
        assert_eq!(intended(start, 50) - start, Duration::from_secs(1));
        assert_eq!(intended(start, 1) - start, Duration::from_millis(20));
    }
}
