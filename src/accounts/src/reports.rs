//! Reports: what users tell the administrators about rooms, events and other users.
//!
//! A report is a row of the audit slot, written once and never changed, in the order of time. Whether what it is about exists,
//! and whether the reporter may know of it, is decided before.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#reporting-content>

use comity_storage::Range;
use serde::{Deserialize, Serialize};

use crate::{
    AccountError, Accounts,
    tables::{AUDIT, ReportKey, Reports},
};

/// Longest reason, in bytes.
const MAX_REASON_BYTES: usize = 8 * 1024;

/// What a report is about, by ids.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reported {
    /// A room.
    Room(String),
    /// An event of a room.
    Event {
        /// The room.
        room_id: String,
        /// The event.
        event_id: String,
    },
    /// A user.
    User(String),
}

/// A report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The id of the user who made it.
    pub reporter: String,
    /// What it is about.
    pub about: Reported,
    /// Why, in the reporter's words; at most 8 KiB.
    pub reason: String,
}

impl Accounts {
    /// Keeps a report.
    ///
    /// # Errors
    /// [`AccountError::TooLarge`] for a longer reason; the store's.
    pub async fn report(&self, report: &Report) -> Result<(), AccountError> {
        if report.reason.len() > MAX_REASON_BYTES {
            return Err(AccountError::TooLarge("The reason is too long."));
        }
        let key = ReportKey {
            ts: self.now_ms(),
            id: self.0.runtime.random().bytes(),
        };
        let lane = self.0.tenant.lane(AUDIT);
        let mut batch = lane.batch();
        batch.put::<Reports>(&key, report);
        lane.commit(batch).await?;
        Ok(())
    }

    /// Reports with the times they were made, in milliseconds since 1970, the newest first; those before `before` if it is given.
    ///
    /// # Errors
    /// The store's.
    pub async fn reports(
        &self,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Vec<(u64, Report)>, AccountError> {
        let mut range = Range::of(AUDIT, |_| {});
        if let Some(before) = before {
            range = range.until(|key| {
                key.u64(before);
            });
        }
        let range = range.reverse().limit(limit);
        let rows = self.0.tenant.reader().scan::<Reports>(range).await?;
        Ok(rows
            .into_iter()
            .map(|(key, row)| (key.ts, row.value))
            .collect())
    }
}
