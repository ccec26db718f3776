//! Whose account an administrator may lock or suspend. The asker's right comes first, so that nobody else learns who has an account.

use comity_accounts::tables::User as Account;
use comity_protocol::id::UserId;

use crate::{Api, ApiError, User};

/// The account of a user of this server who is no administrator.
pub(super) async fn account(api: &Api, asker: &User, of: &UserId) -> Result<Account, ApiError> {
    asker.must_be_admin()?;
    if of.server_name() != api.rooms.server_name() {
        return Err(ApiError::invalid_param("The user is of another server"));
    }
    if asker.id == of {
        return Err(ApiError::forbidden("This is your own account"));
    }
    match api.accounts.user(of.as_str()).await? {
        Some(account) if account.deactivated => Err(ApiError::not_found("User not found")),
        Some(account) if account.admin => Err(ApiError::forbidden(
            "The user is an administrator themselves",
        )),
        Some(account) => Ok(account),
        None => Err(ApiError::not_found("User not found")),
    }
}
