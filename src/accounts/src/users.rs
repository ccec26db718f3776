//! Users: names, standing, passwords, the end of an account.

use comity_storage::{Attempts, Expect, Home, Range, Row};

use crate::{
    AccountError, Accounts, Change, DeviceChange,
    password::Proof,
    tables::{
        AccountData, Deactivation, Deactivations, Dehydrated, Devices, Filters, LastSeen, Profiles,
        Sessions, User, UserKey, Users, of_user,
    },
};

/// What an administrator may change of a user's standing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Locked: no request is answered, the sessions stay.
    Locked(bool),
    /// Suspended: may read, not act.
    Suspended(bool),
    /// Administrator.
    Admin(bool),
}

impl Accounts {
    /// The user id of a localpart a new account asks for, in lower case.
    ///
    /// # Errors
    /// [`AccountError::InvalidUsername`], by <https://spec.matrix.org/v1.19/appendices/#user-identifiers>.
    pub fn new_user_id(&self, localpart: &str) -> Result<String, AccountError> {
        let localpart = localpart.to_ascii_lowercase();
        let allowed =
            |c: char| matches!(c, 'a'..='z' | '0'..='9' | '.' | '_' | '=' | '-' | '/' | '+');
        if localpart.is_empty() || !localpart.chars().all(allowed) {
            return Err(AccountError::InvalidUsername(
                "User names have only the characters a-z, 0-9, and ._=-/+",
            ));
        }
        if localpart.starts_with('_') {
            return Err(AccountError::InvalidUsername(
                "User names may not begin with _",
            ));
        }
        if localpart.chars().all(|c| c.is_ascii_digit()) {
            return Err(AccountError::InvalidUsername(
                "User names of digits alone are for guests",
            ));
        }
        let user_id = format!("@{localpart}:{}", self.0.config.server_name);
        if user_id.len() > 255 {
            return Err(AccountError::InvalidUsername("The user name is too long"));
        }
        Ok(user_id)
    }

    /// The id of the local user that a login names by localpart or by whole id; `None` if it can't be one of ours.
    pub fn local_user_id(&self, name: &str) -> Option<String> {
        let server_name = &self.0.config.server_name;
        let localpart = match name.strip_prefix('@') {
            Some(id) => id.strip_suffix(server_name.as_str())?.strip_suffix(':')?,
            None => name,
        };
        let user_id = format!("@{}:{server_name}", localpart.to_ascii_lowercase());
        (user_id.len() <= 255).then_some(user_id)
    }

    /// Whether a new account may have this localpart.
    ///
    /// # Errors
    /// [`AccountError::InvalidUsername`], [`AccountError::UserInUse`].
    pub async fn check_available(&self, localpart: &str) -> Result<(), AccountError> {
        match self.user(&self.new_user_id(localpart)?).await? {
            Some(_) => Err(AccountError::UserInUse),
            None => Ok(()),
        }
    }

    /// The account of a user id; `None` if there is none.
    ///
    /// # Errors
    /// The store's.
    pub async fn user(&self, user_id: &str) -> Result<Option<User>, AccountError> {
        let row = self.get::<Users>(&UserKey(user_id.to_owned())).await?;
        Ok(row.map(|row| row.value))
    }

    /// User ids with their accounts, in order, after the one given.
    ///
    /// # Errors
    /// The store's.
    pub async fn users(
        &self,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<(String, User)>, AccountError> {
        let range = Range::everywhere(|_| {}).from(|key| {
            if let Some(after) = after {
                // The next text after `after`.
                key.str(&format!("{after}\0"));
            }
        });
        let rows = self
            .0
            .tenant
            .reader()
            .scan::<Users>(range.limit(limit))
            .await?;
        Ok(rows
            .into_iter()
            .map(|(key, row)| (key.0, row.value))
            .collect())
    }

    /// Changes a user's standing; requests under way end where it must.
    ///
    /// # Errors
    /// [`AccountError::NotFound`], [`AccountError::Deactivated`], the store's.
    pub async fn set_standing(
        &self,
        user_id: &str,
        standing: Standing,
    ) -> Result<(), AccountError> {
        let change = Change::Standing {
            ended: standing == Standing::Locked(true),
        };
        self.change_user(user_id, &change, |user| match standing {
            Standing::Locked(locked) => user.locked = locked,
            Standing::Suspended(suspended) => user.suspended = suspended,
            Standing::Admin(admin) => user.admin = admin,
        })
        .await
    }

    /// Sets a new password.
    ///
    /// # Errors
    /// [`AccountError::InvalidParam`] for one that can't be, [`AccountError::NotFound`], [`AccountError::Deactivated`].
    pub async fn set_password(&self, user_id: &str, password: &str) -> Result<(), AccountError> {
        let hash = self.0.passwords.hash(password).await?;
        self.change_user(user_id, &Change::Standing { ended: false }, |user| {
            user.password = Some(hash.clone());
        })
        .await
    }

    /// Whether this is the user's password, in the time of one hash whoever they are.
    ///
    /// # Errors
    /// [`AccountError::Busy`] when too many wait for theirs; the store's.
    pub async fn verify_password(
        &self,
        user_id: &str,
        password: &str,
    ) -> Result<bool, AccountError> {
        Ok(self.prove(user_id, password).await?.is_some())
    }

    pub(crate) async fn prove(
        &self,
        user_id: &str,
        password: &str,
    ) -> Result<Option<Proof>, AccountError> {
        let stored = self.user(user_id).await?.and_then(|user| user.password);
        self.0.passwords.prove(stored, password).await
    }

    async fn change_user(
        &self,
        user_id: &str,
        change: &Change,
        edit: impl Fn(&mut User),
    ) -> Result<(), AccountError> {
        let key = UserKey(user_id.to_owned());
        let lane = self.0.tenant.lane(Home::User(user_id));
        let mut attempts = Attempts::default();
        loop {
            let Row { pos, mut value } = self.existing(&lane.reader(), user_id).await?;
            edit(&mut value);
            let mut batch = lane.batch();
            batch.expect::<Users>(&key, Expect::At(pos));
            batch.put::<Users>(&key, &value).log(change.record(user_id));
            if attempts.commit(lane, batch).await?.is_some() {
                self.0.live.apply(user_id, change);
                return Ok(());
            }
        }
    }

    /// The row of an account that is there and not deactivated.
    pub(crate) async fn existing(
        &self,
        reader: &comity_storage::Reader,
        user_id: &str,
    ) -> Result<Row<User>, AccountError> {
        let row = reader.get::<Users>(&UserKey(user_id.to_owned())).await?;
        match row.ok_or(AccountError::NotFound("User"))? {
            row if row.value.deactivated => Err(AccountError::Deactivated),
            row => Ok(row),
        }
    }

    /// Ends an account for good: its password, sessions, devices, profile, filters and account data go at once, in one batch
    /// with the job to leave its rooms, which [`Accounts::finish_deactivations`] does.
    ///
    /// # Errors
    /// [`AccountError::NotFound`]; the store's. Deactivating twice is fine.
    pub async fn deactivate(&self, user_id: &str, erase: bool) -> Result<(), AccountError> {
        let key = UserKey(user_id.to_owned());
        let home = Home::User(user_id);
        let lane = self.0.tenant.lane(home);
        let change = Change::Standing { ended: true };
        let mut attempts = Attempts::default();
        loop {
            let reader = lane.reader();
            let Row { pos, value } = match self.existing(&reader, user_id).await {
                Err(AccountError::Deactivated) => return Ok(()),
                row => row?,
            };
            let devices = Range::of(home, of_user(user_id));
            let devices = reader.scan::<Devices>(devices).await?.into_iter();
            let mut ended: Vec<_> = devices
                .map(|(key, _)| DeviceChange::Removed { device: key.part })
                .collect();
            ended.push(DeviceChange::AccountEnded);
            let mut batch = lane.batch();
            batch.expect::<Users>(&key, Expect::At(pos));
            let gone = User {
                password: None,
                admin: false,
                deactivated: true,
                ..value
            };
            batch.put::<Users>(&key, &gone);
            batch.delete_all::<Sessions>(home, of_user(user_id));
            batch.delete_all::<Devices>(home, of_user(user_id));
            batch.delete_all::<LastSeen>(home, of_user(user_id));
            batch.delete_all::<Filters>(home, of_user(user_id));
            batch.delete_all::<AccountData>(home, of_user(user_id));
            batch.delete::<Profiles>(&key).delete::<Dehydrated>(&key);
            let job = Deactivation {
                erase,
                ts: self.now_ms(),
            };
            batch.put::<Deactivations>(&key, &job);
            batch.log(change.record(user_id));
            self.add_belongings(&reader, user_id, &ended, &mut batch)
                .await?;
            if attempts.commit(lane, batch).await?.is_some() {
                self.0.live.apply(user_id, &change);
                return Ok(());
            }
        }
    }
}
