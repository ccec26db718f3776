//! Ids by which repetitions are known go when nobody repeats them any more: transactions after a day, other servers' messages
//! after a week.

use comity_storage::{CommitError, Key, Range, Table};

use crate::{
    ToDevice,
    tables::{Ids, Txns},
};

const DAY: u64 = 24 * 60 * 60 * 1_000;
/// Rows removed in one commit.
const REMOVED: usize = 500;

pub(crate) fn day(ms: u64) -> u32 {
    u32::try_from(ms / DAY).unwrap_or(u32::MAX)
}

pub(crate) fn week(ms: u64) -> u32 {
    day(ms) / 7
}

impl ToDevice {
    /// Removes the ids whose time is over. To be called now and then.
    ///
    /// # Errors
    /// The store's; the next call goes on.
    pub async fn tend(&self) -> Result<(), CommitError> {
        let now = self.now_ms();
        // Those of the last day and of the last week may still count.
        self.forget::<Txns>(day(now).saturating_sub(1)).await?;
        self.forget::<Ids>(week(now).saturating_sub(1)).await
    }

    /// Removes the rows from before this day or week, with which their keys begin.
    async fn forget<T: Table>(&self, before: u32) -> Result<(), CommitError> {
        let tenant = &self.0.tenant;
        let range = Range::everywhere(|_| {})
            .until(|key| {
                key.u32(before);
            })
            .limit(REMOVED);
        loop {
            let rows = tenant.reader().scan::<T>(range.clone()).await?;
            let last = rows.len() < REMOVED;
            for writer in tenant.writers() {
                let mut batch = writer.batch();
                let ours = rows.iter().filter(|(key, _)| writer.owns(key.home()));
                let mut any = false;
                for (key, _) in ours {
                    batch.delete::<T>(key);
                    any = true;
                }
                if any {
                    writer.commit(batch).await?;
                }
            }
            if last {
                return Ok(());
            }
        }
    }
}
