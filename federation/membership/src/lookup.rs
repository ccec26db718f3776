//! What other servers know that isn't here: aliases, directories, spaces, times.

use std::{future::Future, time::Duration};

use comity_federation_client::PeerError;
use comity_protocol::{
    id::{OwnedEventId, OwnedServerName, OwnedUserId, RoomAliasId, RoomId, ServerName, UserId},
    room_version::RoomVersion,
};
use comity_rooms::{
    DirectoryFilter, DirectoryPage, HierarchyRoom, Remote, Resolved, RoomError, SpaceChild,
    tables::Summary,
};
use serde::Deserialize;
use serde_json::{Map, Value, json, value::RawValue};
use tokio::time::timeout;

use crate::{
    OtherServers,
    trouble::{NOBODY, Trouble},
};

/// How long a look-up may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// Servers that an alias may lead through.
const MAX_SERVERS: usize = 100;
/// Rooms on a page of another server's directory.
const MAX_PAGE: usize = 500;
/// Children of a space that another server may tell of.
const MAX_CHILDREN: usize = 500;

#[derive(Deserialize)]
struct Page {
    chunk: Vec<Map<String, Value>>,
    next_batch: Option<String>,
    prev_batch: Option<String>,
    total_room_count_estimate: Option<usize>,
}

/// A room as servers tell of it. Members may have put anything into the room's state, so only the id
/// must be right.
#[derive(Deserialize)]
struct Room {
    room_id: String,
    #[serde(default)]
    name: Value,
    #[serde(default)]
    topic: Value,
    #[serde(default)]
    avatar_url: Value,
    #[serde(default)]
    canonical_alias: Value,
    #[serde(default)]
    join_rule: Value,
    #[serde(default)]
    room_type: Value,
    #[serde(default)]
    encryption: Value,
    #[serde(default)]
    room_version: Value,
    #[serde(default)]
    num_joined_members: Value,
    #[serde(default)]
    world_readable: Value,
    #[serde(default)]
    guest_can_join: Value,
    #[serde(default)]
    allowed_room_ids: Vec<String>,
}

impl Room {
    fn read(json: Map<String, Value>) -> Option<Summary> {
        let room: Self = serde_json::from_value(json.into()).ok()?;
        RoomId::parse(room.room_id.as_str()).ok()?;
        let text = |value: Value| match value {
            Value::String(text) => Some(text),
            _ => None,
        };
        let version = room.room_version.as_str().and_then(RoomVersion::parse);
        Some(Summary {
            room_id: room.room_id,
            version: version.unwrap_or(RoomVersion::V1),
            creators: Vec::new(),
            room_type: text(room.room_type),
            predecessor: None,
            replacement: None,
            name: text(room.name),
            topic: text(room.topic),
            avatar_url: text(room.avatar_url),
            canonical_alias: text(room.canonical_alias),
            join_rule: text(room.join_rule),
            allowed: room.allowed_room_ids,
            history_visibility: (room.world_readable == true).then(|| "world_readable".to_owned()),
            guest_can_join: room.guest_can_join == true,
            encryption: text(room.encryption),
            encryption_mode: None,
            policy: None,
            joined: room.num_joined_members.as_u64().unwrap_or_default(),
            invited: 0,
            ours: 0,
        })
    }
}

/// A child as servers tell of it.
#[derive(Deserialize)]
struct Child {
    #[serde(rename = "type")]
    event_type: String,
    state_key: String,
    sender: OwnedUserId,
    content: Box<RawValue>,
    origin_server_ts: i64,
}

impl Child {
    fn read(json: Value) -> Option<SpaceChild> {
        // Raw text can't be read out of a value, only out of text.
        let child: Self = serde_json::from_str(&json.to_string()).ok()?;
        (child.event_type == "m.space.child").then_some(SpaceChild {
            room_id: child.state_key,
            sender: child.sender,
            content: child.content,
            origin_server_ts: child.origin_server_ts,
        })
    }
}

impl OtherServers {
    pub(crate) async fn look_up_profile(
        &self,
        user: &UserId,
        field: Option<&str>,
    ) -> Result<Map<String, Value>, RoomError> {
        let request = self
            .0
            .fetcher
            .peers
            .profile(user.server_name(), user, field);
        let mut profile = within(request).await.map_err(|trouble| told(&trouble))?;
        // `null` stands for nothing with some servers; what clients take for text must be text.
        let fits = |name: &str, value: &Value| match name {
            "displayname" | "avatar_url" => value.is_string(),
            _ => !value.is_null(),
        };
        profile.retain(|name, value| fits(name, value) && field.is_none_or(|field| field == name));
        Ok(profile)
    }

    pub(crate) async fn look_up_alias(&self, alias: &RoomAliasId) -> Result<Resolved, RoomError> {
        let request = self.0.fetcher.peers.directory(alias.server_name(), alias);
        match within(request).await {
            Ok(mut found) => {
                found.servers.truncate(MAX_SERVERS);
                Ok(Resolved {
                    room_id: found.room_id,
                    servers: found.servers,
                })
            }
            Err(Trouble::Peer(error))
                if error.refusal().is_some_and(|refusal| refusal.status == 404) =>
            {
                Err(RoomError::UnknownAlias)
            }
            Err(_) => Err(RoomError::OtherServer(
                "the alias's server could not be asked",
            )),
        }
    }

    pub(crate) async fn look_up_directory(
        &self,
        server: &ServerName,
        filter: &DirectoryFilter,
        limit: usize,
        since: Option<&str>,
    ) -> Result<DirectoryPage, RoomError> {
        let mut wanted = Map::from_iter([("limit".to_owned(), json!(limit.min(MAX_PAGE)))]);
        if let Some(since) = since {
            wanted.insert("since".into(), since.into());
        }
        let mut filtered = Map::new();
        if let Some(term) = &filter.search_term {
            filtered.insert("generic_search_term".into(), term.clone().into());
        }
        if let Some(types) = &filter.room_types {
            filtered.insert("room_types".into(), types.clone().into());
        }
        if !filtered.is_empty() {
            wanted.insert("filter".into(), filtered.into());
        }
        let answer = within(self.0.fetcher.peers.public_rooms(server, &wanted)).await;
        let page = answer.and_then(|page| {
            serde_json::from_value::<Page>(page.into()).map_err(|_| Trouble::Answer("no directory"))
        });
        let page = page.map_err(|trouble| told(&trouble))?;
        let rooms = page.chunk.into_iter().take(MAX_PAGE);
        let rooms: Vec<Summary> = rooms.filter_map(Room::read).collect();
        Ok(DirectoryPage {
            total: page.total_room_count_estimate.unwrap_or(rooms.len()),
            rooms,
            next: page.next_batch,
            prev: page.prev_batch,
        })
    }

    pub(crate) async fn look_up_hierarchy(
        &self,
        room_id: &RoomId,
        via: &[OwnedServerName],
        suggested_only: bool,
    ) -> Result<Remote, RoomError> {
        let found = self.through(via, PATIENCE, |server| async move {
            let answer = self
                .0
                .fetcher
                .peers
                .hierarchy(&server, room_id, suggested_only);
            let mut answer = answer.await?;
            let children = match answer.room.remove("children_state") {
                Some(Value::Array(children)) => children,
                _ => Vec::new(),
            };
            let children = children.into_iter().take(MAX_CHILDREN);
            let room = HierarchyRoom {
                children: children.filter_map(Child::read).collect(),
                summary: Room::read(answer.room).ok_or(Trouble::Answer("no room"))?,
            };
            if room.summary.room_id != room_id.as_str() {
                return Err(Trouble::Answer("another room"));
            }
            // Only of the room's children is anything believed.
            let named = |child: &Summary| {
                let mut named = room.children.iter();
                named.any(|named| named.room_id == child.room_id)
            };
            let children = answer.children.into_iter().take(MAX_CHILDREN);
            let children = children.filter_map(Room::read).filter(named);
            let mut children: Vec<Summary> = children.collect();
            children.sort_by(|one, other| one.room_id.cmp(&other.room_id));
            children.dedup_by(|one, other| one.room_id == other.room_id);
            Ok(Remote { room, children })
        });
        found.await
    }

    pub(crate) async fn look_up_near(
        &self,
        room_id: &RoomId,
        ts: i64,
        backwards: bool,
        servers: &[OwnedServerName],
    ) -> Result<Option<(OwnedEventId, i64)>, RoomError> {
        let found = self.through(servers, PATIENCE, |server| async move {
            let peers = &self.0.fetcher.peers;
            let found = peers.timestamp_to_event(&server, room_id, ts, backwards);
            let found = found.await?;
            let is_there = if backwards {
                found.origin_server_ts <= ts
            } else {
                found.origin_server_ts >= ts
            };
            if is_there {
                Ok((found.event_id, found.origin_server_ts))
            } else {
                Err(Trouble::Answer(
                    "the event is on the other side of the time",
                ))
            }
        });
        match found.await {
            Ok(found) => Ok(Some(found)),
            Err(RoomError::OtherServer(_) | RoomError::Forbidden(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

async fn within<T>(request: impl Future<Output = Result<T, PeerError>>) -> Result<T, Trouble> {
    match timeout(PATIENCE, request).await {
        Ok(answer) => Ok(answer?),
        Err(_) => Err(Trouble::Answer("no answer in time")),
    }
}

fn told(trouble: &Trouble) -> RoomError {
    trouble.refusal().unwrap_or(NOBODY)
}
