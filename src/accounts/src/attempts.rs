//! Read, decide, commit; and again if something was changed in between.

use comity_storage::{Batch, CommitError, LaneWriter, Pos};

/// How often a decision is made anew before the caller is told.
const MOST: u32 = 16;

/// Counts the attempts of one change.
#[derive(Debug, Default)]
pub(crate) struct Attempts(u32);

impl Attempts {
    /// Commits; `None` means that a condition no longer held and the caller is to read and decide again.
    pub(crate) async fn commit(
        &mut self,
        lane: &LaneWriter,
        batch: Batch,
    ) -> Result<Option<Pos>, CommitError> {
        match lane.commit(batch).await {
            Ok(pos) => Ok(Some(pos)),
            Err(CommitError::Conflict(_)) if self.0 < MOST => {
                self.0 += 1;
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}
