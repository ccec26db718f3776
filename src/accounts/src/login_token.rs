//! Login tokens: a signed-in device vouches for a new one, once and for a short time.
//!
//! In memory: who asked for one asks again after a restart.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#token-based-user-login>

use std::{collections::BTreeMap, time::Duration};

use parking_lot::Mutex;

use crate::{AccountError, Accounts, Issued, Limit, NewDevice};

const LIFETIME: Duration = Duration::from_secs(120);
/// Tokens kept; the one that ends first gives way.
const MOST: usize = 10_000;

/// Tokens given and not yet used: whose, and when they end on the monotonic clock.
#[derive(Debug, Default)]
pub(crate) struct LoginTokens(Mutex<BTreeMap<String, (String, Duration)>>);

impl Accounts {
    /// A token that signs one more device of this user in, and how many milliseconds it is good.
    ///
    /// <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv1loginget_token>
    pub fn login_token(&self, user_id: &str) -> (String, u64) {
        let now = self.0.runtime.clock().monotonic();
        let token = self.0.runtime.random().alphanumeric(32);
        let mut tokens = self.0.login_tokens.0.lock();
        if tokens.len() >= MOST {
            tokens.retain(|_, (_, ends)| *ends > now);
            let first = tokens.iter().min_by_key(|(_, (_, ends))| *ends);
            let first = first.map(|(token, _)| token.clone());
            if let Some(first) = first.filter(|_| tokens.len() >= MOST) {
                tokens.remove(&first);
            }
        }
        tokens.insert(token.clone(), (user_id.to_owned(), now + LIFETIME));
        (token, u64::try_from(LIFETIME.as_millis()).unwrap_or(0))
    }

    /// Signs in with a login token, which is spent by it. `address` is where the request came from.
    ///
    /// # Errors
    /// [`AccountError::Forbidden`] for a token that is none, spent or too old; as [`Accounts::login`].
    pub async fn token_login(
        &self,
        token: &str,
        address: &str,
        device: NewDevice,
    ) -> Result<Issued, AccountError> {
        self.0.limits.take(Limit::LoginByAddress, address)?;
        let now = self.0.runtime.clock().monotonic();
        let spent = self.0.login_tokens.0.lock().remove(token);
        match spent {
            Some((user_id, ends)) if ends > now => self.login(&user_id, device).await,
            _ => Err(AccountError::Forbidden("Invalid login token")),
        }
    }
}
