//! What a user made of a room goes with them to the one that replaces it.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#server-behaviour-19>

use serde_json::{Map, Value};

use crate::{AccountError, Accounts, account_data::TAGS};

/// The type that says with whom rooms are direct.
const DIRECT: &str = "m.direct";

impl Accounts {
    /// Gives a user's tags and push rules of a room, and its being a direct chat, to another room as
    /// well. Doing it twice does nothing.
    ///
    /// # Errors
    /// The store's.
    pub async fn carry_over(
        &self,
        user_id: &str,
        from: &str,
        to: &str,
    ) -> Result<(), AccountError> {
        let tags = self.room_account_data(user_id, from, TAGS).await?;
        let tags = tags
            .as_ref()
            .and_then(|content| content.get("tags")?.as_object());
        for (tag, content) in tags.into_iter().flatten() {
            let content = content.as_object().cloned().unwrap_or_default();
            self.set_tag(user_id, to, tag, &content).await?;
        }
        // Rules that no longer fit in are left behind.
        let copied = self
            .edit_push_rules(user_id, |rules| {
                rules.copy_room(from, to);
                Ok(())
            })
            .await?;
        drop(copied);
        let Some(mut direct) = self.account_data(user_id, DIRECT).await? else {
            return Ok(());
        };
        let Some(direct) = direct.as_object_mut() else {
            return Ok(());
        };
        if add_direct(direct, from, to) {
            self.set_account_data(user_id, DIRECT, direct).await?;
        }
        Ok(())
    }
}

fn add_direct(direct: &mut Map<String, Value>, from: &str, to: &str) -> bool {
    let mut added = false;
    for rooms in direct.values_mut().filter_map(Value::as_array_mut) {
        if rooms.iter().any(|room| room == from) && !rooms.iter().any(|room| room == to) {
            rooms.push(to.into());
            added = true;
        }
    }
    added
}
