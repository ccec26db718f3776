//! OpenID tokens: a user shows a third party who they are, without giving it their session.
//!
//! A token is signed and says all there is to know, so nothing is kept and any node can read it; the account must still be there.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#openid>

use std::time::Duration;

use crate::{AccountError, Accounts};

/// How long a token is good.
const LIFETIME: Duration = Duration::from_secs(60 * 60);

impl Accounts {
    /// A token that tells others who this user is, and how long it is good.
    ///
    /// # Errors
    /// [`AccountError::Internal`] if it can't be signed.
    pub fn openid_token(&self, user_id: &str) -> Result<(String, Duration), AccountError> {
        let now = self.now_ms();
        let lifetime = u64::try_from(LIFETIME.as_millis()).unwrap_or(u64::MAX);
        let token = self.0.tokens.openid(user_id, now, now + lifetime)?;
        Ok((token, LIFETIME))
    }

    /// Whose OpenID token this is.
    ///
    /// # Errors
    /// [`AccountError::UnknownToken`] if it is none of ours, too old, or of an account that is no more; the store's.
    pub async fn openid_user(&self, token: &str) -> Result<String, AccountError> {
        const UNKNOWN: AccountError = AccountError::UnknownToken { soft_logout: false };
        let (user_id, expires_ts) = self.0.tokens.read_openid(token).ok_or(UNKNOWN)?;
        if expires_ts <= self.now_ms() {
            return Err(UNKNOWN);
        }
        match self.user(&user_id).await? {
            Some(user) if !user.deactivated => Ok(user_id),
            _ => Err(UNKNOWN),
        }
    }
}
