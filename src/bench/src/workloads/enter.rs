//! W7: a large room of other servers: how long until a user is in it, until all of it is here, what the
//! server holds in memory meanwhile; then another server lets its user in through the measured one.

use std::time::Duration;

use comity_protocol::room_version::RoomVersion;
use tokio::time::{Instant, sleep};

use super::{Measurement, Meter, Site, Sizes, number};
use crate::error::{Error, Result};
use crate::http::Connection;
use crate::matrix;
use crate::remote::{ORIGINS, Shape};

/// After this a join counts as failed.
const PATIENCE: Duration = Duration::from_secs(1800);
/// How often the memory is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Runs a case for each number of members.
///
/// # Errors
/// When the server doesn't join, or lets nobody in.
pub async fn run(site: &Site, sizes: &Sizes) -> Result<Vec<Measurement>> {
    let mut measured = Vec::new();
    for &members in &sizes.join_members {
        measured.push(case(site, members).await?);
    }
    Ok(measured)
}

async fn case(site: &Site, members: usize) -> Result<Measurement> {
    let remotes = site.remotes()?;
    let room = remotes.make_room(Shape {
        version: RoomVersion::V11,
        members,
        origins: ORIGINS,
        earlier: 1,
        entries: 20,
    })?;
    let room_id = room.lock().id().to_string();
    let mut connection = Connection::new(&site.target);
    let account = matrix::register(&mut connection, &site.unique(), site.secret.as_deref()).await?;
    site.processes.settle().await;

    let meter = Meter::start(&site.processes);
    let through = &remotes.origin(0)?.name;
    let mut peak = 0.0_f64;
    let mut entering = Connection::new(&site.target);
    let work = async {
        matrix::join_through(&mut entering, &account, &room_id, through.as_str()).await?;
        let usable = meter.elapsed();
        let begun = Instant::now();
        while matrix::members(&mut connection, &account, &room_id).await? <= members {
            if begun.elapsed() > PATIENCE {
                return Err(Error::Program("the room never was complete".to_owned()));
            }
            sleep(LOOK_EVERY).await;
        }
        Ok((usable, meter.elapsed()))
    };
    tokio::pin!(work);
    let (usable, complete) = loop {
        tokio::select! {
            done = &mut work => break done?,
            () = sleep(LOOK_EVERY) => peak = peak.max(site.processes.usage().memory_bytes),
        }
    };
    let joining = meter.cpu_seconds();
    peak = peak.max(site.processes.usage().memory_bytes);

    site.processes.settle().await;
    let serving = Meter::start(&site.processes);
    let guest = remotes.user(1, "guest")?;
    let mut peer = Connection::new(&site.target);
    let told = remotes.join_through(&mut peer, 1, &room, &guest).await?;
    let known = site.processes.known();
    Ok(
        Measurement::new("W7", format!("a room of {members} members"))
            .with("usable_ms", usable.as_secs_f64() * 1e3)
            .with("complete_ms", complete.as_secs_f64() * 1e3)
            .with_if(known, "cpu_s", joining)
            .with_if(known, "peak_memory_mb", peak / 1e6)
            .with("serve_ms", serving.elapsed().as_secs_f64() * 1e3)
            .with_if(known, "serve_cpu_s", serving.cpu_seconds())
            .with("serve_mb", number(told) / 1e6),
    )
}
