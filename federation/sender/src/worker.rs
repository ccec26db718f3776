//! One server's worker: takes from the queue, sends, waits while the server doesn't answer.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use comity_federation_client::{
    PeerError, TransportError,
    peers::{Transaction, TransactionAnswer},
};
use comity_keys::KeysError;
use comity_protocol::id::{OwnedRoomId, RoomId};
use comity_rooms::{RoomError, num::EventNum, tables::Verdict};
use comity_storage::CommitError;
use comity_to_device::OnTheirWay;
use serde_json::{
    Value, json,
    value::{RawValue, to_raw_value},
};

use crate::{
    Destination, Held, Inner,
    lists::{Due, DueLists, LIST_EDUS},
    queue::{Batch, EDUS, raw},
};

/// Who hasn't answered for so long is behind: what is newest matters then, and the order of the rest
/// need not be kept in memory.
const PATIENCE: Duration = Duration::from_secs(60);
/// Messages to the devices of a server that hasn't answered for so long are dropped: it may never have been there.
const GIVEN_UP: Duration = Duration::from_secs(14 * 24 * 60 * 60);
/// After a fault of our own.
const AGAIN: Duration = Duration::from_secs(5);
/// A server that answers and shuts us out is asked again after the first of these, then twice as long
/// each time, up to the last.
const SHUT_OUT: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(60 * 60));

/// Sends until there is nothing left, or no sender.
pub(crate) async fn run(held: Held, destination: Arc<Destination>) {
    let mut shut_out = SHUT_OUT.0;
    loop {
        let Some(inner) = held.upgrade() else { return };
        if let Some(wait) = inner.wait(&destination).await {
            drop(inner);
            destination.left_alone.store(true, Ordering::Relaxed);
            destination.rest(wait).await;
            destination.left_alone.store(false, Ordering::Relaxed);
            continue;
        }
        let Ok(turn) = inner.sending.acquire().await else {
            return;
        };
        let mut batch = destination.queue.lock().next();
        let delivered = inner.deliver(&destination, &mut batch).await;
        drop(turn);
        let mut rest = None;
        match delivered {
            Ok(()) => {
                destination.queue.lock().done(&batch);
                shut_out = SHUT_OUT.0;
            }
            Err(failure) => {
                destination.queue.lock().failed(batch);
                rest = inner.failed(&destination, &failure, &mut shut_out).await;
            }
        }
        if destination.queue.lock().ends() {
            return;
        }
        drop(inner);
        if let Some(rest) = rest {
            destination.rest(rest).await;
        }
    }
}

impl Destination {
    /// Waits so long, unless there is a reason to try at once. Nothing is held meanwhile: the sender
    /// may end.
    async fn rest(&self, time: Duration) {
        drop(tokio::time::timeout(time, self.wake.notified()).await);
    }
}

/// Why a batch isn't delivered yet.
#[derive(Debug)]
enum Failure {
    /// The server doesn't answer, or doesn't talk to us.
    Peer(PeerError),
    /// The events can't be read.
    Rooms(RoomError),
    /// The device lists can't be read.
    Keys(KeysError),
    /// The messages to devices can't be read or removed.
    Messages(CommitError),
}

impl Inner {
    /// Delivers a batch, with the messages to devices that wait for the server; what it refuses for good is left out (threat F11).
    async fn deliver(&self, destination: &Destination, batch: &mut Batch) -> Result<(), Failure> {
        // After the events were taken from the queue: the messages that were there before them are among these.
        let messages = if batch.messages {
            let most = EDUS - LIST_EDUS;
            let found = self.to_device.for_server(&destination.name, most).await;
            found.map_err(|error| Failure::Messages(error.into()))?
        } else {
            OnTheirWay::default()
        };
        let mut durable = messages.edus.clone();
        let lists = self.list_edus(&batch.lists).await;
        durable.extend(lists.map_err(Failure::Keys)?);
        let left = EDUS.saturating_sub(durable.len());
        destination.queue.lock().fill(batch, left);
        let pdus = self.load(&batch.events).await.map_err(Failure::Rooms)?;
        self.hand_over(destination, &pdus, &durable, &batch.edus.write())
            .await
            .map_err(Failure::Peer)?;
        batch.more = messages.more;
        let taken = self.to_device.taken(&destination.name, messages);
        taken.await.map_err(Failure::Messages)
    }

    /// Hands everything over at once; where something of it is refused, what must arrive one by one.
    async fn hand_over(
        &self,
        destination: &Destination,
        pdus: &[Box<RawValue>],
        durable: &[Box<RawValue>],
        ephemeral: &[Box<RawValue>],
    ) -> Result<(), PeerError> {
        let edus: Vec<Box<RawValue>> = durable.iter().chain(ephemeral).cloned().collect();
        if pdus.is_empty() && edus.is_empty() {
            return Ok(());
        }
        let Err(refused) = self.send(destination, pdus, &edus).await else {
            return Ok(());
        };
        if !is_about_its_content(&refused) {
            return Err(refused);
        }
        // Something in it is refused: each message and event goes by itself, so that one doesn't hold up the rest.
        let durable = durable.chunks(1).map(|edu| (&[][..], edu));
        for (pdu, edu) in durable.chain(pdus.chunks(1).map(|pdu| (pdu, &[][..]))) {
            match self.send(destination, pdu, edu).await {
                Ok(_) => {}
                Err(error) if is_about_its_content(&error) => {
                    self.parked.fetch_add(1, Ordering::Relaxed);
                    tracing::warn!(server = %destination.name, %error, "an event is refused for good");
                }
                Err(error) => return Err(error),
            }
        }
        if pdus.len() + edus.len() > ephemeral.len() && !ephemeral.is_empty() {
            match self.send(destination, &[], ephemeral).await {
                Err(error) if !is_about_its_content(&error) => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    async fn send(
        &self,
        destination: &Destination,
        pdus: &[Box<RawValue>],
        edus: &[Box<RawValue>],
    ) -> Result<TransactionAnswer, PeerError> {
        let number = self.transactions.fetch_add(1, Ordering::Relaxed);
        let transaction = Transaction {
            origin: self.rooms.server_name(),
            origin_server_ts: self.runtime.clock().now_ms(),
            pdus,
            edus,
        };
        let id = format!("{}{number}", self.run);
        match self
            .peers
            .send_transaction(&destination.name, &id, &transaction)
            .await
        {
            // It was taken, with many words.
            Err(PeerError::Unreachable(TransportError::TooLarge)) => {
                Ok(TransactionAnswer::default())
            }
            answer => answer,
        }
    }

    /// How long the server isn't to be asked.
    async fn wait(&self, destination: &Destination) -> Option<Duration> {
        match self.peers.backoff().until(&destination.name).await {
            Ok(until) => {
                let now = self.runtime.clock().now_ms();
                until.map(|until| Duration::from_millis(until.saturating_sub(now)))
            }
            Err(error) => {
                tracing::warn!(server = %destination.name, %error, "a back-off can't be read");
                Some(AGAIN)
            }
        }
    }

    /// How long to wait after a failure, beside the server's back-off.
    async fn failed(
        &self,
        destination: &Destination,
        failure: &Failure,
        shut_out: &mut Duration,
    ) -> Option<Duration> {
        let server = &destination.name;
        match failure {
            Failure::Rooms(error) => {
                tracing::warn!(%server, %error, "events to be sent can't be read");
                return Some(AGAIN);
            }
            Failure::Keys(error) => {
                tracing::warn!(%server, %error, "device lists to be sent can't be read");
                return Some(AGAIN);
            }
            Failure::Messages(error) => {
                tracing::warn!(%server, %error, "messages to be sent can't be read or removed");
                return Some(AGAIN);
            }
            Failure::Peer(PeerError::Store(error)) => {
                tracing::warn!(%server, %error, "a back-off can't be kept");
                return Some(AGAIN);
            }
            Failure::Peer(error) => tracing::debug!(%server, %error, "not delivered"),
        }
        let backoff = self.peers.backoff();
        let since = backoff.failing_since(server).await.ok().flatten();
        let Some(since) = since else {
            if let Failure::Peer(PeerError::Unreachable(_) | PeerError::BackingOff) = failure {
                // It has answered somebody else in the meantime.
                return Some(AGAIN);
            }
            // It answers, and shuts us out.
            destination.queue.lock().fall_behind();
            let jitter = self.runtime.random().below(millis(*shut_out));
            let wait = *shut_out / 2 + Duration::from_millis(jitter);
            *shut_out = (*shut_out * 2).min(SHUT_OUT.1);
            return Some(wait);
        };
        let silent = self.runtime.clock().now_ms().saturating_sub(since);
        if silent >= millis(PATIENCE) {
            destination.queue.lock().fall_behind();
        }
        if silent >= millis(GIVEN_UP)
            && let Err(error) = self.to_device.give_up(server).await
        {
            tracing::warn!(%server, %error, "messages that nobody takes can't be removed");
        }
        None
    }

    /// Device lists as they go onto the wire, by what they are now.
    ///
    /// <https://spec.matrix.org/v1.19/server-server-api/#device-management>
    async fn list_edus(&self, lists: &DueLists) -> Result<Vec<Box<RawValue>>, KeysError> {
        let mut edus = Vec::new();
        let mut edu = |edu_type: &str, content: Value| {
            edus.extend(to_raw_value(
                &json!({ "edu_type": edu_type, "content": content }),
            ));
        };
        for (user, due) in lists {
            let user = user.as_str();
            let (updates, cross_signing) = match due {
                Due::Changes(due) => (due.updates.clone(), due.cross_signing),
                Due::Latest(_) => (
                    self.keys.latest_update(user).await?.into_iter().collect(),
                    true,
                ),
            };
            for update in &updates {
                let content = self.keys.update_of(user, update).await?;
                edu("m.device_list_update", content);
            }
            if cross_signing && let Some(content) = self.keys.signing_update_of(user).await? {
                edu("m.signing_key_update", content);
            }
        }
        Ok(edus)
    }

    /// The events as they go onto the wire; those that are no part of their room any more are left out.
    async fn load(&self, events: &[(OwnedRoomId, u32)]) -> Result<Vec<Box<RawValue>>, RoomError> {
        let mut pdus = Vec::with_capacity(events.len());
        // Neighbours of one room are read together.
        for run in events.chunk_by(|(one, _), (other, _)| one == other) {
            let Some((room_id, _)) = run.first() else {
                continue;
            };
            let nums: Vec<EventNum> = run.iter().map(|(_, num)| EventNum(*num)).collect();
            pdus.extend(self.load_of(room_id, &nums).await?);
        }
        Ok(pdus)
    }

    async fn load_of(
        &self,
        room_id: &RoomId,
        nums: &[EventNum],
    ) -> Result<Vec<Box<RawValue>>, RoomError> {
        let view = match self.rooms.view(room_id).await {
            // Purged since.
            Err(RoomError::UnknownRoom) => return Ok(Vec::new()),
            view => view?,
        };
        let found = view.load(nums).await?.into_iter();
        let accepted = found.filter(|found| found.status.verdict == Verdict::Accepted);
        Ok(accepted
            .filter_map(|found| raw(found.event.json()))
            .collect())
    }
}

/// Whether a refusal is about what was sent, rather than about us or the server's state.
fn is_about_its_content(error: &PeerError) -> bool {
    error.refusal().is_some_and(|refusal| {
        (400..500).contains(&refusal.status)
            && !matches!(refusal.status, 401 | 403 | 404 | 408 | 429)
    })
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
