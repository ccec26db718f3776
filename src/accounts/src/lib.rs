//! Users, devices, sessions, profiles and account data.
//!
//! [`Accounts`] is one tenant's accounts; its methods stand in the file of their subject. All of a user's rows are in the user's
//! lane ([`tables`]), so each change is one batch with the conditions it rests on; what others must learn of it is a
//! [`Change`] in the lane's log. Access tokens are read by [`Accounts::authenticate`], without a read of the store but for
//! their first request.

#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing
    )
)]

mod account_data;
mod belongings;
mod carry;
mod change;
pub mod check;
mod dehydrated;
mod devices;
mod error;
mod filters;
mod interactive;
mod invites;
mod limits;
mod live;
mod local_notifications;
mod login;
mod login_token;
mod openid;
mod password;
pub mod presence;
mod profile;
mod registration;
mod reports;
mod sessions;
pub mod tables;
mod token;
mod user_search;
mod users;

use std::{fmt, sync::Arc, time::Duration};

use comity_runtime::Runtime;
use comity_storage::{Home, Key, ReadError, Row, Table, Tenant};
use parking_lot::RwLock;

pub use account_data::{DataEvent, IGNORED_USERS, PUSH_RULES, TAGS};
pub use belongings::{Belongings, DeviceChange, PublicKey, PublicKeys};
pub use change::{Change, KIND};
pub use dehydrated::Dehydration;
pub use devices::{DeviceInfo, LeaveRooms};
pub use error::AccountError;
pub use interactive::{Asker, Authorisation, Challenge, Operation, Shown, Stage};
pub use invites::{InviteVerdict, Invites};
pub use limits::{Limit, Limits};
pub use live::{Authenticated, Requester};
pub use login::{Issued, NewDevice};
pub use password::{MAX_PASSWORD_BYTES, PasswordCost, Proof};
pub use profile::{AVATAR_URL, DISPLAY_NAME};
pub use registration::{Registered, Registration, SharedSecretRegistration};
pub use reports::{Report, Reported};
pub use user_search::{Fit, FoundUser, FoundUsers, UserTerm};
pub use users::Standing;

/// How a tenant keeps accounts.
#[derive(Clone)]
pub struct Config {
    /// The server name in user ids.
    pub server_name: String,
    /// The public base URL: issuer and audience of tokens.
    pub public_baseurl: String,
    /// The seed of the tenant's token key; never the key that signs events.
    pub token_key: [u8; 32],
    /// Whether anyone may register.
    pub registration_open: bool,
    /// Whether guests may register.
    pub guests: bool,
    /// The secret of `/_synapse/admin/v1/register`.
    pub shared_secret: Option<String>,
    /// How long an access token that can be refreshed is good.
    pub access_token_lifetime: Duration,
    /// What a password hash costs.
    pub password_cost: PasswordCost,
    /// Whether rates are limited.
    pub limits: bool,
}

/// Without the secrets.
impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("server_name", &self.server_name)
            .field("public_baseurl", &self.public_baseurl)
            .field("registration_open", &self.registration_open)
            .field("guests", &self.guests)
            .finish_non_exhaustive()
    }
}

/// One tenant's accounts. Cloning is one reference count.
#[derive(Clone)]
pub struct Accounts(Arc<Inner>);

struct Inner {
    tenant: Tenant,
    runtime: Runtime,
    config: Config,
    tokens: token::Tokens,
    passwords: password::Passwords,
    live: live::Live,
    limits: Limits,
    interactive: interactive::Interactive,
    presence: presence::Presence,
    nonces: registration::Nonces,
    login_tokens: login_token::LoginTokens,
    seen: devices::SeenLately,
    invite_filters: invites::Filters,
    belongings: RwLock<Vec<Arc<dyn Belongings>>>,
}

impl Accounts {
    /// Opens a tenant's accounts and starts to listen for what other nodes, and this one, revoke.
    ///
    /// # Errors
    /// [`AccountError::Internal`] if the keys or the password cost can't be used.
    pub fn open(tenant: Tenant, config: Config) -> Result<Self, AccountError> {
        let runtime = tenant.runtime().clone();
        // From here on, before the first session is in use: nothing revoked is missed.
        let follower = tenant.follow(tenant.heads());
        let accounts = Self(Arc::new(Inner {
            tokens: token::Tokens::new(&config.token_key, &config.public_baseurl)?,
            passwords: password::Passwords::new(config.password_cost, &runtime)?,
            live: live::Live::default(),
            limits: Limits::new(&runtime, config.limits),
            interactive: interactive::Interactive::default(),
            presence: presence::Presence::new(&runtime),
            nonces: registration::Nonces::default(),
            login_tokens: login_token::LoginTokens::default(),
            seen: devices::SeenLately::default(),
            invite_filters: invites::Filters::default(),
            belongings: RwLock::new(vec![Arc::new(local_notifications::LocalNotifications)]),
            tenant,
            runtime: runtime.clone(),
            config,
        }));
        let inner = Arc::downgrade(&accounts.0);
        drop(runtime.spawn("sessions' revocations", sessions::listen(inner, follower)));
        let inner = Arc::downgrade(&accounts.0);
        drop(runtime.spawn("devices last seen", devices::write_seen(inner)));
        let inner = Arc::downgrade(&accounts.0);
        drop(runtime.spawn("presence", presence::keep(inner)));
        Ok(accounts)
    }

    /// The rate limits.
    pub fn limits(&self) -> &Limits {
        &self.0.limits
    }

    /// The presence of the tenant's users.
    pub fn presence(&self) -> &presence::Presence {
        &self.0.presence
    }

    /// How many password hashes were computed so far, for metrics.
    pub fn password_hashes(&self) -> u64 {
        self.0.passwords.computed()
    }

    /// The tenant whose accounts these are.
    pub fn tenant(&self) -> &Tenant {
        &self.0.tenant
    }

    fn now_ms(&self) -> u64 {
        self.0.runtime.clock().now_ms()
    }

    /// A row as a plain GET answers it: not before it is durable.
    async fn get<T: Table>(&self, key: &T::Key) -> Result<Option<Row<T::Value>>, ReadError> {
        let row = self.0.tenant.reader().get::<T>(key).await?;
        if let Some(row) = &row {
            self.settled(key.home(), row.pos).await;
        }
        Ok(row)
    }

    async fn settled(&self, home: Home<'_>, pos: u64) {
        self.0.tenant.settled(home, pos).await;
    }
}
