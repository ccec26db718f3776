//! W6: many users who sync for the first time, all at once, each in all of many rooms with many members: what
//! a server goes through whose users all get a new app on the same morning.

use std::collections::BTreeMap;

use futures_util::future::try_join_all;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::json;

use super::{Measurement, Meter, Site, Sizes, number};
use crate::error::{Error, Result};
use crate::http::Connection;
use crate::matrix::{self, Account, each};
use crate::stats::Latencies;

/// Messages in each room: as many as the longest timeline asked for.
const MESSAGES: usize = 20;

/// The users and their rooms.
pub struct Cohort {
    /// The members of every room; the first of them sync.
    members: Vec<Account>,
    users: usize,
    rooms: usize,
}

/// What an answer holds.
#[derive(Deserialize)]
struct Synced {
    rooms: Rooms,
}

#[derive(Deserialize)]
struct Rooms {
    join: BTreeMap<String, IgnoredAny>,
}

/// Makes the accounts and all rooms; everybody joins all of them.
///
/// # Errors
/// When the server refuses any of it.
pub async fn prepare(site: &Site, sizes: &Sizes) -> Result<Cohort> {
    let (users, rooms, members) = sizes.initial;
    let secret = site.secret.as_deref();
    let names: Vec<String> = (0..members.max(users)).map(|_| site.unique()).collect();
    let members: Vec<Account> = each(&site.target, 8, names, async |connection, name| {
        matrix::register(connection, &name, secret).await
    })
    .await?;
    let indices: Vec<usize> = (0..rooms).collect();
    each(&site.target, 8, indices, async |connection, index| {
        // Another owns each.
        let mut circle = members.iter().cycle().skip(index).take(members.len());
        let owner = circle
            .next()
            .ok_or_else(|| Error::Program("rooms need members".to_owned()))?;
        let room = matrix::create_room(connection, owner, &format!("room {index}")).await?;
        for member in circle {
            matrix::join(connection, member, &room).await?;
        }
        let room = matrix::encode(&room);
        for _ in 0..MESSAGES {
            matrix::send(connection, &owner.token, &room, &site.unique(), "before").await?;
        }
        Ok(())
    })
    .await?;
    Ok(Cohort {
        members,
        users,
        rooms,
    })
}

/// Runs all cases: timelines of 1, 5, 10 and 20 events, that of 10 with all members.
///
/// # Errors
/// When a sync is refused, or not all rooms are in it.
pub async fn run(site: &Site, cohort: &Cohort) -> Result<Vec<Measurement>> {
    let mut measured = Vec::new();
    for (timeline, lazy) in [(1, true), (5, true), (10, false), (20, true)] {
        measured.push(case(site, cohort, timeline, lazy).await?);
    }
    Ok(measured)
}

async fn case(site: &Site, cohort: &Cohort, timeline: usize, lazy: bool) -> Result<Measurement> {
    let Cohort {
        members,
        users,
        rooms,
    } = cohort;
    let filter = json!({
        "room": {"state": {"lazy_load_members": lazy}, "timeline": {"limit": timeline}},
        "presence": {"types": []},
    });
    let filter = filter.to_string();
    let path = format!(
        "/_matrix/client/v3/sync?timeout=0&set_presence=offline&filter={}",
        matrix::encode(&filter)
    );
    site.processes.settle().await;

    let meter = Meter::start(&site.processes);
    let (asked, begun) = (&path, &meter);
    let answers = members.iter().take(*users).map(|account| async move {
        let bytes = Connection::new(&site.target)
            .drain(asked, &account.token)
            .await?;
        Ok::<_, Error>((bytes, begun.elapsed()))
    });
    let answers = try_join_all(answers).await?;
    let cpu = meter.cpu_seconds();
    let mut latencies = Latencies::default();
    let mut bytes = 0;
    for (size, took) in answers {
        bytes += size;
        latencies.push(took);
    }

    // Bytes were counted, not read: what one of them is.
    if let Some(account) = members.first() {
        let mut connection = Connection::new(&site.target);
        let (_, body) = matrix::sync(&mut connection, account, None, Some(&filter), 0).await?;
        let joined = serde_json::from_slice::<Synced>(&body)?.rooms.join.len();
        if joined != *rooms {
            let error = format!("a first sync showed {joined} of {rooms} rooms");
            return Err(Error::Program(error));
        }
    }
    let shown = if lazy { "lazy" } else { "all" };
    let case = format!(
        "{users} users × {rooms} rooms × {} members, timeline {timeline}, {shown} members",
        members.len()
    );
    Ok(Measurement::new("W6", case)
        .with("p50_ms", latencies.quantile_ms(0.5))
        .with("last_ms", latencies.quantile_ms(1.0))
        .with("answers_mb", number(bytes) / 1e6)
        .with_if(site.processes.known(), "cpu_s", cpu))
}
