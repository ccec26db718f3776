//! `kill -9` in the middle of everything, or a disk that takes no more: what was answered is there, and nothing by halves.
//!
//! The test starts itself anew as the process to kill: sixteen writers on RocksDB who print what
//! was answered to them. After each end the store is opened, held against that ledger, and checked.
//! `COMITY_KILLS` says how often it is killed (20).
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)]

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Write},
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

use comity_runtime::Runtime;
use comity_storage::{
    Damaged, Engine, Expect, Family, Home, Key, KeyReader, KeyWriter, Lanes, Options, Registered,
    Store, Table, Tenant, TenantId, check,
    engine::{Rocks, rocks},
    postcard_value,
};

const FOLDER: &str = "COMITY_KILL_FOLDER";
const WRITERS: u32 = 16;
/// Rows of one commit besides the writer's count.
const ROWS: u32 = 6;

/// `writer, commit, row` → the commit's number; row 0 of commit 0 is the writer's count.
struct Entries;
#[derive(Debug, Clone)]
struct EntryKey {
    writer: String,
    commit: u32,
    row: u32,
}
#[derive(Debug, PartialEq, Eq, Clone, serde::Serialize, serde::Deserialize)]
struct Number(u32);
postcard_value!(Number);

impl Key for EntryKey {
    fn home(&self) -> Home<'_> {
        Home::User(&self.writer)
    }
    fn write(&self, to: &mut KeyWriter) {
        to.str(&self.writer).u32(self.commit).u32(self.row);
    }
    fn read(from: &mut KeyReader<'_>) -> Result<Self, Damaged> {
        Ok(Self {
            writer: from.str()?,
            commit: from.u32()?,
            row: from.u32()?,
        })
    }
}

impl Table for Entries {
    const NAME: &'static str = "entries";
    const FAMILY: Family = Family::Index;
    const TAG: [u8; 2] = *b"ze";
    type Key = EntryKey;
    type Value = Number;
}

fn entry(writer: u32, commit: u32, row: u32) -> EntryKey {
    let writer = format!("@writer{writer}:localhost");
    EntryKey {
        writer,
        commit,
        row,
    }
}

async fn open(folder: &Path) -> (Engine, Tenant) {
    let runtime = Runtime::system();
    let engine = Rocks::open(rocks::Config::new(folder), &runtime)
        .await
        .unwrap();
    let engine = Engine::Rocks(engine);
    let options = Options {
        // RocksDB is tested with four lanes.
        lanes: Lanes::new(4).unwrap(),
        sync: true,
        on_fatal: Arc::new(|_| std::process::abort()),
        appliers: Vec::new(),
    };
    let store = Store::new(engine.clone(), options, runtime);
    (engine, store.tenant(TenantId(1)).await.unwrap())
}

/// The process to kill; nothing to do where nobody asked for it.
#[test]
fn writers() {
    let Some(folder) = std::env::var_os(FOLDER).map(PathBuf::from) else {
        return;
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let (_, tenant) = open(&folder).await;
        let writers = (0..WRITERS).map(|writer| write(tenant.clone(), writer));
        futures_util::future::join_all(
            writers.map(|writing| Runtime::system().spawn("writer", writing)),
        )
        .await;
    });
}

async fn write(tenant: Tenant, writer: u32) {
    let count = entry(writer, 0, 0);
    let lane = tenant.lane(count.home());
    let stored = tenant.reader().get::<Entries>(&count).await.unwrap();
    let mut commit = stored.as_ref().map_or(0, |row| row.value.0);
    let mut expect = stored.map_or(Expect::Absent, |row| Expect::At(row.pos));
    loop {
        commit += 1;
        let mut batch = lane.batch();
        batch.expect::<Entries>(&count, expect);
        batch.put::<Entries>(&count, &Number(commit));
        for row in 1..=ROWS {
            batch.put::<Entries>(&entry(writer, commit, row), &Number(commit));
        }
        let pos = lane.commit(batch).await.unwrap();
        expect = Expect::At(pos);
        writeln!(std::io::stdout().lock(), "answered {writer} {commit}").unwrap();
    }
}

/// What was answered: each writer's last commit.
type Ledger = BTreeMap<u32, u32>;

/// Enters a line that the writers print. Others (the test runner's) say nothing.
fn enter(ledger: &mut Ledger, line: &str) {
    let mut words = line
        .split(' ')
        .skip_while(|word| !word.ends_with("answered"))
        .skip(1);
    if let (Some(writer), Some(commit)) = (words.next(), words.next()) {
        let writer: u32 = writer.parse().unwrap();
        ledger.insert(writer, commit.parse::<u32>().unwrap());
    }
}

#[test]
fn what_was_answered_outlives_kill_9() {
    let kills = std::env::var("COMITY_KILLS").map_or(20, |n| n.parse().unwrap());
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("store");
    let random = Runtime::simulated(1).random().clone();
    let mut ledger = Ledger::new();
    let mut slowest = Duration::ZERO;
    for kill in 0..kills {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["writers", "--exact", "--nocapture"])
            .env(FOLDER, &store)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        // So many answers are awaited before the end; then those still in the pipe count too.
        let mut left = random.below(400);
        for line in lines.map_while(Result::ok) {
            enter(&mut ledger, &line);
            if left == 0 {
                child.kill().unwrap();
            }
            left = left.saturating_sub(1);
        }
        let ended = child.wait().unwrap();
        assert_eq!(ended.signal(), Some(9), "{ended}");
        // The folder is free again once the runtime and all its tasks are gone.
        let runtime = tokio::runtime::Runtime::new().unwrap();
        slowest = slowest.max(runtime.block_on(verify(&store, &ledger, kill)));
    }
    let answered: u32 = ledger.values().sum();
    println!("{kills} kills, {answered} commits answered, none lost; slowest start {slowest:?}");
    assert!(slowest < Duration::from_secs(10));
}

/// data-model.md, Commits: a write of which nobody can say what became of it ends the process (`on_fatal`), before anything that
/// rests on it is answered or shown. A limit on the length of files, in blocks of half a kilobyte, stands for a disk that is full:
/// RocksDB's log takes a part of a record and no more.
#[test]
fn what_was_answered_outlives_a_full_disk() {
    const ABORTED: i32 = 6;
    for blocks in [500, 1_000, 1_777] {
        let folder = tempfile::tempdir().unwrap();
        let store = folder.path().join("store");
        // Past the limit a write shall fail; by itself the signal would end the process.
        let limited = format!(r#"trap '' XFSZ; ulimit -f {blocks}; exec "$0" "$@""#);
        let mut child = Command::new("sh")
            .args(["-c", limited.as_str()])
            .arg(std::env::current_exe().unwrap())
            .args(["writers", "--exact", "--nocapture"])
            .env(FOLDER, &store)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut ledger = Ledger::new();
        for line in lines.map_while(Result::ok) {
            enter(&mut ledger, &line);
            // Where nothing limits it, this is no test.
            if ledger.values().sum::<u32>() > 100_000 {
                child.kill().unwrap();
            }
        }
        let ended = child.wait().unwrap();
        assert_eq!(ended.signal(), Some(ABORTED), "{ended}");
        assert!(!ledger.is_empty(), "nothing was answered");
        // Here there is room again.
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(verify(&store, &ledger, blocks));
    }
}

/// Holds the store against the ledger after that end; returns how long it took to open.
async fn verify(folder: &Path, ledger: &Ledger, kill: u32) -> Duration {
    let began = tokio::time::Instant::now();
    let (engine, tenant) = open(folder).await;
    let took = began.elapsed();
    for writer in 0..WRITERS {
        let answered = ledger.get(&writer).copied().unwrap_or(0);
        let count = entry(writer, 0, 0);
        let stored = tenant.reader().get::<Entries>(&count).await.unwrap();
        let stored = stored.map_or(0, |row| row.value.0);
        // One commit may have been in flight.
        let may_be = answered..=answered + 1;
        assert!(
            may_be.contains(&stored),
            "kill {kill}, writer {writer}: {answered} answered, {stored} stored"
        );
        let range = comity_storage::Range::of(count.home(), |k| {
            k.str(&count.writer);
        });
        let rows = tenant.reader().scan::<Entries>(range).await.unwrap();
        assert_eq!(rows.len() as u32, stored * ROWS + u32::from(stored > 0));
        assert!(
            rows.iter()
                .skip(1)
                .all(|(key, row)| row.value.0 == key.commit)
        );
    }
    let mut findings = Vec::new();
    check::tenant(
        &engine,
        TenantId(1),
        &[Registered::of::<Entries>()],
        &mut |f| findings.push(f),
    )
    .await
    .unwrap();
    assert_eq!(findings, [], "kill {kill}");
    took
}
