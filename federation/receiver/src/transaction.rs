//! `/send`: up to 50 events and 100 EDUs of one server.
//!
//! A transaction is answered once its events are durable; what they come to is found out later. The
//! same transaction again has the same answer and does nothing. What is wrong with one event is told
//! for that event, the others go on (threat A1).
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#put_matrixfederationv1sendtxnid>

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use comity_protocol::{
    event::{Limits, Signed},
    id::{OwnedEventId, OwnedRoomId, RoomId, ServerName, UserId},
};
use comity_rooms::{RoomError, RoomView};
use comity_storage::{CommitError, Expect, Home, ReadError, RoomKey};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use crate::{
    Inner, Receiver,
    checks::PduError,
    entering::Place,
    tables::{Answered, Line, Recent, Server, Transactions},
};

/// Events in a transaction at the most.
pub const MAX_PDUS: usize = 50;
/// EDUs in a transaction at the most.
pub const MAX_EDUS: usize = 100;
/// Answers remembered a server: it has one transaction in flight.
const REMEMBERED: usize = 4;

/// A transaction was refused as a whole.
#[derive(Debug, thiserror::Error)]
pub enum TransactionError {
    /// It has more events or EDUs than it may (`M_TOO_LARGE`).
    #[error("a transaction has at most 50 PDUs and 100 EDUs")]
    TooMany,
    /// Its events can't be checked now (503).
    #[error("the server is busy")]
    Busy,
    /// The rooms failed.
    #[error(transparent)]
    Room(#[from] RoomError),
    /// The store could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// What came in could not be kept.
    #[error(transparent)]
    Commit(#[from] CommitError),
}

/// The parts of a transaction's body that count. Its `origin` is said by the request's signature.
#[derive(Debug, Deserialize)]
pub struct Transaction {
    /// Events, 50 at the most.
    #[serde(default)]
    pub pdus: Vec<Box<RawValue>>,
    /// What isn't kept, 100 at the most.
    #[serde(default)]
    pub edus: Vec<Box<RawValue>>,
}

/// What became of each event.
#[derive(Serialize)]
struct Answer<'a> {
    pdus: BTreeMap<&'a OwnedEventId, Verdict<'a>>,
}

#[derive(Serialize)]
struct Verdict<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
}

/// Events, with what is wrong with each, if anything is.
pub(crate) type Results = BTreeMap<OwnedEventId, Option<String>>;

impl Receiver {
    /// Takes a transaction of a server whose request was signed by it; the answer's body.
    ///
    /// # Errors
    /// [`TransactionError`]; the sender is to repeat it as it is.
    pub async fn transaction(
        &self,
        origin: &ServerName,
        txn_id: &str,
        body: Transaction,
    ) -> Result<String, TransactionError> {
        if body.pdus.len() > MAX_PDUS || body.edus.len() > MAX_EDUS {
            return Err(TransactionError::TooMany);
        }
        let inner = &self.0;
        let _turn = inner.turns.turn(origin).await;
        let txn: [u8; 32] = Sha256::digest(txn_id).into();
        let recent = inner.recent(origin).await?;
        if let Some(done) = recent.1.0.iter().find(|answered| answered.txn == txn) {
            return Ok(done.answer.clone());
        }
        // Before the events: a key comes no later than what it opens.
        let edus = inner.messages(origin, body.edus).await?;
        let (results, lines) = inner.stage(origin, body.pdus).await?;
        let news = lines.iter().map(|line| line.room).collect();
        inner.waiting.heard_from(origin, &news);
        inner.edus(origin, edus, &lines).await?;
        let pdus = results.iter().map(|(id, error)| {
            let error = error.as_deref();
            (id, Verdict { error })
        });
        let answer = Answer {
            pdus: pdus.collect(),
        };
        // Ids and texts can always be written.
        let answer = serde_json::to_string(&answer).unwrap_or_default();
        let answered = Answered {
            txn,
            answer: answer.clone(),
        };
        inner.remember(origin, recent, answered).await?;
        Ok(answer)
    }
}

impl Inner {
    /// The last transactions of a server, with what a change of them rests on.
    async fn recent(&self, origin: &ServerName) -> Result<(Expect, Recent), ReadError> {
        let name = origin.to_string();
        let row = self.rooms.tenant().reader();
        let row = row.get::<Transactions>(&Server { name }).await?;
        Ok(row.map_or((Expect::Absent, Recent::default()), |row| {
            (Expect::At(row.pos), row.value)
        }))
    }

    async fn remember(
        &self,
        origin: &ServerName,
        (expect, mut recent): (Expect, Recent),
        answered: Answered,
    ) -> Result<(), CommitError> {
        recent.0.push(answered);
        let excess = recent.0.len().saturating_sub(REMEMBERED);
        recent.0.drain(..excess);
        let name = origin.to_string();
        let lane = self.rooms.tenant().lane(Home::Server(&name));
        let mut batch = lane.batch();
        let key = Server { name: name.clone() };
        batch
            .expect::<Transactions>(&key, expect)
            .put::<Transactions>(&key, &recent);
        lane.commit(batch).await.map(drop)
    }

    /// Puts events into their rooms' lines; what became of each, and the lines.
    pub(crate) async fn stage(
        self: &Arc<Self>,
        origin: &ServerName,
        pdus: Vec<Box<RawValue>>,
    ) -> Result<(Results, BTreeSet<Line>), TransactionError> {
        let mut by_room: BTreeMap<OwnedRoomId, Vec<Box<RawValue>>> = BTreeMap::new();
        for pdu in pdus {
            if let Some(room_id) = room_of(&pdu) {
                by_room.entry(room_id).or_default().push(pdu);
            }
        }
        let (mut results, mut lines) = (Results::new(), BTreeSet::new());
        for (room_id, pdus) in by_room {
            let mut place = None;
            let line = self.stage_in(origin, &room_id, pdus, &mut results, &mut place);
            lines.extend(line.await?);
        }
        Ok((results, lines))
    }

    /// Puts events into their room's line, if it is one; those of a room that is being entered are held, in `place` if they have one
    /// already.
    pub(crate) async fn stage_in(
        self: &Arc<Self>,
        origin: &ServerName,
        room_id: &RoomId,
        mut pdus: Vec<Box<RawValue>>,
        results: &mut Results,
        place: &mut Option<Place>,
    ) -> Result<Option<Line>, TransactionError> {
        let entering = self.fetcher.entering.end_of(room_id);
        let view = match self.rooms.view(room_id).await {
            Ok(view) => Some(view),
            Err(RoomError::UnknownRoom) => None,
            Err(error) => return Err(error.into()),
        };
        let is_inside = view
            .as_ref()
            .is_some_and(|view| view.head().mode.takes_part());
        if !is_inside {
            pdus = self.beside(room_id, pdus, results).await?;
        }
        let Some(view) = view.filter(|view| view.head().is_heard()) else {
            self.stage_later(origin, room_id, entering, pdus, place);
            return Ok(None);
        };
        let (signed, mut room_results) = self.checked(origin, &view, pdus).await?;
        let mut line = None;
        if !signed.is_empty() {
            let ids = signed
                .iter()
                .map(|event| event.event().event_id().to_owned());
            let ids: Vec<OwnedEventId> = ids.collect();
            let put = self.staging.put(room_id, origin, signed).await?;
            let of_room = Line {
                room: RoomKey::of(room_id.as_str()),
                origin: origin.to_owned(),
            };
            if put.begun {
                self.begin(of_room.clone());
            }
            line = Some(of_room);
            for id in ids.into_iter().skip(put.taken) {
                room_results.insert(id, Some("too much of this room waits here".to_owned()));
            }
        }
        results.append(&mut room_results);
        Ok(line)
    }

    /// Takes events of a room that this server isn't in: such an event may take back an invite of a
    /// user of ours. Answers those that don't. Of a room that isn't heard not even their ids can be told.
    async fn beside(
        &self,
        room_id: &RoomId,
        pdus: Vec<Box<RawValue>>,
        results: &mut Results,
    ) -> Result<Vec<Box<RawValue>>, RoomError> {
        let reader = self.rooms.tenant().reader();
        let mut others = Vec::new();
        for pdu in pdus {
            let user = member(&pdu, "state_key").and_then(|key| UserId::parse(key).ok());
            let row = match user {
                Some(user) => self.rooms.out_of_band(&reader, &user, room_id).await?,
                None => None,
            };
            let version = row.and_then(|row| row.version());
            let mut is_taken = false;
            if let Some(version) = version {
                let checks = &self.fetcher.checks;
                let signed = checks
                    .signed(version, room_id, Limits::New, vec![pdu.clone()])
                    .await;
                for event in signed {
                    is_taken = self.rooms.rescind(&event).await?;
                    let error = (!is_taken).then(|| "this server is not in the room".to_owned());
                    results.insert(event.event().event_id().to_owned(), error);
                }
            }
            if !is_taken {
                others.push(pdu);
            }
        }
        Ok(others)
    }

    /// The events of a room that passed the checks, and what is told of each event.
    async fn checked(
        &self,
        origin: &ServerName,
        view: &RoomView,
        pdus: Vec<Box<RawValue>>,
    ) -> Result<(Vec<Signed>, Results), TransactionError> {
        let mut results = Results::new();
        let parsed = self
            .fetcher
            .checks
            .parse(view.version(), view.room_id(), Limits::New, pdus)
            .await;
        let mut events = Vec::with_capacity(parsed.len());
        for event in parsed {
            match event {
                Ok(event) => events.push(event),
                // What is answered isn't sent again.
                Err(PduError::Busy) => return Err(TransactionError::Busy),
                Err(error) => tracing::debug!(%origin, %error, "event dropped"),
            }
        }
        let ids: Vec<OwnedEventId> = events
            .iter()
            .map(|event| event.event().event_id().to_owned())
            .collect();
        if !view.lets_in(origin).await? {
            let refused = || Some("the server is shut out of the room".to_owned());
            results.extend(ids.into_iter().map(|id| (id, refused())));
            return Ok((Vec::new(), results));
        }
        let mut signed = Vec::with_capacity(events.len());
        for (id, event) in ids
            .into_iter()
            .zip(self.fetcher.checks.verify(events).await)
        {
            let error = event.map(|event| signed.push(event)).err();
            if matches!(error, Some(PduError::Busy)) {
                return Err(TransactionError::Busy);
            }
            results.insert(id, error.as_ref().map(PduError::to_string));
        }
        Ok((signed, results))
    }
}

/// The room that an event says it is of.
fn room_of(pdu: &RawValue) -> Option<OwnedRoomId> {
    RoomId::parse(member(pdu, "room_id")?).ok()
}

/// A string of an event that isn't read yet. Of keys that come twice the last one counts, as it does
/// when the event is read.
fn member(pdu: &RawValue, key: &str) -> Option<String> {
    let members: BTreeMap<String, &RawValue> = serde_json::from_str(pdu.get()).ok()?;
    serde_json::from_str(members.get(key)?.get()).ok()
}
