//! Following the lanes' logs: what every consumer stands on (law 2).

use std::sync::Arc;

use crate::{
    error::ReadError,
    heads::Heads,
    key::{At, Home, Lane, Slot},
    log::{LogKey, LogTable, Logged},
    read::{Range, Reader},
    store::Shared,
};

/// Commits taken from one lane in one go.
const CHUNK: usize = 256;

/// Reads the logs of all lanes from a cursor on, each in its order, up to the published heads.
pub struct Follower {
    shared: Arc<Shared>,
    cursor: Heads,
}

impl Follower {
    pub(crate) fn new(shared: Arc<Shared>, cursor: Heads) -> Self {
        Self { shared, cursor }
    }

    /// How far it has come: all that was returned, and what the commits before them held.
    pub fn cursor(&self) -> &Heads {
        &self.cursor
    }

    /// The next commits, at least one; waits for them.
    ///
    /// # Errors
    /// The log could not be read: nothing is skipped, call again.
    pub async fn next(&mut self) -> Result<Vec<Arc<Logged>>, ReadError> {
        let mut watch = self.shared.watch();
        loop {
            let heads = watch.borrow_and_update().clone();
            let found = self.up_to(&heads).await?;
            if !found.is_empty() {
                return Ok(found);
            }
            if watch.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }

    /// What there is now, without waiting; may be empty.
    ///
    /// # Errors
    /// As [`Follower::next`].
    pub async fn ready(&mut self) -> Result<Vec<Arc<Logged>>, ReadError> {
        let heads = self.shared.heads();
        self.up_to(&heads).await
    }

    async fn up_to(&mut self, heads: &Heads) -> Result<Vec<Arc<Logged>>, ReadError> {
        let mut found = Vec::new();
        // Moved for good only once every lane is read: a failure, or a caller that goes away, must
        // not step over what was read before it.
        let mut cursor = self.cursor.clone();
        for lane in self.shared.lanes.all() {
            let (from, to) = (cursor.get(lane), heads.get(lane));
            if from >= to {
                continue;
            }
            let mut commits = match self.shared.remembered(lane, from, CHUNK) {
                Some(commits) => commits,
                None => self.stored(lane, from).await?,
            };
            commits.retain(|logged| logged.pos <= to);
            // Positions jump with an incarnation: an empty stretch is behind us.
            let reached = if commits.len() < CHUNK {
                to
            } else {
                commits.last().map_or(to, |last| last.pos)
            };
            cursor = cursor.with(lane, reached);
            found.append(&mut commits);
        }
        self.cursor = cursor;
        Ok(found)
    }

    async fn stored(&self, lane: Lane, after: u64) -> Result<Vec<Arc<Logged>>, ReadError> {
        let reader = Reader {
            shared: self.shared.clone(),
            overlay: None,
            bound: self.cursor.clone(),
        };
        let range = Range::of(Home::Fixed(Slot::new(lane.0)), |key| {
            key.u8(lane.0);
        })
        .from(|key| {
            key.u64(after + 1);
        })
        .limit(CHUNK);
        let rows = reader.scan::<LogTable>(range).await?;
        let logged = |(key, row): (LogKey, crate::Row<crate::log::Entry>)| {
            let pos = match key.pos {
                At::Is(pos) => pos,
                At::Commit => 0,
            };
            Arc::new(Logged {
                lane,
                pos,
                records: row.value.records,
                owed: row.value.owed,
            })
        };
        Ok(rows.into_iter().map(logged).collect())
    }
}
