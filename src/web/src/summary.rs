//! What lists, previews and spaces show of a room.

use comity_protocol::id::{RoomAliasId, RoomId};
use comity_rooms::{HierarchyRoom, SpaceChild, tables::Summary};
use serde::Serialize;
use serde_json::value::RawValue;

/// A room of the directory: `PublishedRoomsChunk`.
#[derive(Serialize)]
pub struct PublicRoom {
    room_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    topic: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    avatar_url: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    canonical_alias: Option<String>,
    num_joined_members: u64,
    join_rule: String,
    world_readable: bool,
    guest_can_join: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    room_type: Option<String>,
}

impl From<Summary> for PublicRoom {
    /// Members may have put anything into the room's state; what isn't an alias or an avatar is left out.
    fn from(room: Summary) -> Self {
        Self {
            num_joined_members: room.joined,
            join_rule: room.join_rule().to_owned(),
            world_readable: room.world_readable(),
            guest_can_join: room.guest_can_join,
            avatar_url: room.avatar_url.filter(|url| url.starts_with("mxc://")),
            canonical_alias: room
                .canonical_alias
                .filter(|alias| RoomAliasId::parse(alias.as_str()).is_ok()),
            room_id: room.room_id,
            name: room.name,
            topic: room.topic,
            room_type: room.room_type,
        }
    }
}

/// A room in a preview or a space: `RoomSummary`.
#[derive(Serialize)]
pub struct RoomSummary {
    #[serde(flatten)]
    room: PublicRoom,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    allowed_room_ids: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    encryption: Option<String>,
    room_version: &'static str,
}

impl From<Summary> for RoomSummary {
    fn from(mut room: Summary) -> Self {
        let restricted = matches!(room.join_rule(), "restricted" | "knock_restricted");
        let mut allowed_room_ids = std::mem::take(&mut room.allowed);
        allowed_room_ids.retain(|room_id| restricted && RoomId::parse(room_id.as_str()).is_ok());
        Self {
            allowed_room_ids,
            encryption: room.encryption.take(),
            room_version: room.version.as_str(),
            room: room.into(),
        }
    }
}

/// A room of a space's tree: `SpaceHierarchyRoomsChunk`, with the children it names.
#[derive(Serialize)]
pub struct SpaceRoom {
    #[serde(flatten)]
    summary: RoomSummary,
    children_state: Vec<Child>,
}

#[derive(Serialize)]
struct Child {
    #[serde(rename = "type")]
    event_type: &'static str,
    state_key: String,
    sender: String,
    content: Box<RawValue>,
    origin_server_ts: i64,
}

impl From<HierarchyRoom> for SpaceRoom {
    fn from(room: HierarchyRoom) -> Self {
        Self {
            summary: room.summary.into(),
            children_state: room.children.into_iter().map(Child::from).collect(),
        }
    }
}

impl From<SpaceChild> for Child {
    fn from(child: SpaceChild) -> Self {
        Self {
            event_type: "m.space.child",
            state_key: child.room_id,
            sender: child.sender.to_string(),
            content: child.content,
            origin_server_ts: child.origin_server_ts,
        }
    }
}
