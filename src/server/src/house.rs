//! The composition: one tenant's capabilities, each given what it stands on.

use std::{path::PathBuf, sync::Arc, time::Duration};

use axum::Router;
use comity_accounts::{Accounts, PasswordCost};
use comity_client_api::{Api, Capabilities, Settings, Support};
use comity_federation_client::{Keyring, Outbound, OutboundConfig, OwnKeys, Peers};
use comity_federation_media::RemoteMedia;
use comity_federation_membership::OtherServers;
use comity_federation_receiver::{Checks, Entering, Fetcher, KeysElsewhere, Receiver};
use comity_federation_sender::Sender;
use comity_key_backup::KeyBackup;
use comity_keys::Keys;
use comity_media::{BucketConfig, Media, Workers};
use comity_protocol::room_version::RoomVersion;
use comity_rooms::Rooms;
use comity_runtime::Runtime;
use comity_storage::Tenant;
use comity_succession::Succession;
use comity_sync::Sync;
use comity_to_device::ToDevice;

use crate::{
    config::{Config, S3, Secret},
    keys, store,
};

/// How long an access token is good for a client that can refresh it.
const ACCESS_TOKEN_LIFETIME: Duration = Duration::from_secs(60 * 60);

/// A tenant with everything it can do. Cheap to clone.
#[derive(Clone)]
pub struct House {
    /// Its rows.
    pub tenant: Tenant,
    /// Its API for clients.
    pub api: Api,
    /// Its API for other servers.
    federation: comity_federation_server::Api,
    /// Tells other servers, as long as it is held.
    sender: Sender,
}

impl House {
    /// Opens the store and everything on it.
    ///
    /// # Errors
    /// What stands in the way, for the operator.
    pub async fn open(config: &Config, runtime: &Runtime) -> Result<Self, String> {
        let keys = keys::Keys::open(&config.data_dir, runtime)?;
        let store = store::open(config, runtime)
            .await
            .map_err(|error| error.to_string())?;
        let tenant = store
            .tenant(store::TENANT)
            .await
            .map_err(|error| error.to_string())?;
        let secret = config.registration.shared_secret.as_ref();
        let accounts = comity_accounts::Config {
            server_name: config.server_name.to_string(),
            public_baseurl: config.public_baseurl.clone(),
            token_key: keys.token,
            registration_open: config.registration.open,
            guests: config.registration.guests,
            shared_secret: secret.map(Secret::expose).map(str::to_owned),
            access_token_lifetime: ACCESS_TOKEN_LIFETIME,
            password_cost: PasswordCost::default(),
            limits: config.limits.enabled,
        };
        let accounts =
            Accounts::open(tenant.clone(), accounts).map_err(|error| error.to_string())?;
        let device_keys = Keys::new(accounts.clone(), config.server_name.clone());
        let rooms = comity_rooms::Config {
            server_name: config.server_name.clone(),
            // The configuration was checked: a version we know.
            default_version: RoomVersion::parse(&config.rooms.default_version)
                .ok_or("rooms.default_version is no room version")?,
            encryption: config.rooms.encryption,
        };
        let signing = Arc::new(keys.signing);
        let rooms = Rooms::new(tenant.clone(), rooms, Arc::clone(&signing));
        let keys = OwnKeys {
            key: Arc::clone(&signing),
            old: keys.old,
        };
        let outbound = OutboundConfig {
            extra_ca_files: config.outbound.extra_ca_files.clone(),
            allow_private_addresses: config.outbound.allow_private_addresses,
            allow_private_pages: config.outbound.allow_private_pages,
        };
        let outbound =
            Outbound::new(&outbound, runtime.clone()).map_err(|error| error.to_string())?;
        let outbound = Arc::new(outbound);
        let peers = Peers::new(
            outbound.clone(),
            &tenant,
            config.server_name.clone(),
            signing,
        );
        device_keys.use_elsewhere(Arc::new(KeysElsewhere::new(&peers)));
        let to_device = ToDevice::new(&accounts, config.server_name.clone());
        let sender = Sender::start(
            rooms.clone(),
            accounts.clone(),
            device_keys.clone(),
            to_device.clone(),
            peers.clone(),
        )
        .await
        .map_err(|error| error.to_string())?;
        let keyring = Keyring::new(peers.clone(), tenant.clone(), &keys, Vec::new());
        let remote_media = RemoteMedia::new(peers.clone(), outbound);
        let fetcher = Fetcher {
            peers,
            checks: Checks::new(keyring.clone(), runtime),
            entering: Entering::default(),
        };
        let elsewhere = OtherServers::new(&rooms, fetcher.clone(), Arc::clone(&keys.key));
        rooms.use_elsewhere(Arc::new(elsewhere.clone()));
        let receiver = Receiver::new(
            rooms.clone(),
            accounts.clone(),
            device_keys.clone(),
            to_device.clone(),
            fetcher,
        );
        elsewhere
            .resume()
            .await
            .map_err(|error| error.to_string())?;
        receiver.resume().await.map_err(|error| error.to_string())?;
        let media = media(config, &tenant)?;
        media.use_elsewhere(Arc::new(remote_media));
        media.resume().await.map_err(|error| error.to_string())?;
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
                settings: comity_federation_server::Settings {
                    delegated_to: config.federation.delegated_to.clone(),
                },
            });
        let succession = Succession::start(rooms.clone(), accounts.clone())
            .await
            .map_err(|error| error.to_string())?;
        let api = Api::new(Capabilities {
            succession,
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
            settings: Settings {
                public_baseurl: config.public_baseurl.clone(),
                support: Support {
                    email_address: config.support.email_address.clone(),
                    matrix_id: config.support.matrix_id.clone(),
                    page: config.support.page.clone(),
                },
            },
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
    pub async fn close(self) -> Result<(), String> {
        if let Err(error) = self.sender.close().await {
            tracing::warn!(%error, "the progress of federation could not be saved");
        }
        drop(self.sender);
        self.tenant.close().await.map_err(|error| error.to_string())
    }
}

fn media(config: &Config, tenant: &Tenant) -> Result<Media, String> {
    let media = &config.media;
    let media = comity_media::Config {
        server_name: config.server_name.clone(),
        folder: media_folder(config),
        bucket: bucket(&config.s3),
        max_upload_bytes: media.max_upload_bytes,
        max_user_bytes: media.max_user_bytes,
        max_remote_bytes: media.max_remote_bytes,
        max_cache_bytes: media.max_cache_bytes,
        fetch_bucket_bytes: media.fetch_bucket_bytes,
        previews: media.url_previews && config.rooms.encryption.lets_preview(),
        max_pending_uploads: media.max_pending_uploads,
        pending_lifetime: Duration::from_secs(media.pending_upload_hours.saturating_mul(60 * 60)),
    };
    // This very program, told to be a worker.
    let program = std::env::current_exe().map_err(|error| format!("this program: {error}"))?;
    let workers = Workers::new(program, [crate::cli::RENDER.to_owned()]);
    Media::open(tenant.clone(), media, Arc::new(workers))
        .map_err(|error| format!("{}: {error}", media_folder(config).display()))
}

/// Where media's blobs lie, unless in a bucket.
pub(crate) fn media_folder(config: &Config) -> PathBuf {
    config.data_dir.join("media")
}

pub(crate) fn bucket(s3: &S3) -> Option<BucketConfig> {
    let secret = s3.secret_access_key.as_ref()?;
    Some(BucketConfig {
        name: s3.bucket.clone()?,
        endpoint: s3.endpoint.as_deref().and_then(|url| url.parse().ok()),
        region: s3.region.clone(),
        prefix: s3.prefix.clone(),
        access_key_id: s3.access_key_id.clone()?,
        secret_access_key: secret.expose().to_owned(),
        redirects: s3.redirects,
    })
}
