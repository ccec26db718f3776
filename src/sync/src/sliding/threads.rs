//! Threads that were written in, in all of a user's rooms.
//!
//! Nothing is kept of what was told: the threads of a room stand in the order of their latest events, so those written in since a
//! position are the first, and of rooms where nothing happened since nothing is read. Rooms come in the order of their keys, which
//! nothing changes: so page after page is of one order, and a thread that moves meanwhile is an update of its own.
//!
//! <https://github.com/matrix-org/matrix-spec-proposals/pull/4360>, a draft

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use comity_protocol::{
    auth::Membership,
    client_event::ClientFormat,
    id::{RoomId, UserId},
};
use comity_rooms::{
    Found, RoomView, Span, Viewer,
    num::EventNum,
    tables::{Scope, Thread},
};
use comity_storage::{Heads, Home, Reader, RoomKey};
use serde::Serialize;
use serde_json::value::RawValue;

use super::extensions::Telling;
use crate::{Sync, SyncError, token::PlaceToken};

/// Rooms and threads looked at for one answer at the most: where there is nothing to show, it ends early and says where to go on.
const LOOKED_AT: usize = 1_000;
/// Threads of a room read in one go.
const CHUNK: usize = 32;
/// Events of a thread looked at for those that the user may see, the latest first.
const LATEST: usize = 32;

/// Threads written in.
#[derive(Debug, Default)]
pub struct ThreadUpdates {
    /// By room, by the id of the root.
    pub rooms: BTreeMap<String, BTreeMap<String, ThreadUpdate>>,
    /// Where to read on, if there may be more.
    pub more: Option<PlaceToken>,
}

/// A thread written in.
#[derive(Debug, Serialize)]
pub struct ThreadUpdate {
    /// Its root, with what belongs to it, where that is wanted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub thread_root: Option<Box<RawValue>>,
    /// From where to read what else was written, backwards; `None` if it was one event.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prev_batch: Option<String>,
}

/// Which of a user's threads are wanted.
pub(super) struct Threads<'a> {
    pub sync: &'a Sync,
    pub user: &'a UserId,
    pub device: &'a str,
    /// Reads up to the answer's heads.
    pub reader: &'a Reader,
    /// Those written in since.
    pub since: Option<&'a Heads>,
    /// Those that come after this place in the order of all.
    pub from: Option<&'a PlaceToken>,
    pub limit: usize,
    /// With their roots. Without them, those of which the answer has all that is new are left out.
    pub roots: bool,
    /// What the answer tells of rooms.
    pub told: Option<&'a BTreeMap<RoomKey, Telling>>,
}

/// A room in which something happened.
struct Room {
    room_id: Arc<str>,
    key: RoomKey,
}

impl ThreadUpdates {
    /// Whether there is nothing to say.
    pub fn is_empty(&self) -> bool {
        self.rooms.is_empty() && self.more.is_none()
    }
}

impl Sync {
    /// The threads of a user's rooms that were written in since `since`, with their roots; from where the last answer ended, if
    /// there was one.
    ///
    /// # Errors
    /// The store's.
    pub async fn thread_updates(
        &self,
        user: &UserId,
        device: &str,
        since: Option<&Heads>,
        from: Option<&PlaceToken>,
        limit: usize,
    ) -> Result<ThreadUpdates, SyncError> {
        let now = self.0.rooms.tenant().heads();
        let _listening = self.0.index.user(&self.0.rooms, user).await?;
        self.0.index.reached(&now).await;
        let reader = self.0.rooms.tenant().reader().at(now);
        let threads = Threads {
            sync: self,
            user,
            device,
            reader: &reader,
            since,
            from,
            limit,
            roots: true,
            told: None,
        };
        threads.updates().await
    }
}

impl Threads<'_> {
    pub async fn updates(&self) -> Result<ThreadUpdates, SyncError> {
        let ignored = self.sync.0.accounts.ignored_users(self.user.as_str());
        let ignored = ignored.await?;
        let mut updates = ThreadUpdates::default();
        let (mut shown, mut looked_at) = (0, 0);
        for room in &self.rooms() {
            let Some(view) = self.view(room).await? else {
                continue;
            };
            let since = match self.since {
                Some(since) => view.seq_at(since.get(self.lane(room.key))).await?,
                None => i64::MIN,
            };
            let from = self.from.filter(|from| from.room == room.key);
            let mut before = from.map(|from| from.place.0);
            looked_at += 1;
            loop {
                let page = view.threads(before, CHUNK).await?;
                looked_at += page.len();
                let new = page.into_iter();
                let new = new.take_while(|(_, thread)| thread.latest_seq > since);
                let new: Vec<(EventNum, Thread)> = new.collect();
                for (root, thread) in &new {
                    let Some((id, update)) = self.update(&view, *root, since, &ignored).await?
                    else {
                        before = Some(thread.latest_seq);
                        continue;
                    };
                    if shown == self.limit {
                        updates.more = Some(self.token(&view, before));
                        return Ok(updates);
                    }
                    shown += 1;
                    before = Some(thread.latest_seq);
                    let of_room = updates.rooms.entry(room.room_id.to_string()).or_default();
                    of_room.insert(id, update);
                }
                if new.len() < CHUNK {
                    break;
                }
                if looked_at >= LOOKED_AT {
                    updates.more = Some(self.token(&view, before));
                    return Ok(updates);
                }
            }
            if looked_at >= LOOKED_AT {
                // All of this room was told.
                updates.more = Some(self.token(&view, Some(i64::MIN)));
                return Ok(updates);
            }
        }
        Ok(updates)
    }

    /// The rooms where something may have happened, from the one on where the last answer ended; no read.
    fn rooms(&self) -> Vec<Room> {
        let index = &self.sync.0.index;
        let mut rooms = Vec::new();
        // In the order of their keys.
        for (key, place, changed) in index.all_of(self.user) {
            let lane = self.lane(key);
            let since = self.since.map_or(0, |since| since.get(lane));
            let happened = self.since.is_none() || changed > since || since < index.start(lane);
            let is_next = self.from.is_none_or(|from| key >= from.room);
            if place.is_joined() && happened && is_next {
                let room_id = place.room_id;
                rooms.push(Room { room_id, key });
            }
        }
        rooms
    }

    /// The room, if the user is in it (threat E4).
    async fn view(&self, room: &Room) -> Result<Option<RoomView>, SyncError> {
        let Ok(room_id) = <&RoomId>::try_from(&*room.room_id) else {
            return Ok(None);
        };
        let view = match self.sync.0.rooms.view_at(self.reader, room_id).await {
            Err(comity_rooms::RoomError::UnknownRoom) => return Ok(None),
            view => view?,
        };
        let is_in = view.membership(self.user).await? == Membership::Join;
        Ok(is_in.then_some(view))
    }

    /// What there is to say of a thread, by its root's id.
    async fn update(
        &self,
        view: &RoomView,
        root: EventNum,
        since: i64,
        ignored: &BTreeSet<String>,
    ) -> Result<Option<(String, ThreadUpdate)>, SyncError> {
        let span = Span {
            after: Some((since, i64::MAX)),
            ..Span::latest(LATEST)
        };
        let of = [(root, Scope::Type("m.thread"))];
        let written = view.related(&of, span).await?.into_iter().flatten();
        let mut nums: Vec<EventNum> = written.map(|(_, num)| num).collect();
        let are_all = nums.len() < LATEST;
        nums.push(root);
        let found = view.load(&nums).await?;
        let found = view.only_visible(found, self.user).await?;
        let (mut of_root, written): (Vec<Found>, Vec<Found>) =
            found.into_iter().partition(|one| one.num == root);
        let is_new = |one: &Found| {
            one.status.redacted_by.is_none() && !ignored.contains(one.event.sender().as_str())
        };
        let written: Vec<Found> = written.into_iter().filter(is_new).collect();
        let latest = written.iter().filter_map(Found::place).max();
        let (Some(mut root), Some(latest)) = (of_root.pop(), latest) else {
            return Ok(None);
        };
        let told = self.told.and_then(|told| told.get(&view.key()));
        let is_told = |one: &Found| {
            told.is_some_and(|told| told.events.contains(one.event.event_id().as_str()))
        };
        if !self.roots && are_all && written.iter().all(is_told) {
            return Ok(None);
        }
        let root_id = root.event.event_id().to_string();
        let thread_root = if self.roots {
            if ignored.contains(root.event.sender().as_str()) {
                root.event = root.event.redact();
            }
            let viewer = Viewer {
                user: self.user,
                device: Some(self.device),
            };
            let roots = [root];
            let rendered = view.render(&roots, viewer, ClientFormat::WithRoomId);
            rendered.await?.pop()
        } else {
            None
        };
        let before = PlaceToken {
            heads: self.reader.heads().clone(),
            room: view.key(),
            place: latest,
        };
        let update = ThreadUpdate {
            thread_root,
            prev_batch: (written.len() > 1).then(|| before.to_string()),
        };
        Ok(Some((root_id, update)))
    }

    /// Where to go on: in this room with threads whose latest event comes before `before`.
    fn token(&self, view: &RoomView, before: Option<i64>) -> PlaceToken {
        PlaceToken {
            heads: self.reader.heads().clone(),
            room: view.key(),
            place: (before.unwrap_or_else(|| view.seq().saturating_add(1)), 0),
        }
    }

    fn lane(&self, room: RoomKey) -> comity_storage::Lane {
        let lanes = self.sync.0.rooms.tenant().lanes();
        lanes.of(Home::Room(room).slot())
    }
}
