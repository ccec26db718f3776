//! A house as the configuration wants it: on its store, its keys, the network, and worker processes for pictures.

use std::{path::PathBuf, sync::Arc, time::Duration};

use comity_accounts::PasswordCost;
use comity_client_api::Support;
use comity_federation_client::{Outbound, OutboundConfig, OwnKeys};
use comity_house::{Ground, House, OpenError, Settings};
use comity_media::{BucketConfig, Workers};
use comity_protocol::room_version::RoomVersion;
use comity_runtime::Runtime;

use crate::{
    config::{Config, S3, Secret},
    keys, store,
};

/// How long an access token is good for a client that can refresh it.
const ACCESS_TOKEN_LIFETIME: Duration = Duration::from_secs(60 * 60);

/// Opens the store and everything on it.
///
/// # Errors
/// What stands in the way, for the operator.
pub async fn open(config: &Config, runtime: &Runtime) -> Result<House, String> {
    let keys = keys::Keys::open(&config.data_dir, runtime)?;
    let settings = settings(config, keys.token)?;
    let outbound = OutboundConfig {
        extra_ca_files: config.outbound.extra_ca_files.clone(),
        allow_private_addresses: config.outbound.allow_private_addresses,
        allow_private_pages: config.outbound.allow_private_pages,
    };
    let outbound = Outbound::new(&outbound, runtime.clone()).map_err(|error| error.to_string())?;
    let outbound = Arc::new(outbound);
    let store = store::open(config, runtime)
        .await
        .map_err(|error| error.to_string())?;
    let tenant = store
        .tenant(store::TENANT)
        .await
        .map_err(|error| error.to_string())?;
    let workers = Workers::of_this_program([crate::cli::RENDER.to_owned()])
        .map_err(|error| format!("this program: {error}"))?;
    let ground = Ground {
        tenant,
        keys: OwnKeys {
            key: Arc::new(keys.signing),
            old: keys.old,
        },
        transport: outbound.clone(),
        web: outbound,
        renderer: Arc::new(workers),
    };
    House::open(ground, settings)
        .await
        .map_err(|error| match error {
            OpenError::Media(error) => format!("{}: {error}", media_folder(config).display()),
            error => error.to_string(),
        })
}

fn settings(config: &Config, token_key: [u8; 32]) -> Result<Settings, String> {
    let secret = config.registration.shared_secret.as_ref();
    Ok(Settings {
        accounts: comity_accounts::Config {
            server_name: config.server_name.to_string(),
            public_baseurl: config.public_baseurl.clone(),
            token_key,
            registration_open: config.registration.open,
            guests: config.registration.guests,
            shared_secret: secret.map(Secret::expose).map(str::to_owned),
            access_token_lifetime: ACCESS_TOKEN_LIFETIME,
            password_cost: PasswordCost::default(),
            limits: config.limits.enabled,
        },
        rooms: comity_rooms::Config {
            server_name: config.server_name.clone(),
            // The configuration was checked: a version we know.
            default_version: RoomVersion::parse(&config.rooms.default_version)
                .ok_or("rooms.default_version is no room version")?,
            encryption: config.rooms.encryption,
        },
        media: media(config),
        clients: comity_client_api::Settings {
            public_baseurl: config.public_baseurl.clone(),
            support: Support {
                email_address: config.support.email_address.clone(),
                matrix_id: config.support.matrix_id.clone(),
                page: config.support.page.clone(),
            },
        },
        federation: comity_federation_server::Settings {
            delegated_to: config.federation.delegated_to.clone(),
        },
    })
}

fn media(config: &Config) -> comity_media::Config {
    let media = &config.media;
    comity_media::Config {
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
    }
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
