//! What is done now and then so that rows that nobody will read again go: logs beyond their horizon,
//! head rows from before it, transaction ids of days past, state nodes that no state reaches.
//!
//! The nodes are collected room by room, of those rooms whose states met since the last time: apart
//! from where forks meet, every root is the state before some event, and lives as long as that. All
//! that the room's rows reach is marked ([`Marker`]) while the room goes on; what is not reached is
//! looked at once more after the longest read, and removed by the room's own writer, in one turn in
//! which the room had not changed since the second marking began. Whoever writes a state writes all
//! nodes on its way, so none is removed that a state written meanwhile counts on.

use std::{collections::BTreeSet, time::Duration};

use comity_storage::{At, Heads, Home, Pos, Range, RoomKey};

use crate::{
    error::RoomError,
    live::{Pending, read_root},
    rooms::Rooms,
    state::{Marker, NodeHash},
    tables::{self, InRoom, RoomAt, RoomHash, RoomTxn, Txns},
};

/// How long the log is kept, and with it the states that tokens are compared with.
pub const HORIZON: Duration = Duration::from_secs(14 * 24 * 60 * 60);
/// How long the longest read takes, with much to spare.
const LONGEST_READ: Duration = Duration::from_secs(10 * 60);
/// Rows read in one go.
const PAGE: usize = 1_000;
/// Nodes read in one go.
const NODES: usize = 256;
/// Rows removed in one commit.
const REMOVED: usize = 500;
/// Milliseconds in a day.
const DAY: u64 = 24 * 60 * 60 * 1_000;

/// The day of a time, by which transaction ids are kept together.
pub(crate) fn day(ms: u64) -> u32 {
    u32::try_from(ms / DAY).unwrap_or(u32::MAX)
}

impl Rooms {
    /// One round of what the module says. Of the log, what is younger than `horizon` stays, and what
    /// somebody who follows it over restarts needs, however old it is.
    ///
    /// # Errors
    /// The store's; the next round goes on.
    pub async fn tend(&self, horizon: Duration) -> Result<(), RoomError> {
        self.forget_transactions().await?;
        let horizon = self.tenant().prune_logs(horizon).await?;
        self.forget_heads(&horizon).await?;
        let rooms = std::mem::take(&mut *self.0.met.lock());
        self.sweep(rooms).await.map(drop)
    }

    /// Removes transaction ids whose time is over.
    async fn forget_transactions(&self) -> Result<(), RoomError> {
        // They are remembered for a day: those of yesterday may still count.
        let today = day(self.now());
        let range = Range::everywhere(|_| {})
            .until(|key| {
                key.u32(today.saturating_sub(1));
            })
            .limit(REMOVED);
        loop {
            let rows = self.tenant().reader().scan::<Txns>(range.clone()).await?;
            let last = rows.len() < REMOVED;
            let keys: Vec<RoomTxn> = rows.into_iter().map(|(key, _)| key).collect();
            for writer in self.tenant().writers() {
                let mut batch = writer.batch();
                let mut any = false;
                for key in keys.iter().filter(|key| writer.owns(Home::Room(key.room))) {
                    batch.delete::<Txns>(key);
                    any = true;
                }
                if any {
                    writer.commit(batch).await?;
                }
            }
            if last {
                return Ok(());
            }
        }
    }

    /// Removes the head rows that only readers from before the horizon would ask for.
    async fn forget_heads(&self, horizon: &Heads) -> Result<(), RoomError> {
        let reader = self.tenant().reader();
        let mut after: Option<RoomKey> = None;
        loop {
            let range = Range::everywhere(|_| {}).from(|key| {
                if let Some(room) = after {
                    key.room(room).u8(0);
                }
            });
            let rooms = reader.scan::<tables::Infos>(range.limit(PAGE)).await?;
            for (InRoom { room }, _) in &rooms {
                self.forget_heads_of(*room, horizon).await?;
            }
            match rooms.last() {
                Some((last, _)) if rooms.len() == PAGE => after = Some(last.room),
                _ => return Ok(()),
            }
        }
    }

    async fn forget_heads_of(&self, room: RoomKey, horizon: &Heads) -> Result<(), RoomError> {
        let writer = self.tenant().lane(Home::Room(room));
        let until = horizon.get(writer.lane());
        if until == 0 {
            return Ok(());
        }
        let range = Range::of(Home::Room(room), |key| {
            key.room(room);
        })
        .until(|key| {
            key.u64(until.saturating_add(1));
        });
        // The newest up to there is the room for all who read from there on.
        let rows = writer
            .reader()
            .scan::<tables::Heads>(range.reverse().limit(2))
            .await?;
        let [
            (
                RoomAt {
                    pos: At::Is(kept), ..
                },
                _,
            ),
            _,
        ] = rows.as_slice()
        else {
            return Ok(());
        };
        let mut batch = writer.batch();
        batch.delete_until::<tables::Heads>(
            Home::Room(room),
            |key| {
                key.room(room);
            },
            |key| {
                key.u64(*kept);
            },
        );
        writer.commit(batch).await?;
        Ok(())
    }

    /// Removes the rooms' state nodes that nothing reaches; how many.
    ///
    /// # Errors
    /// The store's, or a damaged state: of that room nothing is removed.
    pub async fn sweep(
        &self,
        rooms: impl IntoIterator<Item = RoomKey>,
    ) -> Result<usize, RoomError> {
        let mut found = Vec::new();
        for room in rooms {
            match self.unreached(room).await? {
                Some((garbage, _)) if !garbage.is_empty() => found.push((room, garbage)),
                _ => {}
            }
        }
        if found.is_empty() {
            return Ok(0);
        }
        tokio::time::sleep(LONGEST_READ).await;
        let mut removed = 0;
        for (room, garbage) in found {
            removed += self.collect(room, garbage).await?;
        }
        Ok(removed)
    }

    /// Removes those of the nodes that nothing reaches still.
    async fn collect(
        &self,
        room: RoomKey,
        mut garbage: BTreeSet<NodeHash>,
    ) -> Result<usize, RoomError> {
        let Some((again, marked_at)) = self.unreached(room).await? else {
            return Ok(0);
        };
        garbage.retain(|hash| again.contains(hash));
        let mut live = self.cell(room).lock_owned().await;
        let writer = self.tenant().lane(Home::Room(room));
        if self.newest_head(room).await? != Some(marked_at) {
            // The room has gone on: it comes with the next round.
            self.0.met.lock().insert(room);
            return Ok(0);
        }
        // What it knows of states may be about to go.
        *live = None;
        let garbage: Vec<NodeHash> = garbage.into_iter().collect();
        for nodes in garbage.chunks(REMOVED) {
            let mut batch = writer.batch();
            for hash in nodes {
                batch.delete::<tables::Nodes>(&RoomHash { room, hash: hash.0 });
            }
            writer.commit(batch).await?;
        }
        Ok(garbage.len())
    }

    /// The position of the room's newest head, what is appended and not yet durable included.
    async fn newest_head(&self, room: RoomKey) -> Result<Option<Pos>, RoomError> {
        let reader = self.tenant().lane(Home::Room(room)).reader();
        let range = Range::of(Home::Room(room), |key| {
            key.room(room);
        });
        let rows = reader
            .scan::<tables::Heads>(range.reverse().limit(1))
            .await?;
        Ok(rows.first().map(|(_, row)| row.pos))
    }

    /// The room's nodes that no state in its rows reaches, and its newest head from before they were
    /// looked for. `None` where there is no such room.
    async fn unreached(
        &self,
        room: RoomKey,
    ) -> Result<Option<(BTreeSet<NodeHash>, Pos)>, RoomError> {
        let Some(head) = self.newest_head(room).await? else {
            return Ok(None);
        };
        let reader = self.tenant().lane(Home::Room(room)).reader();
        let trie = self.trie(room, reader.clone(), Pending::default());
        // First what there is, then what is reached: a node written in between is in neither.
        let mut nodes = BTreeSet::new();
        let mut from: Option<[u8; 16]> = None;
        loop {
            let range = Range::of(Home::Room(room), |key| {
                key.room(room);
            })
            .from(|key| {
                if let Some(hash) = from {
                    key.fixed(&hash).u8(0);
                }
            });
            let rows = reader.scan::<tables::Nodes>(range.limit(PAGE)).await?;
            nodes.extend(rows.iter().map(|(key, _)| NodeHash(key.hash)));
            match rows.last() {
                Some((last, _)) if rows.len() == PAGE => from = Some(last.hash),
                _ => break,
            }
        }
        let mut marker = Marker::default();
        let mut roots: BTreeSet<Vec<u8>> = BTreeSet::new();
        let mut next: u64 = 0;
        loop {
            let range = Range::of(Home::Room(room), |key| {
                key.room(room);
            })
            .from(|key| {
                key.u64(next);
            });
            let rows = reader.scan::<tables::Heads>(range.limit(PAGE)).await?;
            roots.extend(rows.iter().map(|(_, row)| row.value.root.clone()));
            match rows.last() {
                Some((_, row)) if rows.len() == PAGE => next = row.pos + 1,
                _ => break,
            }
        }
        let mut next: u32 = 0;
        loop {
            let range = Range::of(Home::Room(room), |key| {
                key.room(room);
            })
            .from(|key| {
                key.u32(next);
            });
            let rows = reader.scan::<tables::Statuses>(range.limit(PAGE)).await?;
            let before = rows.iter().map(|(_, row)| &row.value.root_before);
            roots.extend(before.filter(|root| !root.is_empty()).cloned());
            match rows.last() {
                Some((key, _)) if rows.len() == PAGE => next = key.num + 1,
                _ => break,
            }
        }
        let mut next: u32 = 0;
        loop {
            let range = Range::of(Home::Room(room), |key| {
                key.room(room);
            })
            .from(|key| {
                key.u32(next);
            });
            let rows = reader
                .scan::<tables::Provisionals>(range.limit(PAGE))
                .await?;
            let given = rows.iter().map(|(_, row)| &row.value.given);
            roots.extend(given.filter(|root| !root.is_empty()).cloned());
            match rows.last() {
                Some((key, _)) if rows.len() == PAGE => next = key.num + 1,
                _ => break,
            }
        }
        for root in &roots {
            marker.add(read_root(root)?);
        }
        while !marker.step(&trie, NODES).await? {}
        nodes.retain(|hash| !marker.is_live(*hash));
        Ok(Some((nodes, head)))
    }
}
