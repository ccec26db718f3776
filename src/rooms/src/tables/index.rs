//! What finds rooms and events: memberships, aliases, the directory, relations.

use comity_protocol::auth::Membership;
use comity_storage::postcard_value;
use serde::{Deserialize, Serialize};

use super::{Listed, Named, RoomNum, RoomRelation, RoomText, Tally, UserName, UserRoom, table};

/// A user's place in a room: a cache of the room's state, found from the user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// The room's id.
    pub room_id: String,
    /// `content.membership`, by name.
    pub membership: String,
    /// The member event.
    pub num: u32,
    /// Its place.
    pub seq: i64,
    /// The user has forgotten the room.
    pub forgotten: bool,
}

impl Member {
    /// The membership.
    pub fn membership(&self) -> Membership {
        Membership::from_name(&self.membership).unwrap_or_default()
    }
}

/// Where an alias leads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alias {
    /// The room.
    pub room_id: String,
    /// Who made it, and may take it away.
    pub creator: String,
    /// When, in milliseconds since 1970: for a while it holds its name for a room in the making.
    pub since: u64,
}

/// A relation to an event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Relation {
    /// The event that relates.
    pub num: u32,
    /// `rel_type`
    pub rel_type: String,
    /// Its event type.
    pub event_type: String,
    /// Its sender.
    pub sender: String,
    /// Of an annotation, its key.
    pub key: Option<String>,
}

/// A thread, by its root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Thread {
    /// Events in it, the root not counted.
    pub count: u32,
    /// The latest of them.
    pub latest: u32,
    /// Its place.
    pub latest_seq: i64,
    /// How many of them notify under the default push rules.
    pub notifying: Tally,
    /// Who has written in it, sorted.
    pub participants: Vec<String>,
}

/// A room in the directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Published;

/// A profile still to be shown in the user's rooms.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewProfile {
    /// `displayname`
    pub displayname: Option<String>,
    /// `avatar_url`
    pub avatar_url: Option<String>,
}

postcard_value!(NewProfile);
postcard_value!(Member, Alias, Relation, Thread, Published);

table!(
    /// `user, room` → [`Member`].
    Members, "membership", b"Um", Hot, true, UserRoom => Member);
table!(
    /// `user` → [`NewProfile`].
    NewProfiles, "new profile", b"Rw", Hot, true, UserName => NewProfile);
table!(
    /// `alias` → [`Alias`].
    Aliases, "alias", b"Na", Hot, true, Named => Alias);
table!(
    /// `room, alias` → nothing: the alias leads, or was to lead, to the room.
    RoomAliases, "room alias", b"Rl", Hot, true, RoomText => ());
table!(
    /// `room` → nothing: the room is in the directory.
    Directory, "directory", b"Nd", Hot, true, Listed => Published);
table!(
    /// `room, target, place` → [`Relation`].
    Relations, "relation", b"Rg", Index, true, RoomRelation => Relation);
table!(
    /// `room, root` → [`Thread`].
    Threads, "thread", b"Rq", Hot, true, RoomNum => Thread);
