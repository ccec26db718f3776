//! Events that rest on what couldn't be had: kept, and tried again.
//!
//! Who has what is missing may be away, or be a server that we hear of later. Such an event leaves its
//! line and waits with its room, durable and bounded, until a search finds what it lacks. A room's are
//! tried again after half a minute, doubling up to an hour, and sooner when a server that sent one of them,
//! or that has something new of the room, speaks to us. After a week one is given up: what follows it
//! asks for it anew. Whatever one server sends takes a part of the places only, in a room and in all.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Weak},
    time::Duration,
};

use comity_protocol::id::{OwnedServerName, ServerName};
use comity_rooms::RoomError;
use comity_runtime::Runtime;
use comity_storage::{At, CommitError, Home, Range, ReadError, RoomKey, Row, Tenant};
use parking_lot::Mutex;
use tokio::{
    sync::Notify,
    time::{sleep, timeout},
};

use crate::{
    Inner,
    tables::{InWait, Staged, Waiting, WaitingEvents},
    unheard::HOPE_MS,
};

/// Events of a room that wait, and those of them that one server sent; of more nothing is kept.
const OF_ROOM: Places = Places {
    all: 32,
    of_one: 16,
};
/// Events that wait in all rooms.
const ALL: Places = Places {
    all: 4_096,
    of_one: 512,
};
/// Before they are tried again, at first and at the longest.
const WAITS: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(60 * 60));
/// Nothing is tried sooner than after this part of a wait, whoever speaks: who speaks all the time and has
/// nothing to tell would be asked all the time.
const SOONEST: u32 = 8;
/// How long an event waits, in milliseconds.
const MOST_MS: u64 = 7 * 24 * 60 * 60 * 1_000;

/// See the module.
pub(crate) struct WaitingRoom {
    tenant: Tenant,
    /// Rooms with events that wait; somebody works on each.
    rooms: Mutex<BTreeMap<RoomKey, Known>>,
    /// Whoever adds is alone, so that nothing waits twice and no bound is passed.
    adding: tokio::sync::Mutex<()>,
}

/// What is known of a room whose events wait.
#[derive(Default)]
struct Known {
    /// Who sent each.
    events: BTreeMap<String, String>,
    wake: Arc<Notify>,
}

impl Known {
    fn add(&mut self, waiting: &Waiting) {
        let event_id = waiting.event.event_id.clone();
        self.events.insert(event_id, waiting.origin.clone());
    }
}

/// How many events may wait.
struct Places {
    all: usize,
    /// Sent by one server.
    of_one: usize,
}

impl Places {
    /// Those that are left for events of a server, beside others by who sent them.
    fn left<'a>(&self, origin: &ServerName, taken: impl Iterator<Item = &'a String>) -> usize {
        let (mut all, mut of_one) = (0, 0);
        for other in taken {
            all += 1;
            of_one += usize::from(other == origin.as_str());
        }
        let left = self.of_one.saturating_sub(of_one);
        left.min(self.all.saturating_sub(all))
    }
}

type Rows = Vec<(InWait, Row<Waiting>)>;

impl WaitingRoom {
    pub fn new(tenant: Tenant) -> Self {
        Self {
            tenant,
            rooms: Mutex::default(),
            adding: tokio::sync::Mutex::default(),
        }
    }

    /// What was left over when the server last stopped: the rooms to work on.
    pub async fn resume(&self) -> Result<Vec<RoomKey>, ReadError> {
        let reader = self.tenant.reader();
        let all = Range::everywhere(|_| {});
        let rows = reader.scan::<WaitingEvents>(all).await?;
        let mut rooms = self.rooms.lock();
        for (key, row) in rows {
            rooms.entry(key.room).or_default().add(&row.value);
        }
        Ok(rooms.keys().copied().collect())
    }

    /// Lets events that a server sent wait, those that fit and don't yet. Answers whether somebody must
    /// begin to work on the room.
    pub async fn add(
        &self,
        room: RoomKey,
        origin: &ServerName,
        events: Vec<Staged>,
    ) -> Result<bool, CommitError> {
        let _alone = self.adding.lock().await;
        let events: Vec<Staged> = {
            let rooms = self.rooms.lock();
            let known = rooms.get(&room).map(|known| &known.events);
            let here = known.into_iter().flat_map(BTreeMap::values);
            let everywhere = rooms.values().flat_map(|known| known.events.values());
            let left = OF_ROOM.left(origin, here).min(ALL.left(origin, everywhere));
            let is_new =
                |event: &Staged| known.is_none_or(|ids| !ids.contains_key(&event.event_id));
            events.into_iter().filter(is_new).take(left).collect()
        };
        if events.is_empty() {
            return Ok(false);
        }
        let now = self.tenant.runtime().clock().now_ms();
        let waiting: Vec<Waiting> = events
            .into_iter()
            .map(|event| Waiting {
                event,
                origin: origin.to_string(),
                since_ts: now,
            })
            .collect();
        let lane = self.tenant.lane(Home::Room(room));
        let mut batch = lane.batch();
        for (index, waiting) in (0..).zip(&waiting) {
            let pos = At::Commit;
            batch.put::<WaitingEvents>(&InWait { room, pos, index }, waiting);
        }
        lane.commit(batch).await?;
        let mut rooms = self.rooms.lock();
        let begins = !rooms.contains_key(&room);
        let known = rooms.entry(room).or_default();
        waiting.iter().for_each(|waiting| known.add(waiting));
        Ok(begins)
    }

    /// A server spoke to us, and has something new of these rooms.
    pub fn heard_from(&self, origin: &ServerName, rooms: &BTreeSet<RoomKey>) {
        for (room, known) in self.rooms.lock().iter() {
            let mut origins = known.events.values();
            if rooms.contains(room) || origins.any(|other| other == origin.as_str()) {
                known.wake.notify_one();
            }
        }
    }

    async fn of(&self, room: RoomKey) -> Result<Rows, ReadError> {
        let range = Range::of(Home::Room(room), |key| {
            key.room(room);
        });
        self.tenant.reader().scan::<WaitingEvents>(range).await
    }

    /// Those of a room that are to wait on; the others are done with. Answers whether any wait on.
    async fn keep(
        &self,
        room: RoomKey,
        rows: Rows,
        wait_on: impl Fn(&Waiting) -> bool,
    ) -> Result<bool, CommitError> {
        let _alone = self.adding.lock().await;
        let lane = self.tenant.lane(Home::Room(room));
        let mut batch = lane.batch();
        let mut done = BTreeSet::new();
        for (key, row) in rows {
            if !wait_on(&row.value) {
                batch.delete::<WaitingEvents>(&key);
                done.insert(row.value.event.event_id);
            }
        }
        if !done.is_empty() {
            lane.commit(batch).await?;
        }
        let mut rooms = self.rooms.lock();
        let Some(known) = rooms.get_mut(&room) else {
            return Ok(false);
        };
        known.events.retain(|id, _| !done.contains(id));
        let waits = !known.events.is_empty();
        if !waits {
            rooms.remove(&room);
        }
        Ok(waits)
    }

    fn wake_of(&self, room: RoomKey) -> Option<Arc<Notify>> {
        self.rooms.lock().get(&room).map(|known| known.wake.clone())
    }
}

/// Tries a room's events again and again, until none waits or the receiver is gone.
pub(crate) async fn work(receiver: Weak<Inner>, runtime: Runtime, room: RoomKey) {
    let mut wait = WAITS.0;
    loop {
        let Some(wake) = receiver
            .upgrade()
            .and_then(|inner| inner.waiting.wake_of(room))
        else {
            return;
        };
        // Spread, so that what began to wait together isn't all tried together.
        let jitter = runtime.random().below(millis(wait / 2));
        let spread = wait * 3 / 4 + Duration::from_millis(jitter);
        let soonest = spread / SOONEST;
        sleep(soonest).await;
        drop(timeout(spread - soonest, wake.notified()).await);
        let Some(inner) = receiver.upgrade() else {
            return;
        };
        match inner.try_again(room).await {
            Ok(true) => {}
            Ok(false) => return,
            Err(error) => tracing::warn!(%error, "events that wait could not be tried again"),
        }
        wait = (wait * 2).min(WAITS.1);
    }
}

impl Inner {
    /// Tries a room's events once more; answers whether any wait on.
    async fn try_again(&self, room: RoomKey) -> Result<bool, RoomError> {
        let rows = self.waiting.of(room).await?;
        let view = match rows.first() {
            Some((_, row)) => self.room(&row.value.event.room_id).await?,
            None => None,
        };
        let mut wanting = BTreeSet::new();
        let now = self.runtime.clock().now_ms();
        // Of a room that isn't heard any more nobody here is to see them.
        if let Some(view) = view {
            for run in rows.chunk_by(|(_, one), (_, other)| one.value.origin == other.value.origin)
            {
                let origin = run.first().map(|(_, row)| row.value.origin.as_str());
                let Some(Ok(origin)) = origin.map(OwnedServerName::try_from) else {
                    continue;
                };
                let staged = run.iter().map(|(_, row)| (&row.value.event, None));
                let since = run.iter().map(|(_, row)| row.value.since_ts).min();
                let is_patient = since.is_some_and(|since| now < since.saturating_add(HOPE_MS));
                let judged = self.judge(&view, &origin, staged, is_patient);
                wanting.append(&mut judged.await?);
            }
        }
        let wait_on = |waiting: &Waiting| {
            let is_old = waiting.since_ts.saturating_add(MOST_MS) <= now;
            !is_old && wanting.contains(&waiting.event.event_id)
        };
        Ok(self.waiting.keep(room, rows, wait_on).await?)
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// D8: one server's events leave places for the others', in a room and in all rooms.
    #[test]
    fn d8_nobody_takes_all_the_places() {
        let (evil, friend) = ("evil.test", "friend.test");
        let name = |name: &str| OwnedServerName::try_from(name).unwrap();
        for places in [OF_ROOM, ALL] {
            let (all, of_one) = (places.all, places.of_one);
            let mut taken = vec![evil.to_owned(); of_one - 1];
            assert_eq!(places.left(&name(evil), taken.iter()), 1);
            taken.push(evil.to_owned());
            assert_eq!(places.left(&name(evil), taken.iter()), 0);
            assert_eq!(places.left(&name(friend), taken.iter()), of_one);
            taken.resize(all - 1, "others.test".to_owned());
            assert_eq!(places.left(&name(friend), taken.iter()), 1);
        }
    }
}
