//! Profiles: display name, avatar, and fields of the user's choosing. One row, so that its size has one bound.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#profiles>

use comity_storage::{Attempts, Batch, Expect, Home};
use serde_json::{Map, Value};

use crate::{
    AccountError, Accounts, Change,
    tables::{Json, Profiles, UserKey},
};

/// Longest name of a field, in bytes.
const MAX_NAME_BYTES: usize = 255;
/// Largest profile as JSON, in bytes.
const MAX_PROFILE_BYTES: usize = 64 * 1024;
/// The field of the display name.
pub const DISPLAY_NAME: &str = "displayname";
/// The field of the avatar's `mxc:` URI.
pub const AVATAR_URL: &str = "avatar_url";
/// The field of the time zone.
const TIME_ZONE: &str = "m.tz";

impl Accounts {
    /// A user's profile.
    ///
    /// # Errors
    /// [`AccountError::NotFound`] if there is no such user, or no longer; the store's.
    pub async fn profile(&self, user_id: &str) -> Result<Map<String, Value>, AccountError> {
        let row = self.get::<Profiles>(&UserKey(user_id.to_owned())).await?;
        if let Some(row) = row {
            return parse(&row.value);
        }
        match self.user(user_id).await? {
            Some(user) if !user.deactivated => Ok(Map::new()),
            _ => Err(AccountError::NotFound("Profile")),
        }
    }

    /// Sets a field, or removes it with `None`. Whether something changed.
    ///
    /// # Errors
    /// As [`Accounts::change_profile`].
    pub async fn set_profile_field(
        &self,
        user_id: &str,
        field: &str,
        value: Option<Value>,
    ) -> Result<bool, AccountError> {
        self.change_profile(user_id, field, value, |_, _| ()).await
    }

    /// As [`Accounts::set_profile_field`]; `beside` adds what else belongs to the new profile, in the user's lane, to the same
    /// commit: that it is still to be shown somewhere.
    ///
    /// # Errors
    /// [`AccountError::InvalidParam`] for a name or value that can't be, [`AccountError::KeyTooLarge`],
    /// [`AccountError::ProfileTooLarge`], [`AccountError::NotFound`]; the store's.
    pub async fn change_profile(
        &self,
        user_id: &str,
        field: &str,
        value: Option<Value>,
        beside: impl Fn(&mut Batch, &Map<String, Value>),
    ) -> Result<bool, AccountError> {
        check(field, value.as_ref())?;
        let key = UserKey(user_id.to_owned());
        let lane = self.0.tenant.lane(Home::User(user_id));
        let change = Change::Profile {
            field: field.to_owned(),
        };
        let mut attempts = Attempts::default();
        loop {
            let reader = lane.reader();
            let user = self.existing(&reader, user_id).await?;
            let row = reader.get::<Profiles>(&key).await?;
            let old = row
                .as_ref()
                .map(|row| parse(&row.value))
                .transpose()?
                .unwrap_or_default();
            let mut profile = old.clone();
            match &value {
                Some(value) => drop(profile.insert(field.to_owned(), value.clone())),
                None => drop(profile.remove(field)),
            }
            if profile == old {
                return Ok(false);
            }
            let mut batch = lane.batch();
            beside(&mut batch, &profile);
            let text = Value::Object(profile).to_string();
            if text.len() > MAX_PROFILE_BYTES {
                return Err(AccountError::ProfileTooLarge);
            }
            // An account deactivated meanwhile must not get its profile back.
            batch.expect::<crate::tables::Users>(&key, Expect::At(user.pos));
            batch.expect::<Profiles>(&key, row.map_or(Expect::Absent, |row| Expect::At(row.pos)));
            batch
                .put::<Profiles>(&key, &Json(text))
                .log(change.record(user_id));
            if attempts.commit(lane, batch).await?.is_some() {
                return Ok(true);
            }
        }
    }
}

/// The profile of a new account.
pub(crate) fn named(name: &str) -> Result<Json, AccountError> {
    let text = serde_json::json!({ DISPLAY_NAME: name }).to_string();
    if text.len() > MAX_PROFILE_BYTES {
        return Err(AccountError::ProfileTooLarge);
    }
    Ok(Json(text))
}

/// Custom fields have names of the common namespaced identifier grammar; those of the spec have strings.
fn check(field: &str, value: Option<&Value>) -> Result<(), AccountError> {
    if field.len() > MAX_NAME_BYTES {
        return Err(AccountError::KeyTooLarge);
    }
    let known = matches!(field, DISPLAY_NAME | AVATAR_URL | TIME_ZONE);
    let first = field.chars().next().is_some_and(|c| c.is_ascii_lowercase());
    let rest =
        |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '_' | '-');
    let named = known || (first && field.chars().all(rest));
    if !named {
        return Err(AccountError::InvalidParam(
            "The field's name is not a namespaced identifier.",
        ));
    }
    if known && value.is_some_and(|value| !value.is_string()) {
        return Err(AccountError::InvalidParam(
            "The field's value must be a string.",
        ));
    }
    Ok(())
}

pub(crate) fn parse(row: &Json) -> Result<Map<String, Value>, AccountError> {
    serde_json::from_str(&row.0)
        .map_err(|_| AccountError::Internal("a stored profile is no JSON object"))
}
