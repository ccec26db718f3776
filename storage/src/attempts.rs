//! Read, decide, commit; and again if something was changed in between.

use crate::{
    batch::Batch,
    error::CommitError,
    heads::Pos,
    lane::{Appended, LaneWriter},
};

/// How often a decision is made anew before the caller is told.
const MOST: u32 = 16;

/// Counts the attempts of one change.
#[derive(Debug, Default)]
pub struct Attempts(u32);

impl Attempts {
    /// Commits; `None` means that a condition no longer held and the caller is to read and decide again.
    ///
    /// # Errors
    /// The commit's; [`CommitError::Conflict`] only after the last attempt.
    pub async fn commit(
        &mut self,
        lane: &LaneWriter,
        batch: Batch,
    ) -> Result<Option<Pos>, CommitError> {
        self.again(lane.commit(batch).await)
    }

    /// Appends; `None` as of [`Attempts::commit`].
    ///
    /// # Errors
    /// As [`Attempts::commit`].
    pub async fn append(
        &mut self,
        lane: &LaneWriter,
        batch: Batch,
    ) -> Result<Option<Appended>, CommitError> {
        self.again(lane.append(batch).await)
    }

    fn again<T>(&mut self, outcome: Result<T, CommitError>) -> Result<Option<T>, CommitError> {
        match outcome {
            Ok(done) => Ok(Some(done)),
            Err(CommitError::Conflict(_)) if self.0 < MOST => {
                self.0 += 1;
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}
