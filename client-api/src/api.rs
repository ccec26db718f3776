//! What every handler works with: the capabilities below, and what the operator decided.

use std::{collections::BTreeSet, ops::Deref, sync::Arc};

use comity_accounts::{AccountError, Accounts, Limit};
use comity_key_backup::KeyBackup;
use comity_keys::Keys;
use comity_media::Media;
use comity_protocol::id::{OwnedUserId, ServerName, UserId};
use comity_rooms::{HORIZON, Rooms};
use comity_runtime::Runtime;
use comity_succession::Succession;
use comity_sync::Sync;
use comity_to_device::ToDevice;

use crate::{ApiError, account::Leaving};

/// What the operator decided about the API alone.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where clients reach this server, without a slash at the end.
    pub public_baseurl: String,
    /// Whom to turn to.
    pub support: Support,
}

/// How the server's administrators are reached.
#[derive(Clone, Debug, Default)]
pub struct Support {
    /// An administrator's e-mail address.
    pub email_address: Option<String>,
    /// An administrator's user id, perhaps on another server.
    pub matrix_id: Option<OwnedUserId>,
    /// A page about getting help.
    pub page: Option<String>,
}

/// The capabilities the API gives access to.
pub struct Capabilities {
    /// Users, devices, sessions, profiles, account data.
    pub accounts: Accounts,
    /// The keys of devices.
    pub keys: Keys,
    /// The room engine.
    pub rooms: Rooms,
    /// What goes along to a room that replaces another.
    pub succession: Succession,
    /// Delivery.
    pub sync: Sync,
    /// Messages to devices.
    pub to_device: ToDevice,
    /// Backups of room keys.
    pub key_backup: KeyBackup,
    /// Uploads and what is made of them.
    pub media: Media,
    /// What the operator decided.
    pub settings: Settings,
}

/// The state of all handlers. Cloning is one reference count.
#[derive(Clone)]
pub struct Api(Arc<Capabilities>);

/// How often rows that nobody needs are removed.
const TEND: std::time::Duration = std::time::Duration::from_secs(60 * 60);

impl Api {
    /// The API of one tenant.
    pub fn new(capabilities: Capabilities) -> Self {
        Self(Arc::new(capabilities))
    }

    /// Takes one from the bucket of `key`.
    ///
    /// # Errors
    /// 429 `M_LIMIT_EXCEEDED` if it is empty.
    pub(crate) fn limit(&self, limit: Limit, key: impl AsRef<str>) -> Result<(), ApiError> {
        Ok(self.accounts.limits().take(limit, key.as_ref())?)
    }

    /// Takes one from the user's bucket for each of these servers that nobody here has heard of: of names there is no end, and each
    /// costs a connection, or a queue.
    ///
    /// # Errors
    /// 429 `M_LIMIT_EXCEEDED` if they are too many by now, 413 `M_TOO_LARGE` if they always are.
    pub(crate) async fn limit_strangers(
        &self,
        user: &UserId,
        servers: BTreeSet<&ServerName>,
    ) -> Result<(), ApiError> {
        let strangers = self.to_device.strangers(servers).await?;
        let strangers = u32::try_from(strangers).unwrap_or(u32::MAX);
        let limits = self.accounts.limits();
        Ok(limits.take_many(Limit::Stranger, user.as_str(), strangers)?)
    }

    /// Goes on with what a crash interrupted, beside serving: accounts that are to leave their rooms, profiles to be shown in them,
    /// rooms to be replaced; then removes, now and then, what nobody needs any more.
    pub fn resume(&self, runtime: &Runtime) {
        let api = self.clone();
        drop(runtime.spawn("resume", async move {
            if let Err(cause) = api.finish_deactivations().await {
                tracing::warn!(%cause, "deactivated accounts could not leave their rooms");
            }
            if let Err(cause) = api.rooms.resume_profiles().await {
                tracing::warn!(%cause, "profiles could not be shown in rooms");
            }
            if let Err(cause) = api.rooms.resume_upgrades().await {
                tracing::warn!(%cause, "rooms could not be upgraded to their end");
            }
            loop {
                tokio::time::sleep(TEND).await;
                if let Err(cause) = api.rooms.tend(HORIZON).await {
                    tracing::warn!(%cause, "rows that nobody needs could not be removed");
                }
                if let Err(cause) = api.media.tend().await {
                    tracing::warn!(%cause, "media that nobody needs could not be removed");
                }
                if let Err(cause) = api.to_device.tend().await {
                    tracing::warn!(%cause, "ids that nobody repeats could not be removed");
                }
            }
        }));
    }

    /// Ends an account for good and lets it leave its rooms; what of that fails is made up for at the next start.
    ///
    /// # Errors
    /// [`AccountError::NotFound`]; the store's.
    pub async fn deactivate(&self, user_id: &str, erase: bool) -> Result<(), AccountError> {
        self.accounts.deactivate(user_id, erase).await?;
        let api = self.clone();
        // A task of its own: whoever asked is signed out, and may not wait for the answer.
        let left = self
            .accounts
            .tenant()
            .runtime()
            .carry_on("deactivation", async move {
                if let Err(cause) = api.finish_deactivations().await {
                    tracing::warn!(%cause, "a deactivated account could not leave its rooms yet");
                }
            });
        drop(left.await);
        Ok(())
    }

    /// Lets accounts that were deactivated leave their rooms.
    async fn finish_deactivations(&self) -> Result<(), AccountError> {
        self.accounts
            .finish_deactivations(&Leaving {
                rooms: &self.rooms,
                media: &self.media,
            })
            .await
    }
}

impl Deref for Api {
    type Target = Capabilities;

    fn deref(&self) -> &Capabilities {
        &self.0
    }
}
