//! What every handler works with: the capabilities below, our keys, and what the operator decided.

use std::{ops::Deref, sync::Arc, time::Duration};

use comity_accounts::Accounts;
use comity_federation_client::{Keyring, OwnKeys};
use comity_federation_receiver::Receiver;
use comity_federation_sender::Ear;
use comity_keys::Keys;
use comity_media::Media;
use comity_protocol::id::OwnedServerName;
use comity_rooms::Rooms;

use crate::ApiError;

/// How long others may keep what we publish of our keys: a day after one was replaced, everybody has heard of it.
const KEYS_VALID: Duration = Duration::from_secs(24 * 60 * 60);

/// What the operator decided about the API alone.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Where other servers find this one, if not where its name says; published under the name.
    pub delegated_to: Option<OwnedServerName>,
}

/// The capabilities the API gives access to.
pub struct Capabilities {
    /// Users, devices, profiles.
    pub accounts: Accounts,
    /// The keys of devices.
    pub device_keys: Keys,
    /// The room engine.
    pub rooms: Rooms,
    /// What our users uploaded.
    pub media: Media,
    /// What takes transactions.
    pub receiver: Receiver,
    /// What is to know who spoke to us.
    pub ear: Ear,
    /// Other servers' keys.
    pub keyring: Keyring,
    /// Our keys.
    pub keys: OwnKeys,
    /// What the operator decided.
    pub settings: Settings,
}

/// The state of all handlers. Cloning is one reference count.
#[derive(Clone)]
pub struct Api(Arc<Capabilities>);

impl Api {
    /// The API of one tenant.
    pub fn new(capabilities: Capabilities) -> Self {
        Self(Arc::new(capabilities))
    }

    /// Milliseconds since 1970.
    pub(crate) fn now_ms(&self) -> u64 {
        self.rooms.tenant().runtime().clock().now_ms()
    }

    /// The keys that check our signatures, signed by ourselves.
    pub(crate) fn published_keys(&self) -> Result<String, ApiError> {
        let until = self.now_ms() + u64::try_from(KEYS_VALID.as_millis()).unwrap_or(0);
        let (keys, us) = (&self.keys, self.rooms.server_name());
        let json = keys.key.publish_keys(us, &keys.old, until);
        json.map_err(ApiError::internal)
    }
}

impl Deref for Api {
    type Target = Capabilities;

    fn deref(&self) -> &Capabilities {
        &self.0
    }
}
