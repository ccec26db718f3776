//! A device's wish to be silent is account data named after it, and goes with it.
//!
//! <https://github.com/matrix-org/matrix-spec-proposals/pull/3890>, a draft

use async_trait::async_trait;
use comity_storage::{Batch, CommitError, Reader};

use crate::{Belongings, DeviceChange, account_data};

/// What the type begins with, as long as it is a draft; the device's id follows.
const SETTINGS_OF: &str = "org.matrix.msc3890.local_notification_settings.";

/// See the module.
pub(crate) struct LocalNotifications;

#[async_trait]
impl Belongings for LocalNotifications {
    async fn follow(
        &self,
        reader: &Reader,
        user_id: &str,
        changes: &[DeviceChange],
        batch: &mut Batch,
    ) -> Result<(), CommitError> {
        // All account data goes with its account.
        if changes.contains(&DeviceChange::AccountEnded) {
            return Ok(());
        }
        for change in changes {
            if let DeviceChange::Removed { device } = change {
                let kind = format!("{SETTINGS_OF}{device}");
                account_data::delete(reader, user_id, &kind, batch).await?;
            }
        }
        Ok(())
    }
}
