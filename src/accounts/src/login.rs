//! Signing in: a device, a session, a pair of tokens.

use std::fmt;

use comity_storage::{Attempts, Expect, Home, Range};

use crate::{
    AccountError, Accounts, Change, DeviceChange,
    limits::Limit,
    password::Proof,
    tables::{
        Dehydrated, Device, Devices, Session, Sessions, UserKey, UserPart, Users, is_part, of_user,
    },
    token::Grant,
};

/// Devices of a user at the most: others are told of no more, and what is to all of them has an end.
const MAX_DEVICES: usize = 1_000;
/// Longest device name, in bytes.
const MAX_NAME_BYTES: usize = 255;

/// The device that signs in.
#[derive(Clone, Debug, Default)]
pub struct NewDevice {
    /// Its id, or `None` for a new one. Signing in on a device that is there ends its tokens of before.
    pub device_id: Option<String>,
    /// Its name, if it is new.
    pub display_name: Option<String>,
    /// Whether its client can refresh. If not, its token doesn't expire.
    pub refresh: bool,
}

/// What a login or refresh hands out.
#[derive(Clone, PartialEq, Eq)]
pub struct Issued {
    /// The user's id.
    pub user_id: String,
    /// The device's id.
    pub device_id: String,
    /// The access token.
    pub access_token: String,
    /// The refresh token, for clients that can refresh.
    pub refresh_token: Option<String>,
    /// How long the access token is good; `None`: until it is revoked.
    pub expires_in_ms: Option<u64>,
}

/// Without the tokens.
impl fmt::Debug for Issued {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Issued")
            .field("user_id", &self.user_id)
            .field("device_id", &self.device_id)
            .finish_non_exhaustive()
    }
}

impl Accounts {
    /// Signs in with a password, by localpart or user id. `address` is where the request came from.
    ///
    /// <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3login>
    ///
    /// # Errors
    /// [`AccountError::WrongCredentials`] alike for a wrong password and an unknown user (R1.4);
    /// [`AccountError::Deactivated`] and [`AccountError::LimitExceeded`] (G9).
    pub async fn password_login(
        &self,
        name: &str,
        password: &str,
        address: &str,
        device: NewDevice,
    ) -> Result<Issued, AccountError> {
        self.0.limits.take(Limit::LoginByAddress, address)?;
        let (user_id, proof) = self.prove_password(name, password, Some(address)).await?;
        self.start_session(&user_id, device, Some(&proof)).await
    }

    /// The id of the user with this name and password; failures count against the account, and the address if one is named.
    ///
    /// # Errors
    /// As [`Accounts::password_login`].
    pub(crate) async fn prove_password(
        &self,
        name: &str,
        password: &str,
        address: Option<&str>,
    ) -> Result<(String, Proof), AccountError> {
        let user_id = self.local_user_id(name);
        let key = user_id.as_deref().unwrap_or_default();
        let limits = &self.0.limits;
        // A hash takes its time, in which others may guess: each counts before its hash, and only the right ones are taken back (G9).
        let by_account = || limits.give_back(Limit::FailedLoginByAccount, key);
        limits.take(Limit::FailedLoginByAccount, key)?;
        if let Some(address) = address
            && let Err(error) = limits.take(Limit::FailedLoginByAddress, address)
        {
            by_account();
            return Err(error);
        }
        // One hash is computed for every attempt, also for names that can't be (G10).
        let judged = self.prove(key, password).await;
        if !matches!(judged, Ok(None)) {
            by_account();
            if let Some(address) = address {
                limits.give_back(Limit::FailedLoginByAddress, address);
            }
        }
        let proof = judged?.ok_or(AccountError::WrongCredentials)?;
        Ok((user_id.unwrap_or_default(), proof))
    }

    /// Signs a user in who has proved who they are.
    ///
    /// # Errors
    /// [`AccountError::Deactivated`], [`AccountError::InvalidParam`] for a device that can't be; the store's.
    pub async fn login(&self, user_id: &str, device: NewDevice) -> Result<Issued, AccountError> {
        self.start_session(user_id, device, None).await
    }

    /// Begins a session, if the password that was `proved` is still the user's: since then time has passed.
    pub(crate) async fn start_session(
        &self,
        user_id: &str,
        device: NewDevice,
        proved: Option<&Proof>,
    ) -> Result<Issued, AccountError> {
        check_device(&device)?;
        let device_id = match &device.device_id {
            Some(id) if !id.is_empty() => id.clone(),
            _ => self
                .0
                .runtime
                .random()
                .alphanumeric(10)
                .to_ascii_uppercase(),
        };
        let session = self.new_session(device.refresh);
        let lane = self.0.tenant.lane(Home::User(user_id));
        let (user_key, key) = (
            UserKey(user_id.to_owned()),
            UserPart::new(user_id, &device_id),
        );
        let mut attempts = Attempts::default();
        loop {
            let reader = lane.reader();
            let (user, old_device, old_session, dehydrated) = futures_util::try_join!(
                self.existing(&reader, user_id),
                async { Ok(reader.get::<Devices>(&key).await?) },
                async { Ok(reader.get::<Sessions>(&key).await?) },
                async { Ok(reader.get::<Dehydrated>(&user_key).await?) },
            )?;
            if proved.is_some_and(|proof| !proof.holds_for(&user.value)) {
                return Err(AccountError::WrongCredentials);
            }
            // Were it to become one, the row of the device below would be another.
            if dehydrated.is_some_and(|row| row.value.device_id == device_id) {
                return Err(AccountError::InvalidParam("This device is dehydrated."));
            }
            let mut batch = lane.batch();
            // An account that is deactivated meanwhile must not gain a session.
            batch.expect::<Users>(&user_key, Expect::At(user.pos));
            let was = old_session
                .as_ref()
                .map_or(Expect::Absent, |row| Expect::At(row.pos));
            batch.expect::<Sessions>(&key, was);
            // Nor a device that is being removed.
            let was = old_device
                .as_ref()
                .map_or(Expect::Absent, |row| Expect::At(row.pos));
            batch.expect::<Devices>(&key, was);
            if old_device.is_none() {
                if self.is_taken(&reader, user_id, &device_id).await? {
                    return Err(AccountError::InvalidParam("The device's id is in use."));
                }
                let devices = Range::of(Home::User(user_id), of_user(user_id)).limit(MAX_DEVICES);
                if reader.scan::<Devices>(devices).await?.len() >= MAX_DEVICES {
                    return Err(AccountError::Forbidden(
                        "There are too many devices. Sign out of one first.",
                    ));
                }
                let row = Device {
                    display_name: device.display_name.clone(),
                    created_ts: self.now_ms(),
                };
                batch.put::<Devices>(&key, &row);
                // Whoever has counted the devices, or is about to end them all, does so anew.
                batch.put::<Users>(&user_key, &user.value);
                batch.log(
                    Change::Device {
                        device: device_id.clone(),
                    }
                    .record(user_id),
                );
                let named = DeviceChange::Named {
                    device: device_id.clone(),
                    name: device.display_name.clone(),
                };
                self.add_belongings(&reader, user_id, &[named], &mut batch)
                    .await?;
            }
            let ended = old_session.map(|row| Change::TokensEnded {
                session: row.value.id,
                from_generation: None,
            });
            if let Some(ended) = &ended {
                batch.log(ended.record(user_id));
            }
            batch.put::<Sessions>(&key, &session);
            if attempts.commit(lane, batch).await?.is_some() {
                if let Some(ended) = &ended {
                    self.0.live.apply(user_id, ended);
                }
                return self.issue(user_id, &device_id, &session);
            }
        }
    }

    pub(crate) fn new_session(&self, refreshed: bool) -> Session {
        Session {
            id: self.0.runtime.random().bytes(),
            incarnation: self.0.tenant.birth().incarnation,
            refreshed,
            generation: 0,
            used: true,
        }
    }

    /// The tokens of a session's newest generation.
    pub(crate) fn issue(
        &self,
        user_id: &str,
        device_id: &str,
        session: &Session,
    ) -> Result<Issued, AccountError> {
        let grant = Grant {
            user: user_id.to_owned(),
            device: device_id.to_owned(),
            session: session.id,
            generation: session.generation,
        };
        let now = self.now_ms();
        let lifetime = u64::try_from(self.0.config.access_token_lifetime.as_millis());
        let lifetime = session.refreshed.then(|| lifetime.unwrap_or(u64::MAX));
        let refresh = session.refreshed.then(|| self.0.tokens.refresh(&grant));
        Ok(Issued {
            access_token: self.0.tokens.access(
                &grant,
                now,
                lifetime.map(|l| now.saturating_add(l)),
            )?,
            refresh_token: refresh.transpose()?,
            expires_in_ms: lifetime,
            user_id: grant.user,
            device_id: grant.device,
        })
    }
}

pub(crate) fn check_device(device: &NewDevice) -> Result<(), AccountError> {
    let is_id = device.device_id.as_deref().is_none_or(is_part);
    let name = device.display_name.as_deref();
    if !is_id || name.is_some_and(|name| name.len() > MAX_NAME_BYTES) {
        return Err(AccountError::InvalidParam(
            "The device's id or name is too long.",
        ));
    }
    Ok(())
}
