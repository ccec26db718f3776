//! Joins that were handed to another server, until it is known here what became of them.

use comity_storage::{Damaged, Home, Key, KeyReader, KeyWriter, RoomKey, postcard_value, tables};
use serde::{Deserialize, Serialize};

/// A user of ours on their way into a room.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Joining {
    /// The room.
    pub room: RoomKey,
    /// The user.
    pub user: String,
}

impl Key for Joining {
    fn home(&self) -> Home<'_> {
        Home::Room(self.room)
    }

    fn write(&self, to: &mut KeyWriter) {
        to.room(self.room).str(&self.user);
    }

    fn read(from: &mut KeyReader<'_>) -> Result<Self, Damaged> {
        Ok(Self {
            room: from.room()?,
            user: from.str()?,
        })
    }
}

/// A join that was handed over, by what it was made of: the same again is the same event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Handed {
    /// The room's id.
    pub room_id: String,
    /// What the user wants to say by it: a JSON object.
    pub content: String,
    /// Whom it was handed to.
    pub server: String,
    /// The room's version, as that server said it.
    pub version: Option<String>,
    /// Its template.
    pub template: String,
    /// When the event was made, in milliseconds since 1970.
    pub made_at: u64,
    /// Its maker's part of its id, in rooms where it has one.
    pub opaque_id: String,
}

postcard_value!(Handed);

tables! {
    /// `room, user` → [`Handed`].
    Joins: "join handed over", b"RJ", Queue, Joining => Handed;
}
