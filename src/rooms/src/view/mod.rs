//! Reading a room: its state, its order, its events, as far as a reader's bound allows.
//!
//! A [`RoomView`] is a room at one position: it never shows what came after, however long it is
//! held. What a user may see of it is decided by [`RoomView::visible`], how it looks to them by
//! [`RoomView::render`]; nothing here checks either by itself.

mod load;
mod memo;
mod moved;
mod relations;
mod render;
mod state;
mod timeline;
mod visible;

use std::{collections::BTreeMap, sync::Arc};

use comity_protocol::{
    auth::Membership,
    event::Event,
    id::{OwnedServerName, RoomId, UserId},
    room_version::RoomVersion,
};
use comity_storage::{Home, Range, Reader, RoomKey, Row};

use self::memo::Memo;
pub use self::{
    moved::Moved, relations::RelatedBy, render::Viewer, timeline::Span, visible::Standing,
};
pub(crate) use self::{state::membership_in, timeline::Eyes, visible::visibility_in};
use crate::{
    erase::erased_in,
    error::RoomError,
    live::{Pending, RoomNodes, read_root},
    num::EventNum,
    rooms::Rooms,
    state::{AnyRoot, StateTrie},
    tables::{self, Head, InRoom, Member, Mode, Status, UserRoom},
};

/// A room at a position.
#[derive(Clone)]
pub struct RoomView {
    rooms: Rooms,
    reader: Reader,
    room: RoomKey,
    room_id: comity_protocol::id::OwnedRoomId,
    version: RoomVersion,
    head: Head,
    root: AnyRoot,
    trie: StateTrie<RoomNodes>,
    /// Where users of erased accounts were erased.
    pub(crate) erased: Arc<BTreeMap<String, i64>>,
    /// While the state is partial, or was when we left: the servers said to be in the room.
    hinted: Arc<[OwnedServerName]>,
    memo: Memo,
}

/// An event with what the room made of it.
#[derive(Debug, Clone)]
pub struct Found {
    /// Its number in the room.
    pub num: EventNum,
    /// The event, redacted if it was.
    pub event: Event,
    /// Verdict, place, state before it.
    pub status: Status,
}

impl Found {
    /// Its place in the room's order: sequence number and sub-position.
    pub fn place(&self) -> Option<(i64, i64)> {
        self.status.place
    }

    /// The state before it; `None` of an event outside the graph that we hold, as the state is that
    /// a room of another server was joined with.
    ///
    /// # Errors
    /// The row is damaged.
    pub fn root_before(&self) -> Result<Option<AnyRoot>, RoomError> {
        if self.status.root_before.is_empty() {
            return Ok(None);
        }
        read_root(&self.status.root_before).map(Some)
    }
}

impl Rooms {
    /// The room as it is published now.
    ///
    /// # Errors
    /// [`RoomError::UnknownRoom`].
    pub async fn view(&self, room_id: &RoomId) -> Result<RoomView, RoomError> {
        self.view_at(&self.0.tenant.reader(), room_id).await
    }

    /// The room at a reader's bound.
    ///
    /// # Errors
    /// [`RoomError::UnknownRoom`], also when the room began later.
    pub async fn view_at(&self, reader: &Reader, room_id: &RoomId) -> Result<RoomView, RoomError> {
        let room = RoomKey::of(room_id.as_str());
        let heads = newest_head(reader, room);
        let info_key = InRoom { room };
        let (info, mut heads, erased) = futures_util::try_join!(
            async { Ok(reader.get::<tables::Infos>(&info_key).await?) },
            async { Ok(reader.scan::<tables::Heads>(heads).await?) },
            erased_in(reader, room),
        )?;
        let (Some(info), Some((_, head))) = (info, heads.pop()) else {
            return Err(RoomError::UnknownRoom);
        };
        if info.value.room_id != room_id.as_str() {
            return Err(RoomError::UnknownRoom);
        }
        let head = head.value;
        if head.mode == Mode::Stub {
            return Err(RoomError::UnknownRoom);
        }
        let root = read_root(&head.root)?;
        let mut hinted: Vec<OwnedServerName> = Vec::new();
        if head.mode != Mode::Joined {
            // Gone when it has been completed since: then they count no more. Of a room that we left before,
            // they are those who hear of it.
            let row = reader.get::<tables::Partials>(&info_key).await?;
            let servers = row.map(|row| row.value.servers).unwrap_or_default();
            let servers = servers.iter();
            hinted.extend(
                servers.filter_map(|server| OwnedServerName::try_from(server.as_str()).ok()),
            );
        }
        let trie = self.trie(room, reader.clone(), Pending::default());
        let (room_id, version) = (room_id.to_owned(), info.value.version);
        Ok(RoomView {
            rooms: self.clone(),
            reader: reader.clone(),
            room,
            room_id,
            version,
            head,
            root,
            trie,
            erased: Arc::new(erased),
            hinted: hinted.into(),
            memo: Memo::default(),
        })
    }

    /// The state of a room at a reader's bound; `None` where it began later, or isn't here.
    ///
    /// # Errors
    /// The store can't be read.
    pub async fn root_at(
        &self,
        reader: &Reader,
        room: RoomKey,
    ) -> Result<Option<AnyRoot>, RoomError> {
        let mut heads = reader
            .scan::<tables::Heads>(newest_head(reader, room))
            .await?;
        let head = heads.pop().map(|(_, head)| head.value);
        let head = head.filter(|head| head.mode != Mode::Stub);
        head.map(|head| read_root(&head.root)).transpose()
    }

    /// The rooms whose members aren't known yet, with the servers said to be in each.
    ///
    /// # Errors
    /// The store can't be read.
    pub async fn partial_rooms(
        &self,
        reader: &Reader,
    ) -> Result<Vec<(RoomKey, Vec<OwnedServerName>)>, RoomError> {
        let rows = reader
            .scan::<tables::Partials>(Range::everywhere(|_| {}))
            .await?;
        let rooms = rows.into_iter().map(|(key, row)| {
            let servers = row.value.servers.iter();
            let servers = servers.filter_map(|name| OwnedServerName::try_from(name.as_str()).ok());
            (key.room, servers.collect())
        });
        Ok(rooms.collect())
    }

    /// A user's row in a room: membership, when it was set, whether they forgot the room. Not
    /// bounded: a cache of the latest state.
    ///
    /// # Errors
    /// The store can't be read.
    pub async fn member(
        &self,
        user: &UserId,
        room_id: &RoomId,
    ) -> Result<Option<Row<Member>>, RoomError> {
        let key = UserRoom {
            user: user.to_string(),
            room: RoomKey::of(room_id.as_str()),
        };
        Ok(self.0.tenant.reader().get::<tables::Members>(&key).await?)
    }

    /// The rooms that a user is or was in, the forgotten ones included.
    ///
    /// # Errors
    /// The store can't be read.
    pub async fn memberships(
        &self,
        reader: &Reader,
        user: &UserId,
    ) -> Result<Vec<(RoomKey, Row<Member>)>, RoomError> {
        let range = Range::everywhere(|key| {
            key.str(user.as_str());
        });
        let rows = reader.scan::<tables::Members>(range).await?;
        Ok(rows.into_iter().map(|(key, row)| (key.room, row)).collect())
    }

    /// The rooms in which a user has this membership now.
    ///
    /// # Errors
    /// The store can't be read.
    pub async fn rooms_with(
        &self,
        user: &UserId,
        membership: Membership,
    ) -> Result<Vec<comity_protocol::id::OwnedRoomId>, RoomError> {
        let rows = self.memberships(&self.0.tenant.reader(), user).await?;
        rows.into_iter()
            .filter(|(_, row)| row.value.membership() == membership)
            .map(|(_, row)| crate::live::parse_room_id(&row.value.room_id))
            .collect()
    }
}

/// The head row of a room that is the newest within a reader's bound.
pub(crate) fn newest_head(reader: &Reader, room: RoomKey) -> Range {
    let bound = reader.bound(Home::Room(room));
    Range::of(Home::Room(room), |key| {
        key.room(room);
    })
    .until(|key| {
        key.u64(bound + 1);
    })
    .reverse()
    .limit(1)
}

impl RoomView {
    /// The room's id.
    pub fn room_id(&self) -> &RoomId {
        &self.room_id
    }

    /// The room's key in rows.
    pub fn key(&self) -> RoomKey {
        self.room
    }

    /// The room's version.
    pub fn version(&self) -> RoomVersion {
        self.version
    }

    /// The last live event's sequence number at this position.
    pub fn seq(&self) -> i64 {
        self.head.seq
    }

    /// The room's head row.
    pub fn head(&self) -> &Head {
        &self.head
    }

    /// The current state at this position.
    pub fn root(&self) -> AnyRoot {
        self.root
    }

    /// The servers said to be in the room, while its members aren't known.
    pub(crate) fn hinted(&self) -> &[OwnedServerName] {
        &self.hinted
    }

    /// What the view reads through.
    pub fn reader(&self) -> &Reader {
        &self.reader
    }

    /// The room's states.
    pub(crate) fn trie(&self) -> &StateTrie<RoomNodes> {
        &self.trie
    }

    /// The tenant's rooms.
    pub fn rooms(&self) -> &Rooms {
        &self.rooms
    }
}
