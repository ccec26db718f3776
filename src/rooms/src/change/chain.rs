//! The auth-chain cover of a room: its rows as [`crate::chains`] reads and writes them.

use bytes::Bytes;
use comity_storage::{Home, Range, ReadError, Reader, RoomKey};

use super::{Change, Known};
use crate::{
    chains::{ChainError, ChainIndex, ChainKey, ChainSource, NewEvent},
    error::RoomError,
    live::Pending,
    num::StateKeyNum,
    tables::{self, RoomChain},
};

/// A room's chain rows: those of the change in progress, then the stored ones.
#[derive(Clone)]
pub(crate) struct RoomChains {
    room: RoomKey,
    reader: Reader,
    pending: Pending,
}

impl RoomChains {
    pub fn new(room: RoomKey, reader: Reader, pending: Pending) -> Self {
        Self {
            room,
            reader,
            pending,
        }
    }
}

impl ChainSource for RoomChains {
    type Error = ReadError;

    async fn rows(&self, keys: &[ChainKey]) -> Result<Vec<Option<Bytes>>, ReadError> {
        let made: Vec<Option<Bytes>> = {
            let pending = self.pending.chains.lock();
            keys.iter().map(|key| pending.get(key).cloned()).collect()
        };
        let at = |key: &ChainKey| RoomChain {
            room: self.room,
            key: *key,
        };
        let unmade: Vec<RoomChain> = keys
            .iter()
            .zip(&made)
            .filter(|(_, made)| made.is_none())
            .map(|(key, _)| at(key))
            .collect();
        let mut stored = self
            .reader
            .get_many::<tables::Chains>(&unmade)
            .await?
            .into_iter();
        Ok(made
            .into_iter()
            .map(|made| made.or_else(|| stored.next().flatten().map(|row| row.value)))
            .collect())
    }

    async fn scan(
        &self,
        ranges: &[(ChainKey, ChainKey)],
        limit: usize,
    ) -> Result<Vec<Vec<ChainKey>>, ReadError> {
        let room = self.room;
        let range = |(first, last): &(ChainKey, ChainKey)| {
            Range::of(Home::Room(room), |key| {
                key.room(room);
            })
            .from(|key| {
                key.fixed(&first.encode());
            })
            .until(|key| {
                key.fixed(&last.encode());
            })
            .limit(limit)
        };
        let stored = self
            .reader
            .scan_many::<tables::Chains>(ranges.iter().map(range).collect())
            .await?;
        let pending = self.pending.chains.lock();
        let page = |((first, last), stored): (&(ChainKey, ChainKey), Vec<_>)| {
            let made = pending.range(first..last).map(|(key, _)| *key);
            let mut page: Vec<ChainKey> = stored
                .into_iter()
                .map(|(at, _): (RoomChain, _)| at.key)
                .chain(made)
                .collect();
            page.sort_unstable();
            page.dedup();
            page.truncate(limit);
            page
        };
        Ok(ranges.iter().zip(stored).map(page).collect())
    }
}

impl From<ChainError<ReadError>> for RoomError {
    fn from(error: ChainError<ReadError>) -> Self {
        match error {
            ChainError::Source(error) => Self::Read(error),
            other => Self::Damaged(other.to_string()),
        }
    }
}

impl Change {
    /// The room's auth chains.
    pub(super) fn chains(&self) -> Result<ChainIndex<RoomChains>, RoomError> {
        let live = self.live()?;
        let (room, reader) = (live.room, live.reader());
        let chains = RoomChains::new(room, reader, live.pending.clone());
        Ok(ChainIndex::new(chains))
    }

    /// Gives a state event its place on a chain.
    pub(super) async fn put_chain(
        &mut self,
        event: &Known,
        key: StateKeyNum,
    ) -> Result<(), RoomError> {
        let new = NewEvent {
            num: event.num,
            key,
            auth: event.auth.clone(),
        };
        let rows = self.chains()?.insert(&[new]).await?;
        let live = self.live()?;
        let (room, pending) = (live.room, live.pending.clone());
        let mut pending = pending.chains.lock();
        for row in rows {
            let at = RoomChain { room, key: row.key };
            self.batch.put::<tables::Chains>(&at, &row.value);
            pending.insert(row.key, row.value);
        }
        Ok(())
    }
}
