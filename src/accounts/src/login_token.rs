//! Login tokens: a signed-in device vouches for a new one, once and for a short time.
//!
//! In memory: who asked for one asks again after a restart. A token rests on the password that was proved for it, and is worth
//! nothing once there is another.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#token-based-user-login>

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use parking_lot::Mutex;

use crate::{AccountError, Accounts, Issued, Limit, NewDevice, password::Proof};

const LIFETIME: Duration = Duration::from_secs(120);
/// Tokens kept of a user; the oldest gives way. Only who proved their password has any, so that users bound the whole.
const OF_ONE: usize = 4;

/// A token that was given and not yet used.
#[derive(Debug)]
struct Given {
    token: String,
    proof: Proof,
    /// On the monotonic clock.
    ends: Duration,
}

/// Tokens by their user.
#[derive(Debug, Default)]
pub(crate) struct LoginTokens(Mutex<BTreeMap<String, VecDeque<Given>>>);

impl LoginTokens {
    fn give(&self, user_id: &str, given: Given, now: Duration) {
        let mut users = self.0.lock();
        // As many users are looked through as have proved their password in the last two minutes.
        users.retain(|_, tokens| {
            tokens.retain(|given| given.ends > now);
            !tokens.is_empty()
        });
        let tokens = users.entry(user_id.to_owned()).or_default();
        if tokens.len() >= OF_ONE {
            tokens.pop_front();
        }
        tokens.push_back(given);
    }

    /// Takes a token out, with its user.
    fn spend(&self, token: &str) -> Option<(String, Given)> {
        let mut users = self.0.lock();
        users.iter_mut().find_map(|(user_id, tokens)| {
            let at = tokens.iter().position(|given| given.token == token)?;
            Some((user_id.clone(), tokens.remove(at)?))
        })
    }
}

impl Accounts {
    /// A token that signs one more device of this user in, and how many milliseconds it is good. It ends with the password that
    /// was proved.
    ///
    /// <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv1loginget_token>
    pub fn login_token(&self, user_id: &str, proof: Proof) -> (String, u64) {
        let now = self.0.runtime.clock().monotonic();
        let token = self.0.runtime.random().alphanumeric(32);
        let given = Given {
            token: token.clone(),
            proof,
            ends: now + LIFETIME,
        };
        self.0.login_tokens.give(user_id, given, now);
        (token, u64::try_from(LIFETIME.as_millis()).unwrap_or(0))
    }

    /// Signs in with a login token, which is spent by it. `address` is where the request came from.
    ///
    /// # Errors
    /// [`AccountError::Forbidden`] for a token that is none, spent, too old, or of a password that was changed; as
    /// [`Accounts::login`].
    pub async fn token_login(
        &self,
        token: &str,
        address: &str,
        device: NewDevice,
    ) -> Result<Issued, AccountError> {
        const INVALID: AccountError = AccountError::Forbidden("Invalid login token");
        self.0.limits.take(Limit::LoginByAddress, address)?;
        let now = self.0.runtime.clock().monotonic();
        let spent = self.0.login_tokens.spend(token);
        let (user_id, given) = spent.filter(|(_, given)| given.ends > now).ok_or(INVALID)?;
        match self
            .start_session(&user_id, device, Some(&given.proof))
            .await
        {
            Err(AccountError::WrongCredentials) => Err(INVALID),
            begun => begun,
        }
    }
}
