//! The auth-chain cover's rows.

use comity_storage::{Damaged, Home, Key, KeyReader, KeyWriter, RoomKey};

use super::table;
use crate::chains::ChainKey;

/// A row of a room's auth-chain cover.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct RoomChain {
    /// The room.
    pub room: RoomKey,
    /// Which row.
    pub key: ChainKey,
}

impl Key for RoomChain {
    fn home(&self) -> Home<'_> {
        Home::Room(self.room)
    }
    fn write(&self, to: &mut KeyWriter) {
        to.room(self.room).fixed(&self.key.encode());
    }
    fn read(from: &mut KeyReader<'_>) -> Result<Self, Damaged> {
        let room = from.room()?;
        let key = ChainKey::decode(from.rest()).ok_or(Damaged("no key of an auth chain's row"))?;
        Ok(Self { room, key })
    }
}

table!(
    /// `room, chain key` → a row of the auth-chain cover, by [`crate::chains`].
    Chains, "auth chain", b"Ra", Node, false, RoomChain => bytes::Bytes);
