//! The checks that every event from outside passes before the rooms' door, by whichever way it
//! comes: its format, its room, its signatures, its hash.
//!
//! They are the first three of
//! <https://spec.matrix.org/v1.19/server-server-api/#checks-performed-on-receipt-of-a-pdu>; the door
//! takes nothing that hasn't passed them ([`Signed`]).

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use comity_federation_client::Keyring;
use comity_protocol::{
    canonical::members,
    event::{Event, FormatError, Limits, Signed, WellFormed},
    id::{OwnedServerName, RoomId, ServerName},
    room_version::RoomVersion,
    sign::{SignatureError, VerifyKey, verify_json},
};
use comity_runtime::{Pool, Runtime};
use comity_storage::ReadError;
use comity_to_device::Servers;
use futures_util::{StreamExt, stream};
use serde_json::value::RawValue;

/// Events checked in one piece of work: a few milliseconds.
const CHUNK: usize = 32;
/// Pieces of work that may wait; beyond it the load is shed.
const WAITING: usize = 4_096;

/// Keys of one server looked up for one signature.
const MAX_KEYS: usize = 8;

/// Why an event was dropped.
#[derive(Debug, Clone, thiserror::Error)]
pub enum PduError {
    /// It is no event of the room's version.
    #[error("no event of this room's version: {0}")]
    Format(#[from] FormatError),
    /// It belongs to another room.
    #[error("the event is of another room")]
    OtherRoom,
    /// A server that must have signed it hasn't.
    #[error(transparent)]
    Signature(#[from] SignatureError),
    /// A server that signed it doesn't tell its keys now, since it gives no answer: it may be checked another time.
    #[error("the keys of {0} can't be had now")]
    Unheard(OwnedServerName),
    /// Too much is waiting to be checked, or the keys that are known can't be read.
    #[error("the server is busy")]
    Busy,
}

/// What came of checking events.
#[derive(Debug, Default)]
pub struct Checked {
    /// Those that passed.
    pub signed: Vec<Signed>,
    /// Those that may pass another time, each with the server that gave no answer when it was asked for the key by which it signed.
    pub unheard: Vec<(Event, OwnedServerName)>,
    /// Some weren't looked at, for there was too much to do.
    pub is_busy: bool,
}

/// Checks events. Cheap to clone.
#[derive(Clone)]
pub struct Checks {
    pub(crate) keyring: Keyring,
    pub(crate) pool: Pool,
    /// Pieces of work that one caller has in the pool at a time: what is much is slower, not shed.
    pub(crate) at_once: usize,
}

impl Checks {
    /// Checks with the keys that this ring knows or can get.
    pub fn new(keyring: Keyring, runtime: &Runtime) -> Self {
        let workers = std::thread::available_parallelism().map_or(1, usize::from);
        let pool = runtime.pool("event checks", workers, WAITING);
        Self {
            keyring,
            pool,
            at_once: 2 * workers,
        }
    }

    /// Reads events of a room, each for itself: what isn't one is answered with the reason.
    pub async fn parse(
        &self,
        version: RoomVersion,
        room_id: &RoomId,
        limits: Limits,
        pdus: Vec<Box<RawValue>>,
    ) -> Vec<Result<WellFormed, PduError>> {
        let room_id = room_id.to_owned();
        self.in_chunks(pdus, move |pdu| {
            let event = WellFormed::parse(version, pdu.get().as_bytes(), limits)?;
            if event.event().room_id() == room_id {
                Ok(event)
            } else {
                Err(PduError::OtherRoom)
            }
        })
        .await
    }

    /// Checks the signatures of events and their hashes, each for itself. Keys that aren't known
    /// are fetched first.
    pub async fn verify(&self, events: Vec<WellFormed>) -> Vec<Result<Signed, PduError>> {
        let keys = match self.keyring.keys_for(&events).await {
            Ok(keys) => keys,
            Err(error) => {
                tracing::warn!(%error, "keys could not be read");
                return events.iter().map(|_| Err(PduError::Busy)).collect();
            }
        };
        self.in_chunks(events, move |event| {
            event.verify(&keys).map_err(|error| match &error {
                SignatureError::UnknownKey(server) => match keys.silent(server) {
                    Some(server) => PduError::Unheard(server.to_owned()),
                    None => error.into(),
                },
                _ => error.into(),
            })
        })
        .await
    }

    /// What of these is a signed event of the room; the rest is dropped and said so.
    pub async fn signed(
        &self,
        version: RoomVersion,
        room_id: &RoomId,
        limits: Limits,
        pdus: Vec<Box<RawValue>>,
    ) -> Vec<Signed> {
        let checked = self.checked(version, room_id, limits, pdus);
        checked.await.signed
    }

    /// What of these is a signed event of the room, and what can't be told yet for want of keys; the rest is
    /// dropped and said so.
    pub async fn checked(
        &self,
        version: RoomVersion,
        room_id: &RoomId,
        limits: Limits,
        pdus: Vec<Box<RawValue>>,
    ) -> Checked {
        let parsed = self.parse(version, room_id, limits, pdus).await;
        let is_busy = |error: Option<&PduError>| matches!(error, Some(PduError::Busy));
        let mut checked = Checked {
            is_busy: parsed.iter().any(|parsed| is_busy(parsed.as_ref().err())),
            ..Checked::default()
        };
        let events: Vec<WellFormed> = parsed.into_iter().filter_map(or_dropped).collect();
        let read: Vec<Event> = events.iter().map(|event| event.event().clone()).collect();
        for (event, verified) in read.into_iter().zip(self.verify(events).await) {
            if let Err(PduError::Unheard(server)) = &verified {
                checked.unheard.push((event, server.clone()));
            }
            checked.is_busy |= is_busy(verified.as_ref().err());
            checked.signed.extend(or_dropped(verified));
        }
        checked
    }

    /// An event of ours as another server gives it back, now signed by `server` too: nothing else of
    /// it may differ. `None` where it does, or isn't signed.
    pub async fn countersigned(
        &self,
        ours: &Event,
        answered: &RawValue,
        server: &ServerName,
    ) -> Option<Signed> {
        let json = answered.get().as_bytes();
        let event = WellFormed::parse(ours.version(), json, Limits::New).ok()?;
        let theirs = event.event();
        if !is_same_but_signatures(ours.json(), theirs.json()) {
            return None;
        }
        // Signatures cover what redaction leaves.
        let signed = theirs.redact();
        let keys = self.keys_that_signed(signed.json(), server).await;
        verify_json(signed.json(), server.as_str(), |id| keys.get(id).copied()).ok()?;
        self.verify(vec![event]).await.pop()?.ok()
    }

    /// The keys by which a server says to have signed an object, as far as it publishes them.
    async fn keys_that_signed(
        &self,
        canonical: &str,
        server: &ServerName,
    ) -> BTreeMap<String, VerifyKey> {
        let signatures = members(canonical).get("signatures").unwrap_or("{}");
        let signatures = members(signatures).get(server.as_str()).unwrap_or("{}");
        let mut keys = BTreeMap::new();
        for (id, _) in members(signatures).take(MAX_KEYS) {
            if let Ok(Some(published)) = self.keyring.key(server, id).await {
                keys.insert(id.to_owned(), published.key);
            }
        }
        keys
    }

    /// Runs `check` over all of `items` on the pool, a chunk at a time.
    async fn in_chunks<T, U, F>(&self, items: Vec<T>, check: F) -> Vec<Result<U, PduError>>
    where
        T: Send + 'static,
        U: Send + 'static,
        F: Fn(T) -> Result<U, PduError> + Send + Sync + 'static,
    {
        let check = Arc::new(check);
        let mut items = items.into_iter();
        let mut chunks = Vec::new();
        loop {
            let chunk: Vec<T> = items.by_ref().take(CHUNK).collect();
            if chunk.is_empty() {
                break;
            }
            let check = check.clone();
            chunks.push(async move {
                let count = chunk.len();
                let work = move || chunk.into_iter().map(&*check).collect::<Vec<_>>();
                match self.pool.run(work).await {
                    Ok(results) => results,
                    Err(_) => (0..count).map(|_| Err(PduError::Busy)).collect(),
                }
            });
        }
        let results: Vec<_> = stream::iter(chunks).buffered(self.at_once).collect().await;
        results.into_iter().flatten().collect()
    }
}

fn is_same_but_signatures(one: &str, other: &str) -> bool {
    let without = |json| members(json).filter(|(key, _)| *key != "signatures");
    without(one).eq(without(other))
}

pub(crate) fn or_dropped<T>(result: Result<T, PduError>) -> Option<T> {
    result
        .inspect_err(|error| tracing::debug!(%error, "event dropped"))
        .ok()
}

/// Who can tell their keys is there.
#[async_trait]
impl Servers for Checks {
    async fn strangers(&self, servers: &[&ServerName]) -> Result<usize, ReadError> {
        self.keyring.strangers(servers).await
    }
}
