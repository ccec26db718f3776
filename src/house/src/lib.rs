//! The composition: one tenant's capabilities, each given what it stands on.
//!
//! It names no engine, no socket and no file of configuration: the binary lays it on a disk and the network, tests and the simulation on
//! what stands in for them, so that what they try is the server that runs.

pub mod check;

use std::sync::Arc;

use axum::Router;
use comity_accounts::{AccountError, Accounts};
use comity_client_api::{Api, Capabilities};
use comity_federation_client::{Keyring, OwnKeys, Peers, Transport, Web};
use comity_federation_media::RemoteMedia;
use comity_federation_membership::OtherServers;
use comity_federation_receiver::{Checks, Entering, Fetcher, KeysElsewhere, Receiver};
use comity_federation_sender::Sender;
use comity_key_backup::KeyBackup;
use comity_keys::Keys;
use comity_media::{Media, MediaError, Renderer};
use comity_rooms::Rooms;
use comity_storage::{CommitError, ReadError, Registered, Tenant};
use comity_succession::Succession;
use comity_sync::Sync;
use comity_to_device::ToDevice;

/// What a house stands on.
pub struct Ground {
    /// Its rows.
    pub tenant: Tenant,
    /// The keys that it signs with.
    pub keys: OwnKeys,
    /// The way to other servers.
    pub transport: Arc<dyn Transport>,
    /// The way to pages, and to files that servers keep elsewhere.
    pub web: Arc<dyn Web>,
    /// Makes thumbnails.
    pub renderer: Arc<dyn Renderer>,
}

/// What each capability is told.
pub struct Settings {
    /// Accounts.
    pub accounts: comity_accounts::Config,
    /// Rooms, and the server's name.
    pub rooms: comity_rooms::Config,
    /// Media.
    pub media: comity_media::Config,
    /// The API for clients.
    pub clients: comity_client_api::Settings,
    /// The API for other servers.
    pub federation: comity_federation_server::Settings,
}

/// What stands in the way.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A row can't be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// What was left half done can't be finished.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// Accounts.
    #[error(transparent)]
    Accounts(#[from] AccountError),
    /// The place where media is.
    #[error("media: {0}")]
    Media(#[from] MediaError),
}

/// A tenant with everything it can do. Cheap to clone.
#[derive(Clone)]
pub struct House {
    /// Its rows.
    pub tenant: Tenant,
    /// Its API for clients.
    pub api: Api,
    /// Its API for other servers.
    pub federation: comity_federation_server::Api,
    /// Tells other servers, as long as it is held.
    pub sender: Sender,
}

impl House {
    /// Opens all capabilities on the rows that are there.
    ///
    /// # Errors
    /// What stands in the way.
    pub async fn open(ground: Ground, settings: Settings) -> Result<Self, OpenError> {
        let Ground {
            tenant,
            keys,
            transport,
            web,
            renderer,
        } = ground;
        let server_name = settings.rooms.server_name.clone();
        let signing = Arc::clone(&keys.key);
        let accounts = Accounts::open(tenant.clone(), settings.accounts)?;
        let device_keys = Keys::new(accounts.clone(), server_name.clone());
        let to_device = ToDevice::new(&accounts, server_name.clone());
        let rooms = Rooms::new(tenant.clone(), settings.rooms, Arc::clone(&signing));
        let peers = Peers::new(transport, &tenant, server_name, Arc::clone(&signing));
        device_keys.use_elsewhere(Arc::new(KeysElsewhere::new(&peers)));
        let sender = Sender::start(
            rooms.clone(),
            accounts.clone(),
            device_keys.clone(),
            to_device.clone(),
            peers.clone(),
        )
        .await?;
        let keyring = Keyring::new(peers.clone(), tenant.clone(), &keys, Vec::new());
        let media = Media::open(tenant.clone(), settings.media, renderer)?;
        media.use_elsewhere(Arc::new(RemoteMedia::new(peers.clone(), web)));
        let fetcher = Fetcher {
            peers,
            checks: Checks::new(keyring.clone(), tenant.runtime()),
            entering: Entering::default(),
        };
        let elsewhere = OtherServers::new(&rooms, fetcher.clone(), signing);
        rooms.use_elsewhere(Arc::new(elsewhere.clone()));
        let receiver = Receiver::new(
            rooms.clone(),
            accounts.clone(),
            device_keys.clone(),
            to_device.clone(),
            fetcher,
        );
        elsewhere.resume().await?;
        receiver.resume().await?;
        media.resume().await?;
        let federation =
            comity_federation_server::Api::new(comity_federation_server::Capabilities {
                accounts: accounts.clone(),
                device_keys: device_keys.clone(),
                rooms: rooms.clone(),
                media: media.clone(),
                receiver,
                ear: sender.ear(),
                keyring,
                keys,
                settings: settings.federation,
            });
        let api = Api::new(Capabilities {
            succession: Succession::start(rooms.clone(), accounts.clone()).await?,
            sync: Sync::new(
                rooms.clone(),
                accounts.clone(),
                device_keys.clone(),
                to_device.clone(),
            ),
            to_device,
            key_backup: KeyBackup::new(&accounts),
            accounts,
            keys: device_keys,
            rooms,
            media,
            settings: settings.clients,
        });
        Ok(Self {
            tenant,
            api,
            federation,
            sender,
        })
    }

    /// Everything that can be asked of it. Every listener serves all of it.
    pub fn router(&self) -> Router {
        comity_web::join([
            comity_client_api::router(self.api.clone()),
            comity_federation_server::router(self.federation.clone()),
        ])
    }

    /// Records that all is in order. Without this the next start takes it for a crash.
    ///
    /// # Errors
    /// The commit's.
    pub async fn close(self) -> Result<(), CommitError> {
        if let Err(error) = self.sender.close().await {
            tracing::warn!(%error, "the progress of federation could not be saved");
        }
        drop(self.sender);
        self.tenant.close().await
    }
}

/// Every table there is, but for the storage's own.
#[must_use]
pub fn tables() -> Vec<Registered> {
    [
        comity_accounts::tables::all(),
        comity_keys::tables::all(),
        comity_media::tables::all(),
        comity_rooms::tables::all(),
        comity_succession::tables::all(),
        comity_sync::tables::all(),
        comity_key_backup::tables::all(),
        comity_to_device::tables::all(),
        comity_federation_client::tables::all(),
        comity_federation_membership::tables::all(),
        comity_federation_receiver::tables::all(),
        comity_federation_sender::tables::all(),
    ]
    .concat()
}

/// What applies the debts between lanes, for the store to be opened with.
pub use comity_to_device::appliers;

#[cfg(test)]
mod tests {
    /// Two tables with one tag would read each other's rows.
    #[test]
    fn no_two_tables_have_one_tag() {
        assert_eq!(
            comity_storage::table::collisions(&super::tables()),
            Vec::<(&str, &str)>::new()
        );
    }
}
