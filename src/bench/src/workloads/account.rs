//! W5: an account in thousands of rooms: its first sync with lazy members and without, what a sync
//! costs when nothing happened, the one after a night away, and its room list by sliding sync ([`sliding`]).

use serde_json::json;
use tokio::time::Instant;

use super::{Measurement, Meter, Site, Sizes, number, sliding};
use crate::error::{Error, Result};
use crate::http::Connection;
use crate::matrix::{self, Account, each};
use crate::stats::Latencies;

/// Accounts that own the rooms and are their other members.
const OWNERS: usize = 10;
/// Members of each room beside the account.
const MEMBERS: usize = 4;
/// Messages in each room.
const MESSAGES: usize = 3;
/// Syncs of which the idle one is the median.
const IDLE_SYNCS: usize = 50;
/// Eight hours away: one room in this many got [`GAP_MESSAGES`] messages.
const GAP_EVERY: usize = 10;
/// Messages in each room of the gap.
const GAP_MESSAGES: usize = 5;

/// A room and its owner.
#[derive(Clone)]
struct Owned {
    room: String,
    owner: Account,
}

/// The account and its rooms.
pub struct Busy {
    account: Account,
    rooms: Vec<Owned>,
    lazy: String,
    full: String,
}

/// Makes the account and all its rooms, each with members and messages.
///
/// # Errors
/// When the server refuses any of it.
pub async fn prepare(site: &Site, sizes: &Sizes) -> Result<Busy> {
    let mut connection = Connection::new(&site.target);
    let secret = site.secret.as_deref();
    let account = matrix::register(&mut connection, &site.unique(), secret).await?;
    let mut owners = Vec::new();
    for _ in 0..OWNERS {
        owners.push(matrix::register(&mut connection, &site.unique(), secret).await?);
    }
    let rooms = each(
        &site.target,
        8,
        (0..sizes.account_rooms).collect(),
        async |connection, index: usize| {
            let mut circle = owners.iter().cycle().skip(index % OWNERS);
            let owner = circle
                .next()
                .ok_or_else(|| Error::Program("no owners".to_owned()))?
                .clone();
            let room = matrix::create_room(connection, &owner, &format!("room {index}")).await?;
            for member in circle.take(MEMBERS - 1).chain([&account]) {
                matrix::join(connection, member, &room).await?;
            }
            let room = matrix::encode(&room);
            for _ in 0..MESSAGES {
                matrix::send(connection, &owner.token, &room, &site.unique(), "before").await?;
            }
            Ok(Owned { room, owner })
        },
    )
    .await?;
    let filter = |lazy: bool| json!({"room": {"state": {"lazy_load_members": lazy}}, "presence": {"types": []}});
    let lazy = matrix::upload_filter(&mut connection, &account, filter(true)).await?;
    let full = matrix::upload_filter(&mut connection, &account, filter(false)).await?;
    Ok(Busy {
        account,
        rooms,
        lazy,
        full,
    })
}

/// Runs all cases.
///
/// # Errors
/// When a request is refused.
pub async fn run(site: &Site, busy: &Busy) -> Result<Vec<Measurement>> {
    let rooms = busy.rooms.len();
    let mut connection = Connection::new(&site.target);
    let mut measured = Vec::new();
    let mut since = String::new();
    for (name, filter) in [("lazy", &busy.lazy), ("full", &busy.full)] {
        let (measurement, next) = one(
            site,
            busy,
            &mut connection,
            None,
            filter,
            format!("{rooms} rooms, initial sync, {name}"),
        )
        .await?;
        measured.push(measurement);
        since = next;
    }

    // Unmeasured until it stands still: the first may still bring something.
    (since, _) = matrix::sync(
        &mut connection,
        &busy.account,
        Some(&since),
        Some(&busy.lazy),
        0,
    )
    .await?;
    let meter = Meter::start(&site.processes);
    let mut latencies = Latencies::default();
    for _ in 0..IDLE_SYNCS {
        let start = Instant::now();
        (since, _) = matrix::sync(
            &mut connection,
            &busy.account,
            Some(&since),
            Some(&busy.lazy),
            0,
        )
        .await?;
        latencies.push(start.elapsed());
    }
    measured.push(
        Measurement::new("W5", format!("{rooms} rooms, sync when nothing happened"))
            .with("ms", latencies.quantile_ms(0.5))
            .with_if(
                site.processes.known(),
                "cpu_ms",
                meter.cpu_seconds() / number(IDLE_SYNCS) * 1e3,
            ),
    );

    let changed: Vec<Owned> = busy.rooms.iter().step_by(GAP_EVERY).cloned().collect();
    let case = format!(
        "{rooms} rooms, sync after {GAP_MESSAGES} messages in {} of them",
        changed.len()
    );
    each(&site.target, 8, changed, async |connection, owned| {
        for _ in 0..GAP_MESSAGES {
            matrix::send(
                connection,
                &owned.owner.token,
                &owned.room,
                &site.unique(),
                "meanwhile",
            )
            .await?;
        }
        Ok(())
    })
    .await?;
    let (gap, _) = one(site, busy, &mut connection, Some(&since), &busy.lazy, case).await?;
    measured.push(gap);
    measured.extend(sliding::run(site, &busy.account, rooms).await?);
    Ok(measured)
}

async fn one(
    site: &Site,
    busy: &Busy,
    connection: &mut Connection,
    since: Option<&str>,
    filter: &str,
    case: String,
) -> Result<(Measurement, String)> {
    site.processes.settle().await;
    let meter = Meter::start(&site.processes);
    let (next, body) = matrix::sync(connection, &busy.account, since, Some(filter), 0).await?;
    let elapsed = meter.elapsed().as_secs_f64();
    let measurement = Measurement::new("W5", case)
        .with("ms", elapsed * 1e3)
        .with("mb", number(body.len()) / 1e6)
        .with_if(site.processes.known(), "cpu_s", meter.cpu_seconds());
    Ok((measurement, next))
}
