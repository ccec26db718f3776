//! The whole server in this process, over the memory engine: the capabilities composed as the binary composes them, without sockets.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    ops::Deref,
    path::Path,
    sync::Arc,
    time::Duration,
};

use comity_accounts::{PasswordCost, Standing};
use comity_client_api::{Api, Support};
use comity_encryption_policy::Mode;
use comity_federation_client::OwnKeys;
use comity_federation_sender::Sender;
use comity_house::{Ground, House};
use comity_media::InProcess;
use comity_protocol::{
    id::{OwnedServerName, ServerName},
    room_version::RoomVersion,
    sign::SigningKey,
};
use comity_runtime::Runtime;
use comity_storage::{CommitError, Engine, Lanes, Options, Store, TenantId, engine::Memory};
use futures_util::FutureExt;
use tempfile::TempDir;

use crate::{Client, User, Wire, lanes};

/// All that `comity check` finds in the rows of a server of this name, a line each; how many rows there are.
///
/// # Errors
/// The store can't be read.
pub async fn check(
    engine: &Engine,
    server: &ServerName,
) -> Result<(u64, Vec<String>), comity_storage::ReadError> {
    let mut found = Vec::new();
    let mut say = |finding| found.push(finding);
    let checked = comity_house::check::rows(engine, TENANT, server, &mut say).await?;
    Ok((checked.rows, found))
}

/// A running server. It derefs to a [`Client`] without a token.
pub struct Server {
    client: Client,
    /// What stands behind the API, for what no request can do.
    pub api: Api,
    /// The router, for tests that bring their own client.
    pub router: axum::Router,
    /// What tells other servers.
    pub sender: Sender,
    pub(crate) disk: Memory,
    files: Arc<TempDir>,
    wire: Wire,
    settings: Settings,
    /// How often it was started on this disk: no run draws the random numbers of another.
    run: u64,
    /// Whether its rows are looked at when it ends.
    checks: bool,
}

/// Whatever the test was about, the rows that it leaves behind are in order.
impl Drop for Server {
    fn drop(&mut self) {
        if !self.checks || std::thread::panicking() {
            return;
        }
        let engine = Engine::Memory(self.disk.clone());
        // A disk that is far away isn't waited for, and one that has crashed is somebody else's.
        if let Some(Ok((_, found))) = check(&engine, self.name()).now_or_never() {
            assert!(found.is_empty(), "the check found:\n{}", found.join("\n"));
        }
    }
}

/// What a server stands on.
pub struct Place {
    /// The disk, which a crash and another server outlive.
    pub disk: Memory,
    /// Where media is, which a crash and another server outlive as well.
    pub files: Arc<TempDir>,
    /// Lanes of a disk that is empty.
    pub lanes: u8,
    /// Whether an answer waits for the disk (`[storage] sync`).
    pub sync: bool,
    /// Time and randomness.
    pub runtime: Runtime,
    /// Where other servers are.
    pub wire: Wire,
    /// What happens when the store can't say any more what is durable. In the binary it ends the process.
    pub on_fatal: Arc<dyn Fn(&CommitError) + Send + std::marker::Sync>,
}

/// What a test may want otherwise.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Its name; `localhost`, if the test doesn't say.
    pub server_name: OwnedServerName,
    /// Where it says that other servers find it, if not by its name.
    pub delegated_to: Option<OwnedServerName>,
    /// Whether anyone may register.
    pub registration_open: bool,
    /// Whether guests may.
    pub guests: bool,
    /// Whether rates are limited.
    pub limits: bool,
    /// The room version of a room whose creator names none.
    pub default_version: RoomVersion,
    /// Whether rooms are encrypted.
    pub encryption: Mode,
    /// The longest upload, in bytes.
    pub max_upload_bytes: u64,
    /// The longest file of another server, in bytes.
    pub max_remote_bytes: u64,
    /// How many bytes are kept of other servers' files, and of what was made of any.
    pub max_cache_bytes: u64,
    /// How many bytes of other servers' files a user may have fetched at once.
    pub fetch_bucket_bytes: u64,
    /// Whether pages are previewed.
    pub previews: bool,
    /// How many bytes a user may upload altogether.
    pub max_user_bytes: Option<u64>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            server_name: "localhost".try_into().expect("a server name"),
            delegated_to: None,
            registration_open: true,
            guests: true,
            limits: false,
            default_version: RoomVersion::V12,
            encryption: Mode::default(),
            max_upload_bytes: 1 << 20,
            max_user_bytes: None,
            fetch_bucket_bytes: 1 << 30,
            previews: true,
            max_remote_bytes: 1 << 20,
            max_cache_bytes: 1 << 30,
        }
    }
}

impl Settings {
    fn of_house(&self, files: &Path) -> comity_house::Settings {
        let base_url = format!("http://{}", self.server_name);
        comity_house::Settings {
            accounts: comity_accounts::Config {
                server_name: self.server_name.to_string(),
                public_baseurl: base_url.clone(),
                token_key: [7; 32],
                registration_open: self.registration_open,
                guests: self.guests,
                shared_secret: Some(SHARED_SECRET.into()),
                access_token_lifetime: Duration::from_secs(300),
                // As cheap as can be: what a hash costs is tested where it is made.
                password_cost: PasswordCost {
                    memory_kib: 64,
                    passes: 1,
                    parallel: 2,
                },
                limits: self.limits,
            },
            rooms: comity_rooms::Config {
                server_name: self.server_name.clone(),
                default_version: self.default_version,
                encryption: self.encryption,
            },
            media: comity_media::Config {
                server_name: self.server_name.clone(),
                folder: files.to_owned(),
                bucket: None,
                max_upload_bytes: self.max_upload_bytes,
                max_user_bytes: self.max_user_bytes,
                max_remote_bytes: self.max_remote_bytes,
                max_cache_bytes: self.max_cache_bytes,
                fetch_bucket_bytes: self.fetch_bucket_bytes,
                previews: self.previews && self.encryption.lets_preview(),
                max_pending_uploads: 5,
                pending_lifetime: Duration::from_secs(24 * 60 * 60),
            },
            clients: comity_client_api::Settings {
                support: Support {
                    page: Some(format!("{base_url}/help")),
                    ..Support::default()
                },
                public_baseurl: base_url,
            },
            federation: comity_federation_server::Settings {
                delegated_to: self.delegated_to.clone(),
            },
        }
    }
}

/// The tenant of every server here.
const TENANT: TenantId = TenantId(1);

/// The secret of the shared-secret registration.
pub const SHARED_SECRET: &str = "shared secret";

impl Deref for Server {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl Server {
    /// A new server with [`lanes`] lanes, open for everybody, without rate limits.
    pub async fn start() -> Self {
        Self::with(Settings::default()).await
    }

    /// A new server.
    pub async fn with(settings: Settings) -> Self {
        Self::on_wire(&Wire::new(), settings).await
    }

    /// A new server among others.
    pub(crate) async fn on_wire(wire: &Wire, settings: Settings) -> Self {
        let disk = (Memory::new(), files());
        Self::on(disk, wire.clone(), settings, 1).await
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &ServerName {
        &self.settings.server_name
    }

    /// Makes a user an administrator, which no request does.
    pub async fn promote(&self, user: &User) {
        let admin = Standing::Admin(true);
        let promoted = self.api.accounts.set_standing(&user.id, admin).await;
        promoted.expect("the user is there");
    }

    /// What it reaches others through.
    #[must_use]
    pub fn wire(&self) -> &Wire {
        &self.wire
    }

    /// What `comity check` finds of its media, a line each.
    pub async fn media_findings(&self) -> Vec<String> {
        let reader = self.api.rooms.tenant().reader();
        let mut found = Vec::new();
        let mut say = |one: comity_media::check::Finding| found.push(one.to_string());
        let blobs = (self.files.path(), None);
        let walked = comity_media::check::tenant(&reader, self.name(), blobs, &mut say);
        walked.await.expect("media can be read");
        found
    }

    /// The server that finds what this one had made durable.
    pub async fn restarted(&self) -> Self {
        let (disk, wire) = ((self.disk.crash(), self.files.clone()), self.wire.clone());
        Self::on(disk, wire, self.settings.clone(), self.run + 1).await
    }

    async fn on(
        (disk, files): (Memory, Arc<TempDir>),
        wire: Wire,
        settings: Settings,
        run: u64,
    ) -> Self {
        let place = Place {
            disk,
            files,
            wire,
            lanes: u8::try_from(lanes()).expect("a number of lanes"),
            sync: true,
            runtime: Runtime::simulated(seed(&settings.server_name, run)),
            on_fatal: Arc::new(|error| panic!("the store failed: {error}")),
        };
        let mut server = Self::open(place, settings).await.expect("the store opens");
        server.run = run;
        server.checks = true;
        server
    }

    /// A server where the test says, which may not open: on a disk that fails, or that another server has.
    ///
    /// # Errors
    /// What stands in the way.
    pub async fn open(place: Place, settings: Settings) -> Result<Self, String> {
        let Place {
            disk, files, wire, ..
        } = place;
        let options = Options {
            lanes: Lanes::new(place.lanes).expect("a number of lanes"),
            sync: place.sync,
            on_fatal: place.on_fatal,
            appliers: comity_house::appliers(),
        };
        let process = place.runtime.clone();
        let store = Store::new(Engine::Memory(disk.clone()), options, place.runtime);
        let ground = Ground {
            tenant: store
                .tenant(TENANT)
                .await
                .map_err(|error| error.to_string())?,
            keys: OwnKeys {
                key: Arc::new(signing_key(&settings.server_name)),
                old: Vec::new(),
            },
            transport: wire.end(&settings.server_name),
            web: wire.web(),
            renderer: Arc::new(InProcess::new(&process)),
        };
        let house = House::open(ground, settings.of_house(files.path()));
        let house = house.await.map_err(|error| error.to_string())?;
        let router = house.router();
        wire.attach(&settings.server_name, router.clone(), process, true);
        Ok(Self {
            client: Client::new(router.clone()),
            api: house.api,
            router,
            sender: house.sender,
            disk,
            files,
            wire,
            settings,
            run: 1,
            checks: false,
        })
    }
}

/// An empty folder, gone when nobody has it any more.
#[must_use]
pub fn files() -> Arc<TempDir> {
    Arc::new(tempfile::tempdir().expect("a folder for media"))
}

/// No two runs, of one server or of two, draw the same numbers.
fn seed(server: &ServerName, run: u64) -> u64 {
    let mut hasher = DefaultHasher::new();
    (server.as_str(), run).hash(&mut hasher);
    hasher.finish()
}

/// The key of a server of this name: each has its own, the same after a restart.
pub(crate) fn signing_key(server: &ServerName) -> SigningKey {
    let mut seed = [7; 32];
    for (place, byte) in seed.iter_mut().zip(server.as_str().bytes()) {
        *place ^= byte;
    }
    SigningKey::from_seed("1", &seed).expect("a key")
}
