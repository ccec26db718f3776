//! PostgreSQL 15 and later: the engine of a cluster.
//!
//! A lane's group is one call of a function of ours, one transaction: it holds the claim, checks
//! the conditions, inserts the log rows, and raises when anything differs. One transaction is in
//! flight a lane; throughput comes from merging. Each read is a statement with a snapshot of its
//! own, and holds nothing afterwards. A connection lost while a commit was on its way leaves the
//! outcome unknown: the lane's next claim settles it.
//!
//! Connections are not encrypted yet: put the server on a trusted network or behind a tunnel. A
//! `sslmode` of `require` is refused rather than ignored.

mod schema;
mod session;

use std::{collections::BTreeMap, fmt, sync::Arc};

use bytes::Bytes;
use comity_runtime::Runtime;
use futures_util::future::try_join_all;
use tokio::sync::Semaphore;
use tokio_postgres::{
    error::{Severity, SqlState},
    types::ToSql,
};

use self::session::{ANSWER, Session, Sessions, cause, connect};
use super::{Condition, Op, RowKey, Scan, Write};
use crate::{
    error::{CommitError, OpenError, ReadError},
    table::Family,
};

type Rows = Vec<(Bytes, Bytes)>;
type Answer<T> = Result<T, tokio_postgres::Error>;

/// Reads on their way at the same time, those waiting in connections included.
const READS: usize = 256;

/// Where and how many.
#[derive(Clone)]
pub struct Config {
    /// `postgresql://user:password@host:port/database`. Tables go where its `search_path` points.
    pub url: String,
    /// Whether a commit waits until the server has it durable (D1); otherwise its last
    /// moments may be lost in a crash (D0).
    pub sync: bool,
    /// Connections that lanes commit through.
    pub writers: usize,
    /// Connections for reads.
    pub readers: usize,
}

impl Config {
    /// A database, commits durable, eight connections each way at the most.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            sync: true,
            writers: 8,
            readers: 8,
        }
    }
}

/// The PostgreSQL engine. Clones share its connections.
#[derive(Clone)]
pub struct Postgres(Arc<Inner>);

struct Inner {
    sync: bool,
    writers: Sessions,
    readers: Sessions,
    reads: Semaphore,
}

impl fmt::Debug for Postgres {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Postgres")
    }
}

impl Postgres {
    /// Connects, and makes the tables where there are none.
    ///
    /// # Errors
    /// [`OpenError::Engine`] says what stands in the way; it never shows the URL.
    pub async fn open(config: Config, runtime: &Runtime) -> Result<Self, OpenError> {
        let refused = |why: String| OpenError::Engine(format!("PostgreSQL: {why}"));
        let mut parsed: tokio_postgres::Config = config
            .url
            .parse()
            .map_err(|_| refused("`url` is not a PostgreSQL URL".into()))?;
        if parsed.get_application_name().is_none() {
            parsed.application_name("comity");
        }
        let client = connect(&parsed, runtime).await.map_err(refused)?;
        let one = async |sql: &str| client.query_one(sql, &[]).await;
        let version = one("select current_setting('server_version_num')::int").await;
        let version: i32 = version.map_err(|e| refused(cause(&e)))?.get(0);
        if version < 150_000 {
            return Err(refused(format!(
                "version 15 is the oldest supported, this is {}",
                version / 10_000
            )));
        }
        let created = client.batch_execute(&schema::create()).await;
        created.map_err(|e| refused(cause(&e)))?;
        let format = one("select format from comity_store").await;
        let format: i32 = format.map_err(|e| refused(cause(&e)))?.get(0);
        if format > schema::FORMAT {
            return Err(refused(format!(
                "the tables are of format {format}, this build knows up to {}: run a newer build",
                schema::FORMAT
            )));
        }
        // The server may wait for more than its own disk; only less than that is raised.
        let setup = if config.sync {
            "select set_config('synchronous_commit', 'on', false) where current_setting('synchronous_commit') = 'off'"
        } else {
            "set synchronous_commit = off"
        };
        let setup = format!("{}{setup}", schema::SESSION);
        let sessions = |count| Sessions::new(parsed.clone(), setup.clone(), runtime.clone(), count);
        Ok(Self(Arc::new(Inner {
            sync: config.sync,
            writers: sessions(config.writers),
            readers: sessions(config.readers),
            reads: Semaphore::new(READS),
        })))
    }

    pub(super) async fn get_many(&self, keys: &[RowKey]) -> Result<Vec<Option<Bytes>>, ReadError> {
        self.read(|session| get_many(session, keys)).await
    }

    pub(super) async fn scan_many(&self, scans: &[Scan]) -> Result<Vec<Rows>, ReadError> {
        self.read(|session| scan_many(session, scans)).await
    }

    /// A read that met a lost connection is asked again, once, on a new one.
    async fn read<T, F>(&self, read: impl Fn(Arc<Session>) -> F) -> Result<T, ReadError>
    where
        F: Future<Output = Answer<T>>,
    {
        let Ok(_place) = self.0.reads.acquire().await else {
            return Err(ReadError::Engine("the store is closed".into()));
        };
        let mut again = true;
        loop {
            let session = self.0.readers.any().await.map_err(ReadError::Engine)?;
            match tokio::time::timeout(ANSWER, read(session.clone())).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(error)) if error.is_closed() && again => again = false,
                Ok(Err(error)) => return Err(ReadError::Engine(cause(&error))),
                Err(_) => {
                    self.0.readers.give_up(&session).await;
                    return Err(ReadError::Engine("no answer from PostgreSQL".into()));
                }
            }
        }
    }

    pub(super) async fn claim(
        &self,
        row: &RowKey,
        expected: Option<&Bytes>,
        epoch: &Bytes,
    ) -> Result<(), CommitError> {
        let place = usize::from(row.slot.number());
        let claim = |session| claim(session, row, expected, epoch);
        match self.write(place, claim).await? {
            1 => Ok(()),
            _ => Err(CommitError::Fenced),
        }
    }

    pub(super) async fn apply(&self, writes: &[Write]) -> Result<(), CommitError> {
        let [write] = writes else {
            return Err(CommitError::NotApplied("one lane at a time".into()));
        };
        let (tenant, lane) = (write.fence.tenant, write.fence.lane);
        let place = (tenant.0 as usize).wrapping_add(usize::from(lane.0));
        let change = Change::of(write);
        self.write(place, |session| commit(session, &change)).await
    }

    pub(super) async fn sync(&self) -> Result<(), CommitError> {
        if self.0.sync {
            // Each commit has waited for that.
            return Ok(());
        }
        self.write(0, sync).await
    }

    async fn write<T, F>(
        &self,
        place: usize,
        write: impl FnOnce(Arc<Session>) -> F,
    ) -> Result<T, CommitError>
    where
        F: Future<Output = Answer<T>>,
    {
        let session = self.0.writers.of(place).await;
        let session = session.map_err(CommitError::NotApplied)?;
        match tokio::time::timeout(ANSWER, write(session.clone())).await {
            Ok(outcome) => outcome.map_err(|error| failure(&error)),
            Err(_) => {
                self.0.writers.give_up(&session).await;
                Err(CommitError::Unknown("no answer from PostgreSQL".into()))
            }
        }
    }
}

async fn claim(
    session: Arc<Session>,
    row: &RowKey,
    expected: Option<&Bytes>,
    epoch: &Bytes,
) -> Answer<u64> {
    let (slot, key, new) = (slot(row), row.key.as_ref(), epoch.as_ref());
    let client = &session.client;
    match expected.map(Bytes::as_ref) {
        Some(old) => {
            client
                .execute(&session.claim, &[&slot, &key, &new, &old])
                .await
        }
        None => {
            client
                .execute(&session.claim_new, &[&slot, &key, &new])
                .await
        }
    }
}

async fn commit(session: Arc<Session>, change: &Change<'_>) -> Answer<()> {
    let parameters = change.parameters();
    session.client.execute(&session.commit, &parameters).await?;
    Ok(())
}

async fn sync(session: Arc<Session>) -> Answer<()> {
    session.client.batch_execute(schema::SYNC).await
}

async fn get_many(session: Arc<Session>, keys: &[RowKey]) -> Answer<Vec<Option<Bytes>>> {
    let mut values = vec![None; keys.len()];
    let mut families: BTreeMap<Family, Asked<'_>> = BTreeMap::new();
    for (n, row) in keys.iter().enumerate() {
        let (places, slots, keys) = families.entry(row.family).or_default();
        places.push(n);
        slots.push(slot(row));
        keys.push(row.key.as_ref());
    }
    let mut asked = Vec::new();
    for (family, (_, slots, keys)) in &families {
        asked.push(get(&session, *family, slots, keys));
    }
    let answers = try_join_all(asked).await?;
    for ((places, ..), rows) in families.values().zip(answers) {
        for row in rows {
            // Numbered from 1.
            let place = usize::try_from(row.get::<_, i64>(0) - 1).ok();
            let place = place.and_then(|place| places.get(place));
            if let Some(value) = place.and_then(|place| values.get_mut(*place)) {
                *value = Some(Bytes::copy_from_slice(row.get(1)));
            }
        }
    }
    Ok(values)
}

/// Of one family: places in the answer, slots, keys.
type Asked<'a> = (Vec<usize>, Vec<i32>, Vec<&'a [u8]>);

async fn get(
    session: &Session,
    family: Family,
    slots: &[i32],
    keys: &[&[u8]],
) -> Answer<Vec<tokio_postgres::Row>> {
    match session.get(family) {
        Some(statement) => session.client.query(statement, &[&slots, &keys]).await,
        None => Ok(Vec::new()),
    }
}

/// All on their way at once: one round trip.
async fn scan_many(session: Arc<Session>, scans: &[Scan]) -> Answer<Vec<Rows>> {
    let mut asked = Vec::new();
    for range in scans {
        asked.push(scan(&session, range));
    }
    try_join_all(asked).await
}

async fn scan(session: &Session, scan: &Scan) -> Answer<Rows> {
    if scan.from >= scan.to {
        return Ok(Vec::new());
    }
    let Some(statement) = session.scan(scan.family, scan.slot.is_none(), scan.reverse) else {
        return Ok(Vec::new());
    };
    let (from, to) = (scan.from.as_ref(), scan.to.as_ref());
    let limit = i64::try_from(scan.limit).unwrap_or(i64::MAX);
    let client = &session.client;
    let rows = match scan.slot.map(|slot| i32::from(slot.number())) {
        Some(slot) => {
            client
                .query(statement, &[&slot, &from, &to, &limit])
                .await?
        }
        None => client.query(statement, &[&from, &to, &limit]).await?,
    };
    let pair = |row: tokio_postgres::Row| {
        let (key, value) = (row.get(0), row.get(1));
        (Bytes::copy_from_slice(key), Bytes::copy_from_slice(value))
    };
    Ok(rows.into_iter().map(pair).collect())
}

fn slot(row: &RowKey) -> i32 {
    i32::from(row.slot.number())
}

/// What an error says of the transaction: the server rolled it back, or nobody knows.
fn failure(error: &tokio_postgres::Error) -> CommitError {
    let Some(db) = error.as_db_error() else {
        return CommitError::Unknown(cause(error));
    };
    let fatal = !matches!(db.parsed_severity(), Some(Severity::Error));
    match db.code().code() {
        schema::FENCED => CommitError::Fenced,
        // The log has that position: another wrote it.
        _ if *db.code() == SqlState::UNIQUE_VIOLATION => CommitError::Fenced,
        _ if fatal => CommitError::Unknown(cause(error)),
        _ => CommitError::NotApplied(cause(error)),
    }
}

/// A write as the function takes it: a row once, ranges before rows.
struct Change<'a> {
    slot: i32,
    key: &'a [u8],
    epoch: &'a [u8],
    conditions: Conditions<'a>,
    ranges: Ranges<'a>,
    deletes: Deletes<'a>,
    puts: Puts<'a>,
}

type Conditions<'a> = (Vec<i32>, Vec<i32>, Vec<&'a [u8]>, Vec<Option<Vec<u8>>>);
type Ranges<'a> = (Vec<i32>, Vec<i32>, Vec<&'a [u8]>, Vec<&'a [u8]>);
type Deletes<'a> = (Vec<i32>, Vec<i32>, Vec<&'a [u8]>);
type Puts<'a> = (Vec<i32>, Vec<i32>, Vec<&'a [u8]>, Vec<&'a [u8]>);

impl<'a> Change<'a> {
    fn of(write: &'a Write) -> Self {
        let mut change = Self {
            slot: slot(&write.fence.row),
            key: &write.fence.row.key,
            epoch: &write.fence.epoch,
            conditions: Conditions::default(),
            ranges: Ranges::default(),
            deletes: Deletes::default(),
            puts: Puts::default(),
        };
        for (row, condition) in &write.conditions {
            let (families, slots, keys, positions) = &mut change.conditions;
            families.push(row.family as i32);
            slots.push(slot(row));
            keys.push(&row.key);
            positions.push(match condition {
                Condition::Absent => None,
                Condition::At(pos) => Some(pos.to_be_bytes().to_vec()),
            });
        }
        let mut rows: BTreeMap<&RowKey, Option<&Bytes>> = BTreeMap::new();
        for op in &write.ops {
            match op {
                Op::Put(row, value) => drop(rows.insert(row, Some(value))),
                Op::Delete(row) => drop(rows.insert(row, None)),
                Op::DeleteRange(from, to) => {
                    rows.retain(|row, _| {
                        (row.family, row.slot) != (from.family, from.slot)
                            || row.key < from.key
                            || row.key >= *to
                    });
                    let (families, slots, froms, tos) = &mut change.ranges;
                    families.push(from.family as i32);
                    slots.push(slot(from));
                    froms.push(&from.key);
                    tos.push(to);
                }
            }
        }
        for (row, value) in rows {
            if let Some(value) = value {
                let (families, slots, keys, values) = &mut change.puts;
                families.push(row.family as i32);
                slots.push(slot(row));
                keys.push(&row.key);
                values.push(value);
            } else {
                let (families, slots, keys) = &mut change.deletes;
                families.push(row.family as i32);
                slots.push(slot(row));
                keys.push(&row.key);
            }
        }
        change
    }

    fn parameters(&self) -> [&(dyn ToSql + Sync); 18] {
        let (conditions, ranges) = (&self.conditions, &self.ranges);
        let (deletes, puts) = (&self.deletes, &self.puts);
        [
            &self.slot,
            &self.key,
            &self.epoch,
            &conditions.0,
            &conditions.1,
            &conditions.2,
            &conditions.3,
            &ranges.0,
            &ranges.1,
            &ranges.2,
            &ranges.3,
            &deletes.0,
            &deletes.1,
            &deletes.2,
            &puts.0,
            &puts.1,
            &puts.2,
            &puts.3,
        ]
    }
}
