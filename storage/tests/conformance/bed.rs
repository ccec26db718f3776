//! Where a case runs: an engine with a disk that can crash, and tables to write.

use std::{path::PathBuf, sync::Arc};

use bytes::Bytes;
use comity_runtime::Runtime;
use comity_storage::{
    Apply, At, Damaged, Engine, Family, Home, Key, KeyReader, KeyWriter, LaneWriter, Lanes,
    Options, Row, Store, Table, Tenant, TenantId,
    engine::{Memory, Postgres, Rocks, postgres, rocks},
    postcard_value,
};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Memory,
    Rocks,
    Postgres,
}

/// An engine and what is under it.
pub struct Bed {
    pub lanes: u8,
    pub sync: bool,
    pub appliers: Vec<Arc<dyn Apply>>,
    pub engine: Engine,
    runtime: Runtime,
    /// RocksDB's folders: each crash goes on in a copy of the last.
    folders: Option<(tempfile::TempDir, u32)>,
    /// PostgreSQL's schema, and the name that its sessions go by.
    pub schema: String,
}

impl Bed {
    /// `None` where the engine is not at hand, which is said aloud.
    pub async fn new(kind: Kind, lanes: u8) -> Option<Self> {
        let runtime = Runtime::system();
        let schema = format!("comity_test_{:016x}", runtime.random().u64());
        let (engine, folders) = match kind {
            Kind::Memory => (Engine::Memory(Memory::new()), None),
            Kind::Rocks => {
                let folder = tempfile::tempdir().unwrap();
                let config = rocks::Config::new(folder.path().join("0"));
                let engine = Rocks::open(config, &runtime).await.unwrap();
                (Engine::Rocks(engine), Some((folder, 0)))
            }
            Kind::Postgres => {
                let url = postgres()?;
                sql(&format!("create schema {schema}")).await;
                (database(&schema, &url).await, None)
            }
        };
        Some(Self {
            lanes,
            sync: true,
            appliers: Vec::new(),
            engine,
            runtime,
            folders,
            schema,
        })
    }

    /// A store as a process opens it: over the same rows as all others of this bed.
    pub fn store(&self) -> Store {
        let options = Options {
            lanes: Lanes::new(self.lanes).unwrap(),
            sync: self.sync,
            on_fatal: Arc::new(|_| {}),
            appliers: self.appliers.clone(),
        };
        Store::new(self.engine.clone(), options, self.runtime.clone())
    }

    pub async fn tenant(&self) -> Tenant {
        self.store().tenant(TenantId(1)).await.unwrap()
    }

    /// The process is gone without a word. In memory what was not synced is gone too; RocksDB goes
    /// on with the files as they lie; PostgreSQL has what it has.
    pub async fn crash(&mut self) {
        match &self.engine {
            Engine::Memory(memory) => {
                let memory = memory.crash();
                memory.set_faults(None);
                self.engine = Engine::Memory(memory);
            }
            Engine::Rocks(_) => {
                let (folder, n) = self.folders.as_mut().unwrap();
                let from = folder.path().join(n.to_string());
                *n += 1;
                let to = folder.path().join(n.to_string());
                copy(&from, &to);
                let config = rocks::Config::new(to);
                self.engine = Engine::Rocks(Rocks::open(config, &self.runtime).await.unwrap());
            }
            Engine::Postgres(_) => {}
        }
    }

    /// The folder in use.
    pub fn folder(&self) -> PathBuf {
        let (folder, n) = self.folders.as_ref().unwrap();
        folder.path().join(n.to_string())
    }

    pub fn memory(&self) -> &Memory {
        match &self.engine {
            Engine::Memory(memory) => memory,
            other => panic!("a case for the memory engine on {other:?}"),
        }
    }
}

/// The URL of the database to test on.
fn postgres() -> Option<String> {
    let url = std::env::var(POSTGRES_URL).ok();
    if url.is_none() {
        let said = format!("SKIPPED: {POSTGRES_URL} names no PostgreSQL to test on");
        assert!(std::env::var("CI").is_err(), "{said}");
        eprintln!("{said}");
    }
    url
}

/// The engine on a schema of the database at that URL.
pub async fn database(schema: &str, url: &str) -> Engine {
    let joint = if url.contains('?') { '&' } else { '?' };
    let url = format!("{url}{joint}application_name={schema}&options=-c%20search_path%3D{schema}");
    let config = postgres::Config::new(url);
    Engine::Postgres(Postgres::open(config, &Runtime::system()).await.unwrap())
}

pub const POSTGRES_URL: &str = "COMITY_TEST_POSTGRES_URL";

/// Runs a statement on a connection of its own.
pub async fn sql(statement: &str) {
    let url = std::env::var(POSTGRES_URL).unwrap();
    let (client, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls)
        .await
        .unwrap();
    let driver = tokio::spawn(connection);
    client.batch_execute(statement).await.unwrap();
    driver.abort();
}

/// The files of a folder, in the order in which RocksDB needs them: what the manifest names must
/// be there, what is there and not named is dropped. A store that runs may remove a file meanwhile:
/// then what was copied is the folder of no moment, and it is copied anew.
pub fn copy(from: &std::path::Path, to: &std::path::Path) {
    assert!(from.is_dir());
    while let Err(error) = copy_once(from, to) {
        assert_eq!(error.kind(), std::io::ErrorKind::NotFound, "{error}");
        std::fs::remove_dir_all(to).unwrap();
    }
}

fn copy_once(from: &std::path::Path, to: &std::path::Path) -> std::io::Result<()> {
    std::fs::create_dir_all(to)?;
    let names = std::fs::read_dir(from)?.map(|entry| Ok(entry?.file_name()));
    let mut names = names.collect::<std::io::Result<Vec<_>>>()?;
    names.sort_by_key(|name| name.to_string_lossy().ends_with(".sst"));
    for name in names {
        if name != "LOCK" {
            std::fs::copy(from.join(&name), to.join(&name))?;
        }
    }
    Ok(())
}

/// Small mutable rows of a user.
pub struct Notes;
/// Large rows of a user.
pub struct Bodies;
/// Rows that carry no position, keyed by that of their commit.
pub struct Marks;

#[derive(Debug, PartialEq, Eq, Clone)]
pub struct NoteKey(pub String, pub u64);
#[derive(Debug, PartialEq, Eq, Clone)]
pub struct MarkKey(pub String, pub At);
#[derive(Debug, PartialEq, Eq, Clone, serde::Serialize, serde::Deserialize)]
pub struct Note(pub String);
postcard_value!(Note);

impl Key for NoteKey {
    fn home(&self) -> Home<'_> {
        Home::User(&self.0)
    }
    fn write(&self, to: &mut KeyWriter) {
        to.str(&self.0).u64(self.1);
    }
    fn read(from: &mut KeyReader<'_>) -> Result<Self, Damaged> {
        Ok(Self(from.str()?, from.u64()?))
    }
}

impl Key for MarkKey {
    fn home(&self) -> Home<'_> {
        Home::User(&self.0)
    }
    fn write(&self, to: &mut KeyWriter) {
        to.str(&self.0).position(self.1);
    }
    fn read(from: &mut KeyReader<'_>) -> Result<Self, Damaged> {
        Ok(Self(from.str()?, from.position()?))
    }
}

impl Table for Notes {
    const NAME: &'static str = "notes";
    const FAMILY: Family = Family::Hot;
    const TAG: [u8; 2] = *b"zn";
    type Key = NoteKey;
    type Value = Note;
}

impl Table for Bodies {
    const NAME: &'static str = "bodies";
    const FAMILY: Family = Family::Body;
    const TAG: [u8; 2] = *b"zb";
    type Key = NoteKey;
    type Value = Bytes;
}

impl Table for Marks {
    const NAME: &'static str = "marks";
    const FAMILY: Family = Family::Index;
    const TAG: [u8; 2] = *b"zm";
    const STAMPED: bool = false;
    type Key = MarkKey;
    type Value = ();
}

pub const ALICE: &str = "@alice:localhost";

pub fn key(n: u64) -> NoteKey {
    NoteKey(ALICE.into(), n)
}

pub fn note(text: impl ToString) -> Note {
    Note(text.to_string())
}

/// Alice's lane.
pub fn lane(tenant: &Tenant) -> &LaneWriter {
    tenant.lane(Home::User(ALICE))
}

/// A user of another slot, and with several lanes of another lane.
pub fn stranger(tenant: &Tenant) -> String {
    let mine = Home::User(ALICE).slot();
    let users = (0..).map(|n| format!("@u{n}:localhost"));
    let lanes = tenant.lanes();
    users
        .into_iter()
        .find(|user| {
            let slot = Home::User(user).slot();
            slot != mine && (lanes.count() == 1 || lanes.of(slot) != lanes.of(mine))
        })
        .unwrap()
}

pub async fn read(tenant: &Tenant, n: u64) -> Option<Row<Note>> {
    tenant.reader().get::<Notes>(&key(n)).await.unwrap()
}

/// Writes a note, answered.
pub async fn put(tenant: &Tenant, n: u64, text: &str) -> u64 {
    let lane = lane(tenant);
    let mut batch = lane.batch();
    batch.put::<Notes>(&key(n), &note(text));
    lane.commit(batch).await.unwrap()
}
