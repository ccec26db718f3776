//! The shapes of this crate's keys.

use comity_storage::{At, Damaged, Home, Key, KeyReader, KeyWriter, RoomKey};

/// Declares a key: its fields in order, and whose it is.
macro_rules! key {
    ($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty = $codec:ident),+ $(,)? } home $self:ident => $home:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
        pub struct $name { $($(#[$field_doc])* pub $field: $type),+ }
        impl Key for $name {
            fn home(&self) -> Home<'_> { let $self = self; $home }
            fn write(&self, to: &mut KeyWriter) { $(key!(write $codec, to, &self.$field);)+ }
            fn read(from: &mut KeyReader<'_>) -> Result<Self, Damaged> {
                Ok(Self { $($field: key!(read $codec, from)),+ })
            }
        }
    };
    (write room, $to:ident, $v:expr) => { $to.room(*$v) };
    (write u32, $to:ident, $v:expr) => { $to.u32(*$v) };
    (write i64, $to:ident, $v:expr) => { $to.i64(*$v) };
    (write u64, $to:ident, $v:expr) => { $to.u64(*$v) };
    (write at, $to:ident, $v:expr) => { $to.position(*$v) };
    (write text, $to:ident, $v:expr) => { $to.str($v) };
    (write hash, $to:ident, $v:expr) => { $to.fixed($v) };
    (read room, $from:ident) => { $from.room()? };
    (read u32, $from:ident) => { $from.u32()? };
    (read i64, $from:ident) => { $from.i64()? };
    (read u64, $from:ident) => { $from.u64()? };
    (read at, $from:ident) => { $from.position()? };
    (read text, $from:ident) => { $from.str()? };
    (read hash, $from:ident) => { $from.fixed()? };
}

key! {
    /// A room.
    InRoom { /// The room.
        room: RoomKey = room } home key => Home::Room(key.room)
}
key! {
    /// Something numbered in a room.
    RoomNum { /// The room.
        room: RoomKey = room, /// The number.
        num: u32 = u32 } home key => Home::Room(key.room)
}
key! {
    /// Something by the position that wrote it.
    RoomAt { /// The room.
        room: RoomKey = room, /// The position.
        pos: At = at } home key => Home::Room(key.room)
}
key! {
    /// Something named in a room.
    RoomText { /// The room.
        room: RoomKey = room, /// The name.
        name: String = text } home key => Home::Room(key.room)
}
key! {
    /// A state key.
    RoomStateKey { /// The room.
        room: RoomKey = room, /// The event type.
        event_type: String = text, /// The state key.
        state_key: String = text } home key => Home::Room(key.room)
}
impl RoomStateKey {
    /// The key of these.
    pub(crate) fn new(room: RoomKey, event_type: &str, state_key: &str) -> Self {
        let (event_type, state_key) = (event_type.to_owned(), state_key.to_owned());
        Self {
            room,
            event_type,
            state_key,
        }
    }
}
key! {
    /// A content-addressed node.
    RoomHash { /// The room.
        room: RoomKey = room, /// Its hash.
        hash: [u8; 16] = hash } home key => Home::Room(key.room)
}
key! {
    /// A place in the room's order.
    RoomPlace { /// The room.
        room: RoomKey = room, /// The sequence number.
        seq: i64 = i64, /// Within it: 0 for what came live, below for history fetched later.
        sub: i64 = i64 } home key => Home::Room(key.room)
}
key! {
    /// A transaction of a device.
    RoomTxn { /// The day it was done, so that those of a day go together.
        day: u32 = u32, /// The room.
        room: RoomKey = room, /// Who.
        user: String = text, /// With which device.
        device: String = text, /// Which call, and the transaction id.
        txn: String = text } home key => Home::Room(key.room)
}
key! {
    /// A relation, found from the event related to.
    RoomRelation { /// The room.
        room: RoomKey = room, /// The event related to.
        target: u32 = u32, /// Where the relating event stands.
        seq: i64 = i64, /// Likewise.
        sub: i64 = i64 } home key => Home::Room(key.room)
}
key! {
    /// A relation of a certain kind, found from an event.
    RoomRelated { /// The room.
        room: RoomKey = room, /// The event from which it is found.
        target: u32 = u32, /// Of which kind ([`super::Scope`]).
        scope: u64 = u64, /// Where the relating event stands.
        seq: i64 = i64, /// Likewise.
        sub: i64 = i64 } home key => Home::Room(key.room)
}
key! {
    /// A live event by its sequence number.
    RoomSeq { /// The room.
        room: RoomKey = room, /// The number.
        seq: i64 = i64 } home key => Home::Room(key.room)
}
key! {
    /// Two events of a room, found from the first.
    RoomPair { /// The room.
        room: RoomKey = room, /// The first's number.
        num: u32 = u32, /// The second's.
        other: u32 = u32 } home key => Home::Room(key.room)
}
key! {
    /// A receipt by the position that moved it.
    RoomReceiptAt { /// The room.
        room: RoomKey = room, /// The position.
        pos: At = at, /// Whose.
        user: String = text, /// `m.read` or `m.read.private`.
        kind: String = text, /// `thread_id`, empty for none.
        thread: String = text } home key => Home::Room(key.room)
}
key! {
    /// How far a user has read.
    RoomReceipt { /// The room.
        room: RoomKey = room, /// Whose.
        user: String = text, /// `m.read`, `m.read.private`, or empty: by joining or writing.
        kind: String = text, /// `thread_id`, empty for the whole room.
        thread: String = text } home key => Home::Room(key.room)
}
key! {
    /// Where a member turned to another ruleset.
    RoomTurn { /// The room.
        room: RoomKey = room, /// The member.
        user: String = text, /// After the event with this sequence number.
        seq: i64 = i64 } home key => Home::Room(key.room)
}
key! {
    /// An event that counts otherwise for one user.
    UserHit { /// The user.
        user: String = text, /// The room.
        room: RoomKey = room, /// The event's sequence number.
        seq: i64 = i64 } home key => Home::Room(key.room)
}
key! {
    /// A user's row in a room, found from the user.
    UserRoom { /// The user.
        user: String = text, /// The room.
        room: RoomKey = room } home key => Home::Room(key.room)
}
key! {
    /// A user of ours, in their own lane.
    UserName { /// The user.
        user: String = text } home key => Home::User(&key.user)
}
key! {
    /// A bare event id.
    IdRoom { /// The event.
        event_id: String = text, /// A room that has it.
        room: RoomKey = room } home key => Home::Room(key.room)
}
key! {
    /// A tenant-wide name, in a lane of its own.
    Named { /// The name.
        name: String = text } home key => Home::Name(&key.name)
}
key! {
    /// A room in a tenant-wide list, in the room's lane.
    Listed { /// The room.
        room: RoomKey = room } home key => Home::Room(key.room)
}
