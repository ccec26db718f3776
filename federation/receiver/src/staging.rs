//! The lines of events that wait to be judged: durable, bounded, one a room and sending server.
//!
//! A server that is slow to hand over what its events rest on holds up its own line and no other.
//! What doesn't fit a line keeps its id there and is fetched when its turn comes; when even ids
//! don't fit, the event is refused and will be a missing parent of what follows it.

use std::collections::BTreeMap;

use comity_protocol::{
    event::Signed,
    id::{RoomId, ServerName},
};
use comity_runtime::watch;
use comity_storage::{At, CommitError, Home, Range, ReadError, RoomKey, Tenant};
use parking_lot::Mutex;

use crate::tables::{InLine, Line, Staged, StagedEvents};

/// Events in a line at the most.
const LINE_EVENTS: usize = 10_000;
/// Bytes of events in a line; beyond it only their ids are kept.
const LINE_BYTES: usize = 4 << 20;
/// Bytes of events in all lines.
const ALL_BYTES: usize = 256 << 20;
/// Bytes of events kept in memory too, so that they needn't be checked again.
const HELD_BYTES: usize = 32 << 20;

/// See the module.
pub(crate) struct Staging {
    tenant: Tenant,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Those that aren't empty.
    lines: BTreeMap<Line, Load>,
    bytes: usize,
    held: BTreeMap<InLine, Signed>,
    held_bytes: usize,
}

/// How much is in a line.
#[derive(Default)]
struct Load {
    events: usize,
    /// Those of them that are durable: the others are still being put.
    ready: usize,
    bytes: usize,
    /// Somebody works on it.
    running: bool,
    /// Told of what becomes ready, dropped with the line's last event.
    alive: watch::Sender<()>,
}

/// An event whose turn has come.
pub(crate) struct Next {
    pub key: InLine,
    pub staged: Staged,
    /// The event as it was checked, if it is still at hand.
    pub held: Option<Signed>,
}

impl Next {
    fn bytes(&self) -> usize {
        self.staged.json.as_ref().map_or(0, String::len)
    }
}

/// What became of events that came in.
pub(crate) struct Put {
    /// How many were taken, from the first on.
    pub taken: usize,
    /// The line was empty before: somebody must begin to work on it.
    pub begun: bool,
}

impl Staging {
    pub fn new(tenant: Tenant) -> Self {
        let state = Mutex::default();
        Self { tenant, state }
    }

    /// What was left over when the server last stopped: the lines to work on.
    pub async fn resume(&self) -> Result<Vec<Line>, ReadError> {
        let reader = self.tenant.reader();
        let rows = reader
            .scan::<StagedEvents>(Range::everywhere(|_| {}))
            .await?;
        let mut state = self.state.lock();
        for (key, row) in rows {
            let bytes = row.value.json.as_ref().map_or(0, String::len);
            let load = state.lines.entry(key.line).or_default();
            load.events += 1;
            load.ready += 1;
            load.bytes += bytes;
            load.running = true;
            state.bytes += bytes;
        }
        Ok(state.lines.keys().cloned().collect())
    }

    /// Puts events at the end of a line; durable when this returns. One call a line at a time.
    pub async fn put(
        &self,
        room_id: &RoomId,
        origin: &ServerName,
        events: Vec<Signed>,
    ) -> Result<Put, CommitError> {
        let line = Line {
            room: RoomKey::of(room_id.as_str()),
            origin: origin.to_owned(),
        };
        let rows = self.reserve(&line, room_id, &events);
        let home = Home::Room(line.room);
        let lane = self.tenant.lane(home);
        let mut batch = lane.batch();
        for (index, row) in (0..).zip(&rows) {
            let key = InLine {
                line: line.clone(),
                pos: At::Commit,
                index,
            };
            batch.put::<StagedEvents>(&key, row);
        }
        let pos = match lane.commit(batch).await {
            Ok(pos) => pos,
            Err(error) => {
                let sizes = rows
                    .iter()
                    .map(|row| row.json.as_ref().map_or(0, String::len));
                self.release(&line, sizes);
                return Err(error);
            }
        };
        let taken = rows.len();
        let mut state = self.state.lock();
        let load = state.lines.entry(line.clone()).or_default();
        load.ready += taken;
        load.alive.send_replace(());
        let begun = !std::mem::replace(&mut load.running, true);
        for ((index, row), event) in (0..).zip(rows).zip(events) {
            let size = row.json.map_or(0, |json| json.len());
            if size == 0 || state.held_bytes + size > HELD_BYTES {
                continue;
            }
            state.held_bytes += size;
            let key = InLine {
                line: line.clone(),
                pos: At::Is(pos),
                index,
            };
            state.held.insert(key, event);
        }
        Ok(Put { taken, begun })
    }

    /// Takes room for events in a line; the rows of those that fit.
    fn reserve(&self, line: &Line, room_id: &RoomId, events: &[Signed]) -> Vec<Staged> {
        let mut state = self.state.lock();
        let State { lines, bytes, .. } = &mut *state;
        let load = lines.entry(line.clone()).or_default();
        let fits = LINE_EVENTS.saturating_sub(load.events);
        let rows = events.iter().take(fits).map(|event| {
            let event = event.event();
            let size = event.json().len();
            let fits = load.bytes + size <= LINE_BYTES && *bytes + size <= ALL_BYTES;
            load.events += 1;
            if fits {
                load.bytes += size;
                *bytes += size;
            }
            Staged {
                room_id: room_id.to_string(),
                event_id: event.event_id().to_string(),
                json: fits.then(|| event.json().to_owned()),
            }
        });
        rows.collect()
    }

    fn release(&self, line: &Line, sizes: impl Iterator<Item = usize>) {
        let mut state = self.state.lock();
        let State { lines, bytes, .. } = &mut *state;
        if let Some(load) = lines.get_mut(line) {
            for size in sizes {
                load.events = load.events.saturating_sub(1);
                load.bytes = load.bytes.saturating_sub(size);
                *bytes = bytes.saturating_sub(size);
            }
            load.alive.send_replace(());
            if load.events == 0 && !load.running {
                lines.remove(line);
            }
        }
    }

    /// The next events of a line after this place of it.
    pub async fn next(
        &self,
        line: &Line,
        after: Option<&InLine>,
        most: usize,
    ) -> Result<Vec<Next>, ReadError> {
        let mut range = Range::of(Home::Room(line.room), |key| {
            key.room(line.room).str(line.origin.as_str());
        })
        .limit(most);
        // What was taken is gone, but its traces would be stepped over again and again.
        if let Some(after) = after {
            range = range.from(|key| {
                key.position(after.pos).u32(after.index.saturating_add(1));
            });
        }
        let rows = self.tenant.reader().scan::<StagedEvents>(range).await?;
        let mut state = self.state.lock();
        let next = rows.into_iter().map(|(key, row)| {
            let held = state.held.remove(&key);
            if let Some(event) = &held {
                state.held_bytes -= event.event().json().len();
            }
            Next {
                key,
                staged: row.value,
                held,
            }
        });
        Ok(next.collect())
    }

    /// These events of a line were judged, or given up.
    pub async fn done(&self, line: &Line, events: &[Next]) -> Result<(), CommitError> {
        let lane = self.tenant.lane(Home::Room(line.room));
        let mut batch = lane.batch();
        for event in events {
            batch.delete::<StagedEvents>(&event.key);
        }
        lane.commit(batch).await?;
        if let Some(load) = self.state.lock().lines.get_mut(line) {
            load.ready = load.ready.saturating_sub(events.len());
        }
        self.release(line, events.iter().map(Next::bytes));
        Ok(())
    }

    /// Nothing was found in a line: ends it, or waits until there is something.
    pub async fn end(&self, line: &Line) -> bool {
        let mut alive = {
            let mut state = self.state.lock();
            match state.lines.get(line) {
                Some(load) if load.ready > 0 => return false,
                Some(load) if load.events > 0 => load.alive.subscribe(),
                _ => {
                    state.lines.remove(line);
                    return true;
                }
            }
        };
        let _ = alive.changed().await;
        false
    }

    /// Waits until nothing is left in a line.
    pub async fn ended(&self, line: &Line) {
        let alive = {
            let state = self.state.lock();
            state.lines.get(line).map(|load| load.alive.subscribe())
        };
        if let Some(mut alive) = alive {
            while alive.changed().await.is_ok() {}
        }
    }
}
