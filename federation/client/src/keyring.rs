//! Other servers' signing keys: asked for once, checked, kept.
//!
//! What a server published is kept for good, for its old events: a newer answer adds to it and
//! replaces what it names. It is asked again when a key is wanted that isn't there, or that isn't
//! good any more at the time in question; at most every half minute, and by one request however many
//! wait for it. The server itself is asked first, then the notaries; whoever hands an answer over,
//! only its own server's signature makes it one (threat B5).
//!
//! See <https://spec.matrix.org/v1.19/server-server-api/#retrieving-server-keys>.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use comity_protocol::{
    event::WellFormed,
    id::{OwnedServerName, ServerName},
    sign::{
        KeyRing, KeyValidity, OldKey, PublishedKey, ServerKeys as Answer, SigningKey, VerifyKey,
        required_signers, signing_key_ids,
    },
};
use comity_storage::{CommitError, Home, ReadError, Tenant};
use futures_util::{StreamExt, stream};
use parking_lot::Mutex;

use crate::{
    peers::{PeerError, Peers},
    tables::{KnownKey, KnownKeys, ServerKey, ServerKeys},
};

/// A server isn't asked again for its keys within this time, in milliseconds.
const ASKED_AGAIN_MS: u64 = 30_000;
/// Servers whose keys are kept in memory; beyond, all are read anew.
const KEPT: usize = 10_000;
/// Keys kept of one server, the latest ones.
const KEYS_OF_A_SERVER: usize = 64;
/// Servers asked at once for one lot of events.
const ASKED_AT_ONCE: usize = 32;

/// The keys we sign with and signed with.
#[derive(Debug)]
pub struct OwnKeys {
    /// The one in use.
    pub key: Arc<SigningKey>,
    /// Those of before.
    pub old: Vec<OldKey>,
}

/// A tenant's knowledge of servers' keys. Cheap to clone.
#[derive(Clone)]
pub struct Keyring(Arc<Inner>);

struct Inner {
    peers: Peers,
    tenant: Tenant,
    own: Known,
    notaries: Vec<OwnedServerName>,
    servers: Mutex<BTreeMap<OwnedServerName, Arc<Server>>>,
}

/// What is known of a server; whoever asks it holds the lock, so that the others wait for its answer.
#[derive(Default)]
struct Server {
    known: Mutex<Option<Arc<Known>>>,
    asking: tokio::sync::Mutex<Option<LastAsked>>,
}

/// When a server was last asked for its keys, and whether it gave no answer.
#[derive(Clone, Copy)]
struct LastAsked {
    ts: u64,
    is_silent: bool,
}

/// What came of looking for a server's keys.
struct Found {
    known: Arc<Known>,
    /// Whether that isn't enough, and the server gave no answer when it was last asked.
    is_silent: bool,
}

type Known = BTreeMap<String, PublishedKey>;

/// Servers' keys as they were known at one moment: the ring that events are verified with.
#[derive(Clone, Debug, Default)]
pub struct Keys {
    known: BTreeMap<OwnedServerName, Arc<Known>>,
    silent: BTreeSet<OwnedServerName>,
}

impl KeyRing for Keys {
    fn key(&self, server: &ServerName, key_id: &str) -> Option<PublishedKey> {
        self.known.get(server)?.get(key_id).copied()
    }
}

impl Keys {
    /// A server whose keys were wanted and that gave no answer: it may tell them another time. One that answers and hasn't a key never
    /// will.
    pub fn silent(&self, server: &str) -> Option<&ServerName> {
        let server = <&ServerName>::try_from(server).ok()?;
        self.silent.get(server).map(|server| &**server)
    }
}

impl Keyring {
    /// The keys that `peers` can ask for and the tenant has. Our own aren't asked for.
    pub fn new(
        peers: Peers,
        tenant: Tenant,
        own: &OwnKeys,
        notaries: Vec<OwnedServerName>,
    ) -> Self {
        let current = PublishedKey {
            key: own.key.verify_key(),
            validity: KeyValidity::Until(i64::MAX),
        };
        let old = own.old.iter().map(|old| {
            let expired = i64::try_from(old.expired_ts).unwrap_or(i64::MAX);
            let (key, validity) = (old.key, KeyValidity::Expired(expired));
            (old.key_id.clone(), PublishedKey { key, validity })
        });
        let mut keys: Known = old.collect();
        keys.insert(own.key.key_id().to_owned(), current);
        Self(Arc::new(Inner {
            peers,
            tenant,
            own: keys,
            notaries,
            servers: Mutex::default(),
        }))
    }

    /// The key a server has signed a request with that comes now: one that is good now if there is one.
    ///
    /// # Errors
    /// The store can't be read.
    pub async fn key(
        &self,
        server: &ServerName,
        key_id: &str,
    ) -> Result<Option<PublishedKey>, ReadError> {
        let now = self.0.peers.now_ms();
        let is_good = |known: &Known| known.get(key_id).is_some_and(|key| key.is_current(now));
        let found = self.find(server, is_good).await?;
        Ok(found.known.get(key_id).copied())
    }

    /// How many of these servers never told us a key.
    ///
    /// # Errors
    /// The store can't be read.
    pub async fn strangers(&self, servers: &[&ServerName]) -> Result<usize, ReadError> {
        let keys = servers.iter().map(|server| ServerKey(server.to_string()));
        let keys: Vec<ServerKey> = keys.collect();
        let rows = self.0.tenant.reader();
        let rows = rows.get_many::<ServerKeys>(&keys).await?;
        Ok(rows.iter().filter(|row| row.is_none()).count())
    }

    /// The keys that verify these events, as far as they can be had. Servers that aren't known are
    /// asked side by side.
    ///
    /// # Errors
    /// The store can't be read.
    pub async fn keys_for(&self, events: &[WellFormed]) -> Result<Keys, ReadError> {
        // Of each server the sets of keys of which one must be good at a time: an event each.
        let mut wanted: BTreeMap<OwnedServerName, BTreeSet<Wanted>> = BTreeMap::new();
        for event in events {
            let event = event.event();
            for server in required_signers(event).unwrap_or_default() {
                let ids = signing_key_ids(event, &server).map(str::to_owned).collect();
                wanted.entry(server).or_default().insert(Wanted {
                    ids,
                    // Where validity isn't enforced, one time is like another.
                    ts: event
                        .rules()
                        .enforce_key_validity
                        .then(|| event.origin_server_ts()),
                });
            }
        }
        let found = stream::iter(wanted)
            .map(|(server, wanted)| async move {
                let found = self.find(&server, |known| wanted.iter().all(|one| one.is_met(known)));
                found.await.map(|found| (server.clone(), found))
            })
            .buffered(ASKED_AT_ONCE);
        let found: Vec<_> = found.collect().await;
        let mut keys = Keys::default();
        for found in found {
            let (server, found) = found?;
            if found.is_silent {
                keys.silent.insert(server.clone());
            }
            keys.known.insert(server, found.known);
        }
        Ok(keys)
    }

    /// A server's last answer about its keys, asked for anew if it isn't good at this time
    /// (milliseconds since 1970): what a notary shows. The answer's JSON, unless nothing is known.
    ///
    /// # Errors
    /// The store can't be read.
    pub async fn answer_of(
        &self,
        server: &ServerName,
        good_at: u64,
    ) -> Result<Option<Answer>, ReadError> {
        let stored = self.stored(server).await?;
        let stale = stored
            .as_ref()
            .is_none_or(|known| known.valid_until_ts < good_at);
        if stale {
            self.find(server, |_| false).await?;
        }
        let stored = if stale {
            self.stored(server).await?
        } else {
            stored
        };
        Ok(stored.and_then(|known| {
            Answer::check(server, known.answer.as_bytes(), known.fetched_ts).ok()
        }))
    }

    /// What is known of a server, after asking it unless that is `enough`.
    async fn find(
        &self,
        server: &ServerName,
        enough: impl Fn(&Known) -> bool,
    ) -> Result<Found, ReadError> {
        let had = |known, is_silent| Found { known, is_silent };
        if server == self.0.peers.server_name() {
            return Ok(had(Arc::new(self.0.own.clone()), false));
        }
        let place = self.place(server);
        let known = self.known(server, &place).await?;
        if enough(&known) {
            return Ok(had(known, false));
        }
        let mut asked = place.asking.lock().await;
        // Somebody may have asked while we waited.
        let known = self.known(server, &place).await?;
        if enough(&known) {
            return Ok(had(known, false));
        }
        let ts = self.0.peers.now_ms();
        if let Some(asked) = *asked
            && ts < asked.ts + ASKED_AGAIN_MS
        {
            return Ok(had(known, asked.is_silent));
        }
        // Until it answers; whoever asks may go away.
        let last = asked.insert(LastAsked {
            ts,
            is_silent: true,
        });
        let (answer, is_silent) = self.ask(server).await;
        last.is_silent = is_silent;
        let known = match answer {
            Some(answer) => self.learn(server, &place, &answer, ts).await?,
            None => known,
        };
        // What a notary has kept may be old; the server itself may tell more another time.
        let is_silent = is_silent && !enough(&known);
        Ok(had(known, is_silent))
    }

    /// The server's keys from itself, else from a notary; and whether the server itself gave no answer.
    async fn ask(&self, server: &ServerName) -> (Option<Answer>, bool) {
        let now = self.0.peers.now_ms();
        let said = self.0.peers.server_keys(server).await;
        let is_silent = said
            .as_ref()
            .is_err_and(|error| !error.is_answer() && !matches!(error, PeerError::Name));
        match said.map(|said| Answer::check(server, &said, now)) {
            Ok(Ok(answer)) => return (Some(answer), false),
            Ok(Err(error)) => tracing::info!(%server, %error, "keys that can't be used"),
            Err(error) => tracing::debug!(%server, %error, "no keys from the server itself"),
        }
        for notary in self.0.notaries.iter().filter(|notary| *notary != server) {
            match self.0.peers.notarised_keys(notary, server, now).await {
                Ok(answers) => {
                    let checked = answers
                        .iter()
                        .filter_map(|said| Answer::check(server, said.get().as_bytes(), now).ok());
                    let latest = checked.max_by_key(Answer::valid_until_ts);
                    if latest.is_some() {
                        return (latest, is_silent);
                    }
                }
                Err(error) => tracing::debug!(%notary, %error, "no keys from a notary"),
            }
        }
        (None, is_silent)
    }

    fn place(&self, server: &ServerName) -> Arc<Server> {
        let mut servers = self.0.servers.lock();
        if servers.len() >= KEPT && !servers.contains_key(server) {
            servers.retain(|_, place| Arc::strong_count(place) > 1);
        }
        servers.entry(server.to_owned()).or_default().clone()
    }

    async fn known(&self, server: &ServerName, place: &Server) -> Result<Arc<Known>, ReadError> {
        if let Some(known) = place.known.lock().clone() {
            return Ok(known);
        }
        let stored = self.stored(server).await?;
        let known = Arc::new(stored.map(|row| published(&row.keys)).unwrap_or_default());
        Ok(place.known.lock().get_or_insert(known).clone())
    }

    async fn stored(&self, server: &ServerName) -> Result<Option<KnownKeys>, ReadError> {
        let writer = self.0.tenant.lane(Home::Server(server.as_str()));
        let key = ServerKey(server.to_string());
        let row = writer.reader().get::<ServerKeys>(&key).await?;
        Ok(row.map(|row| row.value))
    }

    /// Keeps an answer. The caller holds the lock of who asks.
    async fn learn(
        &self,
        server: &ServerName,
        place: &Server,
        answer: &Answer,
        now: u64,
    ) -> Result<Arc<Known>, ReadError> {
        let mut keys = self.stored(server).await?.unwrap_or_default().keys;
        keys.retain(|key| answer.key(&key.key_id).is_none());
        // The latest first: what is beyond the bound is what mattered longest ago.
        keys.sort_by_key(|key| std::cmp::Reverse(key.ts));
        let now_known = answer.keys().map(|(key_id, key)| stored(key_id, key));
        let mut keys: Vec<KnownKey> = now_known.chain(keys).take(KEYS_OF_A_SERVER).collect();
        keys.sort_by(|one, other| one.key_id.cmp(&other.key_id));
        let known = Arc::new(published(&keys));
        *place.known.lock() = Some(known.clone());
        let row = KnownKeys {
            fetched_ts: now,
            valid_until_ts: answer.valid_until_ts(),
            keys,
            answer: answer.json().to_owned(),
        };
        if let Err(error) = self.keep(server, &row).await {
            // It is in memory; after a restart it is asked for again.
            tracing::warn!(%server, %error, "keys could not be stored");
        }
        Ok(known)
    }

    async fn keep(&self, server: &ServerName, row: &KnownKeys) -> Result<(), CommitError> {
        let writer = self.0.tenant.lane(Home::Server(server.as_str()));
        let mut batch = writer.batch();
        batch.put::<ServerKeys>(&ServerKey(server.to_string()), row);
        writer.append(batch).await.map(drop)
    }
}

/// One event's need: that one of these keys be good.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Wanted {
    ids: Vec<String>,
    ts: Option<i64>,
}

impl Wanted {
    fn is_met(&self, known: &Known) -> bool {
        let counts = |key: &PublishedKey| match self.ts {
            Some(ts) => key.counts(true, ts),
            None => key.counts(false, i64::MIN),
        };
        self.ids.is_empty() || self.ids.iter().filter_map(|id| known.get(id)).any(counts)
    }
}

fn stored(key_id: &str, key: PublishedKey) -> KnownKey {
    let (ts, old) = match key.validity {
        KeyValidity::Until(ts) => (ts, false),
        KeyValidity::Expired(ts) => (ts, true),
    };
    KnownKey {
        key_id: key_id.to_owned(),
        key: key.key.to_base64(),
        ts,
        old,
    }
}

/// Keys that have become known as weak since are left out.
fn published(keys: &[KnownKey]) -> Known {
    let keys = keys.iter().filter_map(|known| {
        let key = VerifyKey::parse(&known.key).ok()?;
        let validity = if known.old {
            KeyValidity::Expired(known.ts)
        } else {
            KeyValidity::Until(known.ts)
        };
        Some((known.key_id.clone(), PublishedKey { key, validity }))
    });
    keys.collect()
}
