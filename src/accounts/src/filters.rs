//! Filters that clients store to name them in a sync.
//!
//! A filter's id is a hash of its content: storing one twice gives one id and one row.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#filtering>

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use comity_storage::{Home, Range};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use crate::{
    AccountError, Accounts,
    tables::{Filters, Json, UserPart, of_user},
};

/// Largest filter as JSON, in bytes.
const MAX_FILTER_BYTES: usize = 64 * 1024;
/// Most filters of a user; the one stored longest ago gives way.
const MOST_FILTERS: usize = 100;

impl Accounts {
    /// Stores a filter that the caller has found to be one; its id.
    ///
    /// # Errors
    /// [`AccountError::TooLarge`]; the store's.
    pub async fn create_filter(
        &self,
        user_id: &str,
        filter: &Map<String, Value>,
    ) -> Result<String, AccountError> {
        let text = serde_json::to_string(filter)
            .map_err(|_| AccountError::InvalidParam("The filter can't be stored."))?;
        if text.len() > MAX_FILTER_BYTES {
            return Err(AccountError::TooLarge("The filter is too large."));
        }
        let hash = Sha256::digest(&text);
        let id = URL_SAFE_NO_PAD.encode(hash.get(..12).unwrap_or_default());
        let home = Home::User(user_id);
        let lane = self.0.tenant.lane(home);
        let rows = lane
            .reader()
            .scan::<Filters>(Range::of(home, of_user(user_id)))
            .await?;
        if rows.iter().any(|(key, _)| key.part == id) {
            return Ok(id);
        }
        let mut batch = lane.batch();
        if rows.len() >= MOST_FILTERS
            && let Some((oldest, _)) = rows.iter().min_by_key(|(_, row)| row.pos)
        {
            batch.delete::<Filters>(oldest);
        }
        batch.put::<Filters>(&UserPart::new(user_id, &id), &Json(text));
        lane.commit(batch).await?;
        Ok(id)
    }

    /// A stored filter.
    ///
    /// # Errors
    /// [`AccountError::NotFound`]; the store's.
    pub async fn filter(
        &self,
        user_id: &str,
        filter_id: &str,
    ) -> Result<Map<String, Value>, AccountError> {
        // No id of ours is longer, and keys are bounded.
        let short = filter_id.len() <= 32;
        let row = match short {
            true => {
                self.get::<Filters>(&UserPart::new(user_id, filter_id))
                    .await?
            }
            false => None,
        };
        let row = row.ok_or(AccountError::NotFound("Filter"))?;
        serde_json::from_str(&row.value.0)
            .map_err(|_| AccountError::Internal("a stored filter is no JSON object"))
    }
}
