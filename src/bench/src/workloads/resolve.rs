//! W9: state resolution: a room with a large state forks, the forks disagree, and an event joins them.

use std::time::Duration;

use comity_protocol::id::OwnedEventId;
use comity_protocol::room_version::RoomVersion;
use serde_json::json;

use super::{Measurement, Meter, Site, Sizes, shown};
use crate::error::Result;
use crate::http::Connection;
use crate::matrix;
use crate::remote::{ORIGINS, Room, Shape};

/// Events of a transaction.
const TRANSACTION: usize = 50;
/// Events that one event can follow at the most.
const PARENTS: usize = 20;
/// After this an event counts as lost.
const PATIENCE: Duration = Duration::from_secs(600);

/// Runs a case for each version, size and number of forks.
///
/// # Errors
/// When the server doesn't join, or loses an event.
pub async fn run(site: &Site, sizes: &Sizes) -> Result<Vec<Measurement>> {
    let mut measured = Vec::new();
    for version in [RoomVersion::V10, RoomVersion::V12] {
        for &entries in &sizes.resolve_entries {
            for &(forks, conflicts) in &sizes.forks {
                measured.push(case(site, version, entries, forks, conflicts).await?);
            }
        }
    }
    Ok(measured)
}

async fn case(
    site: &Site,
    version: RoomVersion,
    entries: usize,
    forks: usize,
    conflicts: usize,
) -> Result<Measurement> {
    let remotes = site.remotes()?;
    let room = remotes.make_room(Shape {
        version,
        members: entries / 2,
        origins: ORIGINS,
        earlier: 0,
        entries: entries / 2,
    })?;
    let room_id = room.lock().id().to_string();
    let mut connection = Connection::new(&site.target);
    let account = matrix::register(&mut connection, &site.unique(), site.secret.as_deref()).await?;
    let through = &remotes.origin(0)?.name;
    matrix::join_through(&mut connection, &account, &room_id, through.as_str()).await?;
    matrix::members(&mut connection, &account, &room_id).await?;

    let (mut told, mut tips) = (Vec::new(), Vec::new());
    {
        let mut room = room.lock();
        let base = room.tip();
        for fork in 0..forks {
            let mut tip = base.clone();
            // What a fork and the next one both say: each pair of neighbours disagrees.
            let share = |fork: usize| (fork % forks..conflicts).step_by(forks);
            for conflict in share(fork).chain(share(fork + 1)) {
                let key = format!("conflict{conflict}");
                let content = json!({"fork": fork});
                let by = (0, "m0");
                let kind = "org.example.conflict";
                let made = room.add(remotes, by, &[tip], kind, Some(&key), &content)?;
                told.push(made.json);
                tip = made.id;
            }
            tips.push(tip);
        }
    }
    site.processes.settle().await;
    let forking = Meter::start(&site.processes);
    let mut peer = Connection::new(&site.target);
    for events in told.chunks(TRANSACTION) {
        let events: Vec<&str> = events.iter().map(String::as_str).collect();
        remotes
            .transact(&mut peer, 0, &site.unique(), &events)
            .await?;
    }
    for tip in &tips {
        shown(
            &mut connection,
            &account,
            (&room_id, tip.as_str()),
            PATIENCE,
        )
        .await?;
    }
    site.processes.settle().await;
    let forks_cpu = forking.cpu_seconds();

    let mut merging = Vec::new();
    {
        let mut room = room.lock();
        while tips.len() > 1 {
            tips = merged(&mut room, remotes, &tips, &mut merging)?;
        }
    }
    let merging: Vec<&str> = merging.iter().map(String::as_str).collect();
    let meter = Meter::start(&site.processes);
    remotes
        .transact(&mut peer, 0, &site.unique(), &merging)
        .await?;
    for tip in &tips {
        shown(
            &mut connection,
            &account,
            (&room_id, tip.as_str()),
            PATIENCE,
        )
        .await?;
    }
    let case = format!(
        "version {}: {entries} entries, {forks} forks, {conflicts} conflicts",
        version.as_str()
    );
    let known = site.processes.known();
    Ok(Measurement::new("W9", case)
        .with_if(known, "forks_cpu_s", forks_cpu)
        .with("merged_ms", meter.elapsed().as_secs_f64() * 1e3)
        .with_if(known, "merged_cpu_ms", meter.cpu_seconds() * 1e3))
}

/// Messages that each follow as many of `tips` as one may.
fn merged(
    room: &mut Room,
    remotes: &crate::remote::Remotes,
    tips: &[OwnedEventId],
    told: &mut Vec<String>,
) -> Result<Vec<OwnedEventId>> {
    let mut merged = Vec::new();
    for parents in tips.chunks(PARENTS) {
        let content = json!({"msgtype": "m.text", "body": "together again"});
        let made = room.add(
            remotes,
            (0, "m0"),
            parents,
            "m.room.message",
            None,
            &content,
        )?;
        told.push(made.json);
        merged.push(made.id);
    }
    Ok(merged)
}
