//! `kill -9` in the middle of a crowd's sending, again and again, with a ledger of what was acknowledged.
//!
//! Writers send under transaction ids of their own; when the server dies they keep what was not
//! answered and send it again, under the same ids, to the next. At the end every room is read whole:
//! what was acknowledged is there under the id that was given, and nothing is there twice.
//!
//! After each kill `comity check` walks the store as the kill left it: a copy, since whoever opens a store
//! replays its log, and that is the restart's to do, whose time counts.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hyper::Method;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};
use tokio::process::Command;
use tokio::time::{Instant, sleep};

use crate::error::{Error, Result};
use crate::http::Connection;
use crate::matrix::{self, Account, encode};
use crate::servers::{self, Kind, Places};
use crate::target::Target;

/// What a restart may take.
const RESTART: Duration = Duration::from_secs(10);
/// Writers of one room.
const WRITERS_A_ROOM: usize = 4;
/// Transactions that each writer repeats at the end.
const REPEATED: usize = 20;
/// Events of one page.
const PAGE: usize = 500;

/// How much.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Kills.
    pub kills: usize,
    /// Writers.
    pub writers: usize,
    /// Decides when.
    pub seed: u64,
}

/// A writer and its page of the ledger.
struct Writer {
    account: Account,
    room: String,
    /// What was sent, by transaction id; and, once acknowledged, as which event.
    sent: BTreeMap<String, Option<String>>,
    name: String,
}

/// Kills and restarts Comity as planned, and says what that did.
///
/// # Errors
/// [`Error::Program`] says what was lost, repeated or damaged.
pub async fn run(places: &Places, plan: Plan) -> Result<()> {
    let port = servers::free_port()?;
    let base_url = format!("http://127.0.0.1:{port}");
    let mut random = ChaCha8Rng::seed_from_u64(plan.seed);
    let mut server = servers::start(Kind::ComityD1, places, port).await?;
    let target = Target::resolve(&base_url, None).await?;
    let mut writers = hire(&target, plan.writers).await?;
    let mut slowest = Duration::ZERO;
    for kill in 1..=plan.kills {
        let tasks: Vec<_> = writers
            .into_iter()
            .map(|writer| tokio::spawn(writer.send_on(target.clone())))
            .collect();
        sleep(Duration::from_millis(random.random_range(20..400))).await;
        server.kill().await?;
        writers = Vec::new();
        for task in tasks {
            writers.push(task.await?);
        }
        let left = copy(places).await?;
        let begun = Instant::now();
        server = servers::start(Kind::ComityD1, places, port).await?;
        slowest = slowest.max(begun.elapsed());
        check(places, &base_url, &left).await?;
        let acknowledged: usize = writers
            .iter()
            .map(|writer| writer.sent.values().flatten().count())
            .sum();
        println!(
            "kill {kill} of {}: {acknowledged} acknowledged so far, the store is in order",
            plan.kills
        );
    }
    for writer in &mut writers {
        writer.settle(&target).await?;
    }
    let found = read_all(&target, &writers).await?;
    let sent: usize = writers.iter().map(|writer| writer.sent.len()).sum();
    compare(&writers, &found)?;
    server.stop().await?;
    if slowest > RESTART {
        return Err(Error::Program(format!("a restart took {slowest:?}")));
    }
    println!(
        "{} kills, {sent} messages, none lost, none twice; the slowest restart took {slowest:?}",
        plan.kills
    );
    Ok(())
}

/// Accounts in rooms of a few.
async fn hire(target: &Target, count: usize) -> Result<Vec<Writer>> {
    let mut connection = Connection::new(target);
    let mut writers: Vec<Writer> = Vec::with_capacity(count);
    for n in 0..count {
        let name = format!("writer{n}");
        let account = matrix::register(&mut connection, &name, None).await?;
        let room = match writers.last().filter(|_| n % WRITERS_A_ROOM != 0) {
            Some(last) => {
                matrix::join(&mut connection, &account, &last.room).await?;
                last.room.clone()
            }
            None => matrix::create_room(&mut connection, &account, &name).await?,
        };
        writers.push(Writer {
            account,
            room,
            sent: BTreeMap::new(),
            name,
        });
    }
    Ok(writers)
}

impl Writer {
    /// Sends until the server is gone, first what was not acknowledged.
    async fn send_on(mut self, target: Target) -> Self {
        let mut connection = Connection::new(&target);
        loop {
            let open = self
                .sent
                .iter()
                .find(|(_, event)| event.is_none())
                .map(|(txn, _)| txn.clone());
            let txn = open.unwrap_or_else(|| format!("{}-{:06}", self.name, self.sent.len()));
            self.sent.entry(txn.clone()).or_default();
            match self.send(&mut connection, &txn).await {
                Ok(event_id) => drop(self.sent.insert(txn, Some(event_id))),
                Err(_) => return self,
            }
        }
    }

    async fn send(&self, connection: &mut Connection, txn: &str) -> Result<String> {
        let path = format!(
            "/_matrix/client/v3/rooms/{}/send/m.room.message/{txn}",
            encode(&self.room)
        );
        let content = json!({ "msgtype": "m.text", "body": txn });
        let answer = matrix::call(
            connection,
            Method::PUT,
            &path,
            Some(&self.account.token),
            Some(content),
        )
        .await?;
        let event_id = answer.get("event_id").and_then(Value::as_str);
        event_id
            .map(str::to_owned)
            .ok_or(Error::Missing(path, "event_id"))
    }

    /// Sends what is open, and the latest once more: a repeat is answered with the first event.
    async fn settle(&mut self, target: &Target) -> Result<()> {
        let mut connection = Connection::new(target);
        let latest = self.sent.len().saturating_sub(REPEATED);
        let again: Vec<String> = self
            .sent
            .iter()
            .enumerate()
            .filter(|(n, (_, event))| event.is_none() || *n >= latest)
            .map(|(_, (txn, _))| txn.clone())
            .collect();
        for txn in again {
            let event_id = self.send(&mut connection, &txn).await?;
            let before = self
                .sent
                .insert(txn.clone(), Some(event_id.clone()))
                .flatten();
            if before.is_some_and(|before| before != event_id) {
                return Err(Error::Program(format!(
                    "{txn} was given another event when it was repeated"
                )));
            }
        }
        Ok(())
    }
}

/// The messages of all rooms: by body, the events that have it.
async fn read_all(target: &Target, writers: &[Writer]) -> Result<BTreeMap<String, Vec<String>>> {
    let mut connection = Connection::new(target);
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for writer in writers.iter().step_by(WRITERS_A_ROOM) {
        let mut from = String::new();
        loop {
            let room = encode(&writer.room);
            let path = format!("/_matrix/client/v3/rooms/{room}/messages?dir=b&limit={PAGE}{from}");
            let page = matrix::call(
                &mut connection,
                Method::GET,
                &path,
                Some(&writer.account.token),
                None,
            )
            .await?;
            for event in page
                .get("chunk")
                .and_then(Value::as_array)
                .into_iter()
                .flatten()
            {
                let body = event
                    .get("content")
                    .and_then(|content| content.get("body"))
                    .and_then(Value::as_str);
                let event_id = event.get("event_id").and_then(Value::as_str);
                if let (Some(body), Some(event_id)) = (body, event_id) {
                    found
                        .entry(body.to_owned())
                        .or_default()
                        .push(event_id.to_owned());
                }
            }
            match page.get("end").and_then(Value::as_str) {
                Some(end) => from = format!("&from={}", encode(end)),
                None => break,
            }
        }
    }
    Ok(found)
}

/// What was acknowledged is there, once, under its id; nothing else is.
fn compare(writers: &[Writer], found: &BTreeMap<String, Vec<String>>) -> Result<()> {
    for (txn, event_id) in writers.iter().flat_map(|writer| &writer.sent) {
        let there = found.get(txn).map_or(&[][..], Vec::as_slice);
        if there.len() != 1 || there.first() != event_id.as_ref() {
            return Err(Error::Program(format!(
                "{txn} was acknowledged as {event_id:?} and is there as {there:?}"
            )));
        }
    }
    Ok(())
}

/// A copy of the dead server's data, in the place of the one before.
async fn copy(places: &Places) -> Result<PathBuf> {
    let folder = places.data.join("comity-d1");
    let left = folder.join("left");
    if left.exists() {
        fs::remove_dir_all(&left)?;
    }
    let mut copy = Command::new("cp");
    copy.arg("-a").arg(folder.join("data")).arg(&left);
    succeed(copy).await?;
    Ok(left)
}

/// `comity check` on a folder of data that no server has open.
async fn check(places: &Places, base_url: &str, data: &Path) -> Result<()> {
    let mut check = Command::new(&places.comity);
    check
        .arg("check")
        .env("COMITY_SERVER_NAME", "bench.invalid")
        .env("COMITY_PUBLIC_BASEURL", base_url)
        .env("COMITY_DATA_DIR", data)
        .env("COMITY_STORAGE__ENGINE", "rocksdb");
    succeed(check).await
}

/// Runs a program to its end.
async fn succeed(mut command: Command) -> Result<()> {
    let output = command.output().await?;
    if output.status.success() {
        return Ok(());
    }
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Err(Error::Program(format!(
        "{command:?}: {}{}",
        said(&output.stdout),
        said(&output.stderr)
    )))
}
