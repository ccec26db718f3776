//! How far the logs were dispatched, and who is owed what: saved each second, loaded at the start.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use comity_protocol::id::{OwnedServerName, OwnedUserId};
use comity_storage::{
    Batch, CommitError, Consumer, Heads, Home, Lane, Pos, Range, RoomKey, Slot, Tenant,
};

use crate::{
    Destination, Held, Inner,
    tables::{Cursor, Cursors, LaneKey, OwedEvents, OwedLists, Owes, ServerRoom, ServerUser},
};

const EACH: Duration = Duration::from_secs(1);
/// How often those are forgotten that didn't answer and that nobody asks.
const TEND: Duration = Duration::from_secs(60 * 60);
/// A cursor is saved when something was to be sent since, or after so much else: saving moves the log
/// as well, and would keep itself busy for ever.
const MOVED: Pos = 1_000;

/// What servers are owed by rows.
#[derive(Default)]
pub(crate) struct Owed {
    pub events: Vec<(OwnedServerName, RoomKey, OwedEvents)>,
    pub lists: Vec<(OwnedServerName, OwnedUserId)>,
}

/// Where the last run stopped. A lane that was never dispatched begins where it stands.
pub(crate) async fn load(tenant: &Tenant) -> Result<(Heads, Owed), CommitError> {
    let mut cursor = tenant.heads();
    let reader = tenant.reader();
    for lane in tenant.lanes().all() {
        let key = LaneKey(lane.0);
        match reader.get::<Cursors>(&key).await? {
            Some(row) => cursor = cursor.with(lane, row.value.pos),
            None => {
                let pos = cursor.get(lane);
                commit(tenant, lane, |batch| {
                    batch.put::<Cursors>(&key, &Cursor { pos });
                })
                .await?;
            }
        }
    }
    let rows = reader.scan::<Owes>(Range::everywhere(|_| {})).await?;
    let events = rows.into_iter().filter_map(|(key, row)| {
        let server = OwnedServerName::try_from(key.server).ok()?;
        Some((server, key.room, row.value))
    });
    let rows = reader.scan::<OwedLists>(Range::everywhere(|_| {})).await?;
    let lists = rows.into_iter().filter_map(|(key, _)| {
        let server = OwnedServerName::try_from(key.server).ok()?;
        Some((server, OwnedUserId::try_from(key.user).ok()?))
    });
    let owed = Owed {
        events: events.collect(),
        lists: lists.collect(),
    };
    Ok((cursor, owed))
}

/// Saves each second, as long as there is a sender.
pub(crate) async fn save(held: Held) {
    loop {
        tokio::time::sleep(EACH).await;
        let Some(inner) = held.upgrade() else { return };
        if let Err(error) = inner.save(MOVED).await {
            tracing::warn!(%error, "the progress of federation could not be saved");
        }
    }
}

/// Forgets now and then who didn't answer and isn't wanted, as long as there is a sender.
pub(crate) async fn tend(held: Held) {
    loop {
        tokio::time::sleep(TEND).await;
        let Some(inner) = held.upgrade() else { return };
        if let Err(error) = inner.peers.backoff().tend().await {
            tracing::warn!(%error, "servers that don't answer could not be forgotten");
        }
    }
}

/// What one lane's batch changes.
#[derive(Default)]
struct Changes {
    rows: Vec<(Arc<Destination>, RoomKey, Option<OwedEvents>)>,
    lists: Vec<(Arc<Destination>, OwnedUserId, bool)>,
}

#[async_trait]
impl Consumer for Inner {
    async fn done(&self) -> Result<Heads, CommitError> {
        self.save(1).await
    }
}

impl Inner {
    /// Saves the cursors that have come further by something to be sent, or by so much else; where they
    /// are then.
    async fn save(&self, moved: Pos) -> Result<Heads, CommitError> {
        let mut saved = self.saved.lock().await;
        // Taken first: whatever was dispatched up to here is in a queue, or was sent.
        let mut cursor = self.dispatched.lock().clone();
        let touched = std::mem::take(&mut *self.touched.lock());
        let lanes: Vec<Lane> = self.tenant.lanes().all().collect();
        let mut changes: BTreeMap<Lane, Changes> = BTreeMap::new();
        let mut waiting: BTreeSet<Lane> = BTreeSet::new();
        for destination in self.destinations() {
            // Under one lock: an event is in order, or its row is among the changes.
            let mut queue = destination.queue.lock();
            for (room, owed) in queue.changes() {
                let lane = self.tenant.lanes().of(Home::Room(room).slot());
                let changes = changes.entry(lane).or_default();
                changes.rows.push((destination.clone(), room, owed));
            }
            for (user, owed) in queue.lists.changes() {
                let lane = self.tenant.lanes().of(Home::User(user.as_str()).slot());
                let changes = changes.entry(lane).or_default();
                changes.lists.push((destination.clone(), user, owed));
            }
            for lane in &lanes {
                if let Some(first) = queue.first_of(*lane) {
                    cursor = cursor.with(*lane, cursor.get(*lane).min(first.saturating_sub(1)));
                    waiting.insert(*lane);
                }
            }
        }
        // The rows first, of all lanes: an introduction is held by its room's lane and owed in its user's, so no cursor moves before
        // whatever it may step over is there.
        let mut outcome = Ok(());
        for (lane, changes) in changes {
            let written = changes.write(&self.tenant, lane).await;
            if let Err(error) = written {
                changes.take_back();
                outcome = Err(error);
            }
        }
        if let Err(error) = outcome {
            self.touched.lock().extend(touched);
            return Err(error);
        }
        // These cursors will move when it is sent.
        self.touched.lock().extend(waiting);
        for lane in lanes {
            let (from, pos) = (saved.get(lane), cursor.get(lane));
            if pos <= from || (!touched.contains(&lane) && pos < from + moved) {
                continue;
            }
            let written = commit(&self.tenant, lane, |batch| {
                batch.put::<Cursors>(&LaneKey(lane.0), &Cursor { pos });
            });
            match written.await {
                Ok(()) => *saved = saved.with(lane, pos),
                Err(error) => {
                    self.touched.lock().insert(lane);
                    outcome = Err(error);
                }
            }
        }
        // Put into under the same lock: none goes that has just been given something.
        let mut destinations = self.destinations.lock();
        destinations.retain(|_, destination| !destination.queue.lock().is_idle());
        outcome.map(|()| saved.clone())
    }
}

impl Changes {
    async fn write(&self, tenant: &Tenant, lane: Lane) -> Result<(), CommitError> {
        commit(tenant, lane, |batch| {
            for (destination, room, owed) in &self.rows {
                let key = ServerRoom {
                    server: destination.name.to_string(),
                    room: *room,
                };
                match owed {
                    Some(owed) => batch.put::<Owes>(&key, owed),
                    None => batch.delete::<Owes>(&key),
                };
            }
            for (destination, user, owed) in &self.lists {
                let key = ServerUser {
                    server: destination.name.to_string(),
                    user: user.to_string(),
                };
                match owed {
                    true => batch.put::<OwedLists>(&key, &()),
                    false => batch.delete::<OwedLists>(&key),
                };
            }
        })
        .await
    }

    /// They couldn't be written, and are to be with the next.
    fn take_back(self) {
        for (destination, room, _) in self.rows {
            destination.queue.lock().unchanged([room]);
        }
        for (destination, user, _) in self.lists {
            destination.queue.lock().lists.unchanged(user);
        }
    }
}

async fn commit(
    tenant: &Tenant,
    lane: Lane,
    fill: impl FnOnce(&mut Batch),
) -> Result<(), CommitError> {
    let writer = tenant.lane(Home::Fixed(Slot::new(lane.0)));
    let mut batch = writer.batch();
    fill(&mut batch);
    writer.commit(batch).await.map(drop)
}
