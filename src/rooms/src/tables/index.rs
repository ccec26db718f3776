//! What finds rooms and events: memberships, aliases, the directory, relations.

use comity_protocol::auth::Membership;
use comity_storage::postcard_value;
use serde::{Deserialize, Serialize};

use sha2::{Digest, Sha256};

use super::{
    InRoom, Listed, Named, Num, RoomNum, RoomRelated, RoomRelation, RoomSeq, RoomText, Tally,
    UserName, UserRoom, table,
};

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
    /// When it was set ([`crate::Rooms::stamp`]).
    pub since: u64,
    /// A user of ours who is or was joined, as far as that is known here; of others it says nothing.
    pub was_in: bool,
}

impl Member {
    /// The membership.
    pub fn membership(&self) -> Membership {
        Membership::from_name(&self.membership).unwrap_or_default()
    }
}

/// A user's membership in a room that we aren't in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutOfBand {
    /// The membership, by name.
    pub membership: String,
    /// Who set it.
    pub sender: String,
    /// The id of the event that set it.
    pub event_id: Option<String>,
    /// When that was made, in milliseconds since 1970 by its server's clock.
    pub made: i64,
    /// That event: of an invite or knock as stripped state, of what ended it as clients see events.
    pub event: Option<String>,
    /// What the user may know of the room, as stripped state.
    pub state: Vec<String>,
    /// Servers by which the room can be reached.
    pub via: Vec<String>,
    /// Who gave the invite that this ended, if it ended one.
    pub invited_by: Option<String>,
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

/// Relations that are asked for together, so that a question costs what its answer holds, however
/// much else relates to the event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope<'a> {
    /// Of one `rel_type`.
    Type(&'a str),
    /// By one sender, of one `rel_type`, event type and key: an event's edits are those like its
    /// own, an annotation is made once.
    Like {
        /// `rel_type`
        rel_type: &'a str,
        /// The relating event's type.
        event_type: &'a str,
        /// Its sender.
        sender: &'a str,
        /// Of an annotation, its key.
        key: Option<&'a str>,
    },
    /// At one remove or two: what relates to what relates to the event.
    Below,
    /// All that is part of the thread under the event, redacted or not: their entries have the
    /// thread's running totals.
    Thread,
}

impl Scope<'_> {
    /// The scope in a key: a hash, since what names it may be long. Who reads one scope by another's
    /// hash would have to look at the events anyway.
    pub fn hash(self) -> u64 {
        let parts = match self {
            Self::Type(rel_type) => ["type", rel_type, "", "", ""],
            Self::Like {
                rel_type,
                event_type,
                sender,
                key,
            } => [
                "like",
                rel_type,
                event_type,
                sender,
                key.unwrap_or_default(),
            ],
            Self::Below => ["below", "", "", "", ""],
            Self::Thread => ["thread", "", "", "", ""],
        };
        let mut hash = Sha256::new();
        for part in parts {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        let digest = hash.finalize();
        digest
            .first_chunk()
            .map_or(0, |first| u64::from_be_bytes(*first))
    }
}

/// A thread, by its root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Thread {
    /// Events in it, the root not counted; 0 once they are redacted.
    pub count: u32,
    /// The latest of them.
    pub latest: u32,
    /// Its place.
    pub latest_seq: i64,
    /// How many of them notify, by ruleset as in [`super::Totals`].
    pub notifying: Vec<Tally>,
    /// Who has written in it, sorted.
    pub participants: Vec<String>,
}

/// An upgrade under way, whose new room is made and whose old one may not have ended yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Upgrade {
    /// The old room's id.
    pub room_id: String,
    /// The new room's.
    pub replacement: String,
    /// Who upgrades.
    pub user: String,
    /// The local aliases that move.
    pub aliases: Vec<String>,
    /// The old room is in the directory.
    pub published: bool,
}

/// A user whose account was erased.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Erased {
    /// The room's last event then.
    pub seq: i64,
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

postcard_value!(NewProfile, Erased, OutOfBand, Upgrade);
postcard_value!(Member, Alias, Relation, Thread, Published);

table!(
    /// `user, room` → [`Member`].
    Members, "membership", b"Um", Hot, true, UserRoom => Member);
table!(
    /// `room, user` → [`OutOfBand`].
    OutOfBands, "out-of-band membership", b"RO", Hot, true, RoomText => OutOfBand);
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
    /// `room, event, scope, place` → the relating event's number.
    Related, "related event", b"Rr", Index, true, RoomRelated => Num);
table!(
    /// `old room` → [`Upgrade`].
    Upgrades, "upgrade", b"Ru", Hot, true, InRoom => Upgrade);
table!(
    /// `room, user` → [`Erased`].
    Erasures, "erasure", b"RE", Hot, true, RoomText => Erased);
table!(
    /// `room, seq` → the root of the thread whose latest event has that place.
    ThreadOrder, "thread order", b"RQ", Hot, true, RoomSeq => Num);
table!(
    /// `room, seq` → nothing: the event that counted there was redacted, and counts no more.
    Discounts, "discount", b"Rz", Hot, true, RoomSeq => ());
table!(
    /// `room, root` → [`Thread`].
    Threads, "thread", b"Rq", Hot, true, RoomNum => Thread);
