//! What is asked of those who send others away: whom, and why.

use comity_protocol::id::OwnedUserId;
use serde::Deserialize;

#[derive(Deserialize)]
pub(super) struct Target {
    pub user_id: OwnedUserId,
    pub reason: Option<String>,
}
