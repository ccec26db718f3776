//! Registration: open, by token, by shared secret, and for guests.

use std::{collections::BTreeMap, fmt, time::Duration};

use comity_storage::{Attempts, CommitError, Expect, Home, Range};
use hmac::{Hmac, KeyInit, Mac};
use parking_lot::Mutex;
use sha1::Sha1;

use crate::{
    AccountError, Accounts, Change, DeviceChange,
    login::{Issued, NewDevice, check_device},
    profile,
    tables::{
        Device, Devices, Json, Named, Profiles, RegistrationToken, RegistrationTokens, Sessions,
        User, UserKey, UserPart, Users,
    },
};

/// How long a nonce of the shared-secret registration is good.
const NONCE_LIFETIME: Duration = Duration::from_secs(60);
/// Nonces kept; the oldest give way.
const MOST_NONCES: usize = 1_000;
const MAX_TOKEN_BYTES: usize = 64;

/// A new account.
#[derive(Clone, Default)]
pub struct Registration {
    /// The localpart asked for, or `None` for a generated one.
    pub username: Option<String>,
    /// The password; `None` for an account that signs in otherwise.
    pub password: Option<String>,
    /// The name that others see; `None` for the localpart. A guest has none.
    pub display_name: Option<String>,
    /// A guest account: its name is generated, it has no password.
    pub guest: bool,
    /// An administrator's.
    pub admin: bool,
    /// The registration token to spend on it.
    pub token: Option<String>,
    /// The device to sign in at once, if any.
    pub device: Option<NewDevice>,
}

/// An account that was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registered {
    /// Its id.
    pub user_id: String,
    /// Its first login, if one was asked for.
    pub issued: Option<Issued>,
}

/// A request of Synapse's `/_synapse/admin/v1/register`.
#[derive(Clone)]
pub struct SharedSecretRegistration<'a> {
    /// The nonce we gave.
    pub nonce: &'a str,
    /// The localpart.
    pub username: &'a str,
    /// The password.
    pub password: &'a str,
    /// Whether it is to be an administrator.
    pub admin: bool,
    /// The name that others see; no part of the MAC.
    pub display_name: Option<&'a str>,
    /// Synapse's `user_type`, which takes part in the MAC.
    pub user_type: Option<&'a str>,
    /// HMAC-SHA1 of the above by the shared secret, in hexadecimal.
    pub mac: &'a str,
}

/// Without the password and the token.
impl fmt::Debug for Registration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registration")
            .field("username", &self.username)
            .field("guest", &self.guest)
            .field("admin", &self.admin)
            .finish_non_exhaustive()
    }
}

/// Without the password and its proof.
impl fmt::Debug for SharedSecretRegistration<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedSecretRegistration")
            .field("username", &self.username)
            .field("admin", &self.admin)
            .finish_non_exhaustive()
    }
}

/// Nonces given and not yet used, with when they end on the monotonic clock.
#[derive(Debug, Default)]
pub(crate) struct Nonces(Mutex<BTreeMap<String, Duration>>);

impl Accounts {
    /// Whether anyone may register.
    pub fn registration_open(&self) -> bool {
        self.0.config.registration_open
    }

    /// Makes an account, and signs its device in in the same commit. Whether the request may is checked here for guests only: the
    /// ways in (open, token, shared secret, command line) differ in what they ask before.
    ///
    /// # Errors
    /// [`AccountError::InvalidUsername`], [`AccountError::UserInUse`], [`AccountError::RegistrationRefused`],
    /// [`AccountError::Forbidden`] for a token that is none or spent; the store's.
    pub async fn register(&self, new: Registration) -> Result<Registered, AccountError> {
        if new.guest && !self.0.config.guests {
            return Err(AccountError::RegistrationRefused(
                "Guest accounts are not allowed here.",
            ));
        }
        let user_id = match &new.username {
            Some(username) if !new.guest => self.new_user_id(username)?,
            _ if new.guest => self.numbered_id(),
            _ => self.generated_id(),
        };
        let device = new.device.clone().unwrap_or_default();
        check_device(&device)?;
        let name = new.display_name.as_deref();
        // Others see a name from the first moment, and its owner changes it when they like.
        let profile = match (new.guest, name.or_else(|| user_id.split(['@', ':']).nth(1))) {
            (false, Some(name)) => Some(profile::named(name)?),
            _ => None,
        };
        let password = match &new.password {
            Some(password) if !new.guest => Some(self.0.passwords.hash(password).await?),
            _ => None,
        };
        let user = User {
            password,
            created_ts: self.now_ms(),
            guest: new.guest,
            admin: new.admin,
            ..User::default()
        };
        let Some(token) = &new.token else {
            return self.insert(user_id, user, profile, new.device).await;
        };
        // Spent first and given back on failure: a crash in between may waste a use, never grant one too many (G21); so does an
        // outcome that is not known.
        self.spend_token(token).await?;
        let registered = self.insert(user_id, user, profile, new.device).await;
        let unknown = matches!(
            &registered,
            Err(AccountError::Commit(CommitError::Unknown(_)))
        );
        if registered.is_err() && !unknown {
            self.change_token(token, |row| row.uses = row.uses.saturating_sub(1))
                .await?;
        }
        registered
    }

    async fn insert(
        &self,
        user_id: String,
        user: User,
        profile: Option<Json>,
        device: Option<NewDevice>,
    ) -> Result<Registered, AccountError> {
        let key = UserKey(user_id.clone());
        let lane = self.0.tenant.lane(Home::User(&user_id));
        let mut batch = lane.batch();
        batch
            .expect::<Users>(&key, Expect::Absent)
            .put::<Users>(&key, &user);
        if let Some(profile) = &profile {
            batch.put::<Profiles>(&key, profile);
        }
        let issued = match device {
            None => None,
            Some(device) => {
                let id = device.device_id.filter(|id| !id.is_empty());
                let id = id.unwrap_or_else(|| {
                    self.0
                        .runtime
                        .random()
                        .alphanumeric(10)
                        .to_ascii_uppercase()
                });
                let session = self.new_session(device.refresh);
                let part = UserPart::new(&user_id, &id);
                let row = Device {
                    display_name: device.display_name,
                    created_ts: user.created_ts,
                };
                batch
                    .put::<Devices>(&part, &row)
                    .put::<Sessions>(&part, &session);
                batch.log(Change::Device { device: id.clone() }.record(&user_id));
                let named = DeviceChange::Named {
                    device: id.clone(),
                    name: row.display_name,
                };
                self.add_belongings(&lane.reader(), &user_id, &[named], &mut batch)
                    .await?;
                Some(self.issue(&user_id, &id, &session)?)
            }
        };
        match lane.commit(batch).await {
            Ok(_) => Ok(Registered { user_id, issued }),
            Err(CommitError::Conflict(_)) => Err(AccountError::UserInUse),
            Err(error) => Err(error.into()),
        }
    }

    /// Digits alone, which no user may choose: a guest's.
    fn numbered_id(&self) -> String {
        let number = self.0.runtime.random().u64();
        format!("@{number}:{}", self.0.config.server_name)
    }

    fn generated_id(&self) -> String {
        let name = self
            .0
            .runtime
            .random()
            .alphanumeric(12)
            .to_ascii_lowercase();
        format!("@u{name}:{}", self.0.config.server_name)
    }

    /// A nonce for the shared-secret registration.
    ///
    /// # Errors
    /// [`AccountError::InvalidParam`] if the server has no shared secret.
    pub fn registration_nonce(&self) -> Result<String, AccountError> {
        self.shared_secret()?;
        let now = self.0.runtime.clock().monotonic();
        let nonce = self.0.runtime.random().alphanumeric(64);
        let mut nonces = self.0.nonces.0.lock();
        nonces.retain(|_, ends| *ends > now);
        if nonces.len() >= MOST_NONCES {
            let oldest = nonces
                .iter()
                .min_by_key(|(_, ends)| **ends)
                .map(|(nonce, _)| nonce.clone());
            nonces.remove(&oldest.unwrap_or_default());
        }
        nonces.insert(nonce.clone(), now + NONCE_LIFETIME);
        Ok(nonce)
    }

    fn shared_secret(&self) -> Result<&str, AccountError> {
        let secret = self
            .0
            .config
            .shared_secret
            .as_deref()
            .filter(|secret| !secret.is_empty());
        secret.ok_or(AccountError::InvalidParam(
            "Shared secret registration is not enabled",
        ))
    }

    /// Makes an account for whoever knows the shared secret, as Synapse's tools ask for it. The nonce is spent either way.
    ///
    /// # Errors
    /// [`AccountError::Forbidden`] for a wrong MAC, [`AccountError::InvalidParam`] for an unknown nonce; as
    /// [`Accounts::register`].
    pub async fn register_with_shared_secret(
        &self,
        request: &SharedSecretRegistration<'_>,
        device: NewDevice,
    ) -> Result<Registered, AccountError> {
        let secret = self.shared_secret()?;
        let ends = self.0.nonces.0.lock().remove(request.nonce);
        if ends.is_none_or(|ends| ends <= self.0.runtime.clock().monotonic()) {
            return Err(AccountError::InvalidParam("unrecognised nonce"));
        }
        let admin = if request.admin { "admin" } else { "notadmin" };
        let fields = [request.nonce, request.username, request.password, admin];
        let mut mac = <Hmac<Sha1>>::new_from_slice(secret.as_bytes())
            .map_err(|_| AccountError::Internal("the shared secret can't be used"))?;
        mac.update(fields.join("\0").as_bytes());
        if let Some(user_type) = request.user_type {
            mac.update(b"\0");
            mac.update(user_type.as_bytes());
        }
        let given = from_hex(request.mac).ok_or(AccountError::Forbidden("HMAC incorrect"))?;
        mac.verify_slice(&given)
            .map_err(|_| AccountError::Forbidden("HMAC incorrect"))?;
        self.register(Registration {
            username: Some(request.username.to_owned()),
            password: Some(request.password.to_owned()),
            display_name: request.display_name.map(str::to_owned),
            admin: request.admin,
            device: Some(device),
            ..Registration::default()
        })
        .await
    }

    /// Makes a registration token: `[A-Za-z0-9._~-]`, at most 64 of them; `None` for a random one.
    ///
    /// # Errors
    /// [`AccountError::InvalidParam`] for one that can't be or is there; the store's.
    pub async fn create_registration_token(
        &self,
        token: Option<String>,
        uses_allowed: Option<u32>,
        expires_ts: Option<u64>,
    ) -> Result<String, AccountError> {
        let token = token.unwrap_or_else(|| self.0.runtime.random().alphanumeric(16));
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '~' | '-');
        if token.is_empty() || token.len() > MAX_TOKEN_BYTES || !token.chars().all(allowed) {
            return Err(AccountError::InvalidParam(
                "A registration token is 1 to 64 characters of A-Za-z0-9._~-",
            ));
        }
        let key = Named(token);
        let lane = self.0.tenant.lane(Home::Name(&key.0));
        let mut batch = lane.batch();
        let row = RegistrationToken {
            uses_allowed,
            uses: 0,
            expires_ts,
        };
        batch
            .expect::<RegistrationTokens>(&key, Expect::Absent)
            .put::<RegistrationTokens>(&key, &row);
        match lane.commit(batch).await {
            Ok(_) => Ok(key.0),
            Err(CommitError::Conflict(_)) => Err(AccountError::InvalidParam(
                "There is such a registration token.",
            )),
            Err(error) => Err(error.into()),
        }
    }

    /// All registration tokens.
    ///
    /// # Errors
    /// The store's.
    pub async fn registration_tokens(
        &self,
    ) -> Result<Vec<(String, RegistrationToken)>, AccountError> {
        let rows = self
            .0
            .tenant
            .reader()
            .scan::<RegistrationTokens>(Range::everywhere(|_| {}))
            .await?;
        Ok(rows
            .into_iter()
            .map(|(key, row)| (key.0, row.value))
            .collect())
    }

    /// Removes a registration token.
    ///
    /// # Errors
    /// The store's.
    pub async fn delete_registration_token(&self, token: &str) -> Result<(), AccountError> {
        let key = Named(token.to_owned());
        let lane = self.0.tenant.lane(Home::Name(token));
        let mut batch = lane.batch();
        batch.delete::<RegistrationTokens>(&key);
        lane.commit(batch).await?;
        Ok(())
    }

    /// Whether a registration token would be taken now.
    ///
    /// <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1registermloginregistration_tokenvalidity>
    ///
    /// # Errors
    /// The store's.
    pub async fn registration_token_is_valid(&self, token: &str) -> Result<bool, AccountError> {
        if token.len() > MAX_TOKEN_BYTES {
            return Ok(false);
        }
        let row = self
            .get::<RegistrationTokens>(&Named(token.to_owned()))
            .await?;
        Ok(row.is_some_and(|row| self.is_valid(&row.value)))
    }

    fn is_valid(&self, token: &RegistrationToken) -> bool {
        token.expires_ts.is_none_or(|ts| ts > self.now_ms())
            && token.uses_allowed.is_none_or(|most| token.uses < most)
    }

    async fn spend_token(&self, token: &str) -> Result<(), AccountError> {
        let spent = self.change_token(token, |row| {
            let valid = self.is_valid(row);
            row.uses = row.uses.saturating_add(u32::from(valid));
            valid
        });
        match spent.await? {
            Some(true) => Ok(()),
            _ => Err(AccountError::Forbidden("Invalid registration token")),
        }
    }

    /// Changes a token's row; `None` if there is none.
    async fn change_token<T>(
        &self,
        token: &str,
        edit: impl Fn(&mut RegistrationToken) -> T,
    ) -> Result<Option<T>, AccountError> {
        if token.len() > MAX_TOKEN_BYTES {
            return Ok(None);
        }
        let key = Named(token.to_owned());
        let lane = self.0.tenant.lane(Home::Name(token));
        loop {
            let Some(row) = lane.reader().get::<RegistrationTokens>(&key).await? else {
                return Ok(None);
            };
            let mut changed = row.value.clone();
            let answer = edit(&mut changed);
            if changed == row.value {
                return Ok(Some(answer));
            }
            let mut batch = lane.batch();
            batch.expect::<RegistrationTokens>(&key, Expect::At(row.pos));
            batch.put::<RegistrationTokens>(&key, &changed);
            // Many may want one token at once; each conflict is another's success, so this ends.
            let mut attempts = Attempts::default();
            if attempts.commit(lane, batch).await?.is_some() {
                return Ok(Some(answer));
            }
        }
    }
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> = text
        .chars()
        .map(|c| c.to_digit(16).and_then(|d| u8::try_from(d).ok()))
        .collect();
    let digits = digits.filter(|digits| digits.len().is_multiple_of(2))?;
    Some(
        digits
            .chunks_exact(2)
            .map(|pair| pair.iter().fold(0, |byte, digit| byte << 4 | digit))
            .collect(),
    )
}
