//! W1: acknowledged sends a second, with 1, 10 and 64 in flight in one room, and 64 over many rooms.
//!
//! Closed loop, because "in flight" is the workload: each lane sends its next message when the last
//! was acknowledged.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::try_join_all;
use tokio::time::Instant;

use super::{Measurement, Meter, Site, Sizes, number};
use crate::error::{Error, Result};
use crate::http::Connection;
use crate::matrix::{self, Account, each};
use crate::stats::Latencies;

/// Accounts that send: several, so that nothing is measured that is serial per user.
const SENDERS: usize = 8;

/// A room and who may send in it.
#[derive(Clone)]
struct Post {
    room: String,
    token: String,
}

/// Rooms and senders of W1.
pub struct Sends {
    /// One room, once a sender.
    one: Arc<[Post]>,
    /// Many rooms, each with its creator.
    many: Arc<[Post]>,
}

/// Makes the senders and their rooms.
///
/// # Errors
/// When the server refuses any of it.
pub async fn prepare(site: &Site, sizes: &Sizes) -> Result<Sends> {
    let names: Vec<String> = (0..SENDERS).map(|_| site.unique()).collect();
    let secret = site.secret.as_deref();
    let senders: Vec<Account> = each(&site.target, 4, names, async |connection, name| {
        matrix::register(connection, &name, secret).await
    })
    .await?;
    let owners: Vec<Account> = senders
        .iter()
        .cycle()
        .take(sizes.send_rooms.max(1))
        .cloned()
        .collect();
    let many = each(&site.target, 4, owners, async |connection, owner| {
        let room = matrix::create_room(connection, &owner, "sends").await?;
        Ok(Post {
            room: matrix::encode(&room),
            token: owner.token,
        })
    })
    .await?;
    let mut connection = Connection::new(&site.target);
    let creator = senders
        .first()
        .ok_or_else(|| Error::Program("no senders".to_owned()))?;
    let room = matrix::create_room(&mut connection, creator, "all").await?;
    for sender in senders.iter().skip(1) {
        matrix::join(&mut connection, sender, &room).await?;
    }
    let room = matrix::encode(&room);
    let one = senders
        .into_iter()
        .map(|sender| Post {
            room: room.clone(),
            token: sender.token,
        })
        .collect();
    Ok(Sends {
        one,
        many: many.into(),
    })
}

/// Runs all four cases.
///
/// # Errors
/// When any send is refused.
pub async fn run(site: &Site, sends: &Sends, sizes: &Sizes) -> Result<Vec<Measurement>> {
    let length = Duration::from_secs(sizes.seconds);
    // Unmeasured: the server has just started and its caches are empty.
    load(site, &sends.many, 8, Duration::from_secs(1)).await?;
    load(site, &sends.one, 8, Duration::from_secs(1)).await?;
    let mut measured = Vec::new();
    for in_flight in [1, 10, 64] {
        let case = format!("one room, {in_flight} in flight");
        measured.push(measure(site, &sends.one, in_flight, length, case).await?);
    }
    let case = format!("{} rooms, 64 in flight", sends.many.len());
    measured.push(measure(site, &sends.many, 64, length, case).await?);
    Ok(measured)
}

async fn measure(
    site: &Site,
    posts: &Arc<[Post]>,
    in_flight: usize,
    length: Duration,
    case: String,
) -> Result<Measurement> {
    let meter = Meter::start(&site.processes);
    let mut latencies = load(site, posts, in_flight, length).await?;
    let (cpu, elapsed) = (meter.cpu_seconds(), meter.elapsed().as_secs_f64());
    let sent = number(latencies.count());
    Ok(Measurement::new("W1", case)
        .with("sends_per_s", sent / elapsed)
        .with("ack_p50_ms", latencies.quantile_ms(0.5))
        .with("ack_p99_ms", latencies.quantile_ms(0.99))
        .with_if(
            site.processes.known(),
            "cpu_s_per_1k",
            cpu / sent.max(1.0) * 1e3,
        ))
}

async fn load(
    site: &Site,
    posts: &Arc<[Post]>,
    in_flight: usize,
    length: Duration,
) -> Result<Latencies> {
    let end = Instant::now() + length;
    let lanes = (0..in_flight).map(|lane| {
        let (mut connection, posts, prefix) = (
            Connection::new(&site.target),
            Arc::clone(posts),
            site.unique(),
        );
        tokio::spawn(async move {
            let mut latencies = Latencies::default();
            // Each lane goes round the rooms from its own place.
            for (count, post) in posts.iter().cycle().skip(lane).enumerate() {
                let start = Instant::now();
                if start >= end {
                    break;
                }
                let transaction = format!("{prefix}-{count}");
                matrix::send(
                    &mut connection,
                    &post.token,
                    &post.room,
                    &transaction,
                    "a message of ordinary length",
                )
                .await?;
                latencies.push(start.elapsed());
            }
            Ok::<_, Error>(latencies)
        })
    });
    let mut all = Latencies::default();
    for lane in try_join_all(lanes).await? {
        all.extend(lane?);
    }
    Ok(all)
}
