//! Out of a device's queue, for its syncs.
//!
//! A message stays until its device syncs with a token that says it has it, so the same token gives the same messages again, and
//! none is given twice to who goes on.

use std::collections::HashMap;

use comity_protocol::id::UserId;
use comity_storage::{Home, KeyWriter, Pos, Range, ReadError, Reader, Row};
use parking_lot::Mutex;
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

use crate::{
    ToDevice,
    queue::of_device,
    tables::{InQueue, Message, Queued, Queues},
};

/// Messages in one answer, unless a single commit brought more: what a server sends in one transaction is at most two a device and EDU.
///
/// <https://spec.matrix.org/v1.19/client-server-api/#server-behaviour-5>
pub const MOST: usize = 100;
/// Messages removed by one sync at the most: the last answers had not more.
const REMOVED: usize = 500;
/// Devices remembered as having nothing; beyond, all are forgotten and looked at again.
const QUIET: usize = 100_000;

/// Devices for which there was nothing up to a position.
#[derive(Debug, Default)]
pub(crate) struct Quiet(Mutex<HashMap<(String, String), Pos>>);

impl Quiet {
    fn as_of(&self, user: &str, device: &str) -> Option<Pos> {
        let key = (user.to_owned(), device.to_owned());
        self.0.lock().get(&key).copied()
    }

    fn mark(&self, user: &str, device: &str, pos: Pos) {
        let mut devices = self.0.lock();
        let key = (user.to_owned(), device.to_owned());
        if devices.len() >= QUIET && !devices.contains_key(&key) {
            devices.clear();
        }
        devices.insert(key, pos);
    }
}

/// What a device is given.
#[derive(Debug)]
pub struct Delivery {
    /// The messages, oldest first.
    pub events: Vec<Box<RawValue>>,
    /// How far in the queue they go, as a position of the user's lane: whoever comes back with it has them.
    pub upto: Pos,
    /// Whether there are more.
    pub more: bool,
}

/// <https://spec.matrix.org/v1.19/client-server-api/#extensions-to-sync>
#[derive(Serialize)]
struct Event<'a> {
    sender: &'a str,
    #[serde(rename = "type")]
    event_type: &'a str,
    content: &'a RawValue,
}

impl ToDevice {
    /// The next messages to a device, up to the reader's heads; the device has those up to `since`, which are removed. `newest` is a
    /// position beyond which the user was sent nothing yet: where nothing has come since the last look, no row is read. There are
    /// `limit` of them at the most, and no more than [`MOST`]; more than `limit` only where one commit brought them.
    ///
    /// # Errors
    /// The store's.
    pub async fn deliver(
        &self,
        reader: &Reader,
        user: &UserId,
        device: &str,
        since: Pos,
        newest: Pos,
        limit: usize,
    ) -> Result<Delivery, ReadError> {
        let user = user.as_str();
        let limit = limit.clamp(1, MOST);
        let bound = reader.bound(Home::User(user));
        let since = since.min(bound);
        let nothing = Delivery {
            events: Vec::new(),
            upto: bound,
            more: false,
        };
        if self
            .0
            .quiet
            .as_of(user, device)
            .is_some_and(|quiet| newest <= quiet)
        {
            return Ok(nothing);
        }
        let after = |key: &mut KeyWriter| {
            key.u64(since.saturating_add(1));
        };
        let had = of_device(user, device).until(after).limit(REMOVED);
        let next = next_of(user, device, since);
        // Of what was removed last nothing is seen, though that may not be durable yet.
        let queues = self.0.tenant.lane(Home::User(user)).reader();
        let mut rows = queues.scan_many::<Queues>(vec![had, next]).await?;
        let mut next = rows.pop().unwrap_or_default();
        let had: Vec<InQueue> = rows.into_iter().flatten().map(|(key, _)| key).collect();
        let removed = self.remove(user, &had).await;
        next.retain(|(_, row)| row.pos <= bound);
        if next.is_empty() {
            if removed && had.len() < REMOVED {
                self.0.quiet.mark(user, device, bound);
            }
            return Ok(nothing);
        }
        delivery(&queues, (user, device), next, bound, limit).await
    }

    /// The next messages to a device after `since`, all of which stay: for who reads them in the device's stead.
    ///
    /// # Errors
    /// The store's.
    pub async fn peek(
        &self,
        user: &UserId,
        device: &str,
        since: Pos,
    ) -> Result<Delivery, ReadError> {
        let reader = self.0.tenant.reader();
        let bound = reader.bound(Home::User(user.as_str()));
        let next = next_of(user.as_str(), device, since.min(bound));
        let mut next = reader.scan::<Queues>(next).await?;
        next.retain(|(_, row)| row.pos <= bound);
        delivery(&reader, (user.as_str(), device), next, bound, MOST).await
    }

    /// Removes what a device has; whether nothing of it is left. What can't be removed now is with the next sync.
    async fn remove(&self, user: &str, had: &[InQueue]) -> bool {
        if had.is_empty() {
            return true;
        }
        let lane = self.0.tenant.lane(Home::User(user));
        let mut batch = lane.batch();
        for key in had {
            batch.delete::<Queues>(key);
        }
        // Nobody has to wait for the disk: a token at hand says that they are had.
        match lane.append(batch).await {
            Ok(_) => true,
            Err(error) => {
                tracing::debug!(%error, "messages that a device has could not be removed yet");
                false
            }
        }
    }
}

/// What one commit put into a device's queue.
fn of_commit(user: &str, device: &str, pos: Pos) -> Range {
    let at = |pos: Pos| {
        move |key: &mut KeyWriter| {
            key.u64(pos);
        }
    };
    let queue = of_device(user, device);
    queue.from(at(pos)).until(at(pos.saturating_add(1)))
}

/// One more than an answer has room for of what comes after a position.
fn next_of(user: &str, device: &str, since: Pos) -> Range {
    let after = |key: &mut KeyWriter| {
        key.u64(since.saturating_add(1));
    };
    of_device(user, device).from(after).limit(MOST + 1)
}

/// What there is room for. What one commit brought is not split: the token could not say where.
async fn delivery(
    reader: &Reader,
    (user, device): (&str, &str),
    mut next: Vec<(InQueue, Row<Queued<Message>>)>,
    bound: Pos,
    limit: usize,
) -> Result<Delivery, ReadError> {
    let mut more = next.len() > MOST;
    let mut upto = bound;
    if more {
        let last = next.last().map_or(0, |(_, row)| row.pos);
        next.retain(|(_, row)| row.pos < last);
        if next.is_empty() {
            next = reader.scan::<Queues>(of_commit(user, device, last)).await?;
        }
        upto = next.last().map_or(bound, |(_, row)| row.pos);
    }
    if let Some(beyond) = next.get(limit).map(|(_, row)| row.pos) {
        let first = next.first().map_or(beyond, |(_, row)| row.pos);
        next.retain(|(_, row)| row.pos < beyond || row.pos == first);
        upto = next.last().map_or(bound, |(_, row)| row.pos);
        more = true;
    }
    let events = next.iter().filter_map(|(_, row)| event(&row.value.item));
    Ok(Delivery {
        events: events.collect(),
        upto,
        more,
    })
}

fn event(message: &Message) -> Option<Box<RawValue>> {
    let content = serde_json::from_str(&message.content).ok()?;
    let event = Event {
        sender: &message.sender,
        event_type: &message.event_type,
        content,
    };
    to_raw_value(&event).ok()
}
