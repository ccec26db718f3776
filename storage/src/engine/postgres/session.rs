//! Connections: a few, shared, made when first needed and again when lost.
//!
//! No statement here leaves state behind in its connection, so nothing needs one for itself: calls
//! are written one after another into the same connection and answered in that order. A pool that
//! lends connections out would make a caller wait for what it may simply queue behind.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use comity_runtime::Runtime;
use futures_util::future::try_join_all;
use tokio::sync::Mutex;
use tokio_postgres::{Client, Config, NoTls, Statement};

use super::schema;
use crate::table::Family;

/// How long a connection may take to come about, and an answer to come.
const CONNECT: Duration = Duration::from_secs(5);
pub(super) const ANSWER: Duration = Duration::from_secs(30);

/// A connection with its statements prepared.
pub(super) struct Session {
    pub client: Client,
    pub commit: Statement,
    pub claim_new: Statement,
    pub claim: Statement,
    gets: Vec<Statement>,
    /// By family, then forward and backward.
    scans: Vec<Statement>,
    scans_everywhere: Vec<Statement>,
}

impl Session {
    pub fn get(&self, family: Family) -> Option<&Statement> {
        self.gets.get(family as usize)
    }

    pub fn scan(&self, family: Family, everywhere: bool, reverse: bool) -> Option<&Statement> {
        let of = if everywhere {
            &self.scans_everywhere
        } else {
            &self.scans
        };
        of.get(family as usize * 2 + usize::from(reverse))
    }

    async fn prepare(client: Client) -> Result<Self, tokio_postgres::Error> {
        let both = || {
            Family::ALL
                .into_iter()
                .flat_map(|f| [(f, false), (f, true)])
        };
        let gets: Vec<String> = Family::ALL.into_iter().map(schema::get).collect();
        let scans: Vec<String> = both().map(|(f, r)| schema::scan(f, r)).collect();
        let everywhere: Vec<String> = both().map(|(f, r)| schema::scan_everywhere(f, r)).collect();
        Ok(Self {
            commit: client.prepare(&schema::commit()).await?,
            claim_new: client.prepare(schema::CLAIM_NEW).await?,
            claim: client.prepare(schema::CLAIM).await?,
            gets: all(&client, &gets).await?,
            scans: all(&client, &scans).await?,
            scans_everywhere: all(&client, &everywhere).await?,
            client,
        })
    }
}

async fn all(client: &Client, sql: &[String]) -> Result<Vec<Statement>, tokio_postgres::Error> {
    let mut preparing = Vec::new();
    for sql in sql {
        preparing.push(client.prepare(sql));
    }
    try_join_all(preparing).await
}

/// Connects, and drives the connection in a task until it ends.
pub(super) async fn connect(config: &Config, runtime: &Runtime) -> Result<Client, String> {
    let connecting = tokio::time::timeout(CONNECT, config.connect(NoTls)).await;
    let (client, connection) = connecting
        .map_err(|_| "no answer from PostgreSQL".to_owned())?
        .map_err(|error| cause(&error))?;
    drop(runtime.spawn("postgres", async move {
        if let Err(error) = connection.await {
            tracing::warn!(error = cause(&error), "a connection to PostgreSQL was lost");
        }
    }));
    Ok(client)
}

/// What happened, without the values in question.
pub(super) fn cause(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(db) => format!("{} ({})", db.message(), db.code().code()),
        None => match std::error::Error::source(error) {
            Some(source) => format!("{error}: {source}"),
            None => error.to_string(),
        },
    }
}

/// Connections that calls are spread over.
pub(super) struct Sessions {
    config: Config,
    /// Run on each new connection.
    setup: String,
    runtime: Runtime,
    places: Vec<Mutex<Option<Arc<Session>>>>,
    turn: AtomicUsize,
}

impl Sessions {
    pub fn new(config: Config, setup: String, runtime: Runtime, count: usize) -> Self {
        let places = (0..count.max(1)).map(|_| Mutex::new(None)).collect();
        let turn = AtomicUsize::new(0);
        Self {
            config,
            setup,
            runtime,
            places,
            turn,
        }
    }

    /// One after the other.
    pub async fn any(&self) -> Result<Arc<Session>, String> {
        self.of(self.turn.fetch_add(1, Ordering::Relaxed)).await
    }

    /// Always the same for the same number.
    pub async fn of(&self, n: usize) -> Result<Arc<Session>, String> {
        let none = || "no connection is configured".to_owned();
        let place = self.places.get(n % self.places.len()).ok_or_else(none)?;
        let mut place = place.lock().await;
        if let Some(session) = place.as_ref().filter(|s| !s.client.is_closed()) {
            return Ok(session.clone());
        }
        *place = None;
        let client = connect(&self.config, &self.runtime).await?;
        let preparing = async {
            client.batch_execute(&self.setup).await?;
            Session::prepare(client).await
        };
        let session = tokio::time::timeout(CONNECT, preparing).await;
        let session = session
            .map_err(|_| "no answer from PostgreSQL".to_owned())?
            .map_err(|error| cause(&error))?;
        Ok(place.insert(Arc::new(session)).clone())
    }

    /// Gives up a connection that doesn't answer.
    pub async fn give_up(&self, session: &Arc<Session>) {
        for place in &self.places {
            let mut place = place.lock().await;
            if place
                .as_ref()
                .is_some_and(|held| Arc::ptr_eq(held, session))
            {
                *place = None;
            }
        }
    }
}
