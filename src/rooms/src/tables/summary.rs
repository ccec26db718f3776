//! What a room looks like from outside, kept with each change of its state.

use comity_encryption_policy::Mode;
use comity_protocol::room_version::RoomVersion;
use comity_storage::postcard_value;
use serde::{Deserialize, Serialize};

use super::{InRoom, table};

/// A room as lists show it: a cache of its current state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// Its id.
    pub room_id: String,
    /// Its version.
    pub version: RoomVersion,
    /// Who made it, and from version 12 the additional creators.
    pub creators: Vec<String>,
    /// `type` of `m.room.create`.
    pub room_type: Option<String>,
    /// The room that this one replaces.
    pub predecessor: Option<String>,
    /// The room that replaces this one, by `m.room.tombstone`.
    pub replacement: Option<String>,
    /// `m.room.name`
    pub name: Option<String>,
    /// `m.room.topic`
    pub topic: Option<String>,
    /// `m.room.avatar`
    pub avatar_url: Option<String>,
    /// `alias` of `m.room.canonical_alias`.
    pub canonical_alias: Option<String>,
    /// `m.room.join_rules`
    pub join_rule: Option<String>,
    /// The rooms whose members a restricted join rule lets in.
    pub allowed: Vec<String>,
    /// `m.room.history_visibility`
    pub history_visibility: Option<String>,
    /// `m.room.guest_access` is `can_join`.
    pub guest_can_join: bool,
    /// `algorithm` of `m.room.encryption`.
    pub encryption: Option<String>,
    /// The mode that the room gave itself.
    pub encryption_mode: Option<Mode>,
    /// `via` of `m.room.policy` and the `ed25519` key of its `public_keys`, where it has both.
    pub policy: Option<(String, String)>,
    /// Joined members, of all servers.
    pub joined: u64,
    /// Invited users.
    pub invited: u64,
    /// Joined members of this server.
    pub ours: u64,
}

postcard_value!(Summary);

table!(
    /// `room` → [`Summary`].
    Summaries, "room summary", b"Rv", Hot, true, InRoom => Summary);
