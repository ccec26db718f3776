//! Every key of the configuration, once: its type, its default, what it means.

use std::{fmt, net::SocketAddr, path::PathBuf};

use comity_encryption_policy::Mode;
use comity_protocol::id::{OwnedServerName, OwnedUserId};
use figment::value::Value;
use serde::{Deserialize, Serialize, Serializer};

use crate::http::Network;

/// One key as the reference and the environment see it.
pub(super) struct Entry {
    /// The section, empty at the top.
    pub section: &'static str,
    pub key: &'static str,
    pub doc: Vec<&'static str>,
    pub default: serde_json::Value,
    /// Reads an environment variable's text.
    pub parse: fn(&str) -> Result<Value, &'static str>,
}

impl Entry {
    /// `section.key`
    pub fn path(&self) -> String {
        match self.section {
            "" => self.key.to_owned(),
            section => format!("{section}.{}", self.key),
        }
    }
}

/// Declares a section: its struct, its defaults, its entries.
macro_rules! section {
    ($(#[doc = $about:literal])* $name:ident {
        $($(#[doc = $doc:literal])+ $key:ident: $type:ty = $default:expr,)*
    }) => {
        $(#[doc = $about])*
        #[derive(Clone, Debug, Serialize, Deserialize)]
        pub struct $name {
            $($(#[doc = $doc])+ pub $key: $type,)*
        }

        impl Default for $name {
            fn default() -> Self {
                Self { $($key: $default,)* }
            }
        }

        impl $name {
            fn entries(section: &'static str) -> Vec<Entry> {
                let defaults = Self::default();
                vec![$(Entry {
                    section,
                    key: stringify!($key),
                    doc: vec![$($doc.trim_ascii_start()),+],
                    default: serde_json::to_value(&defaults.$key).unwrap_or_default(),
                    parse: <$type as Setting>::parse,
                }),*]
            }
        }
    };
}

section! {
    /// The keys at the top, before any section.
    General {
        /// The name in every user and room id (`@alice:example.org`). Must be set, and never changes.
        server_name: Option<OwnedServerName> = None,
        /// Where clients reach this server. Unset: `https://` and the server name.
        public_baseurl: Option<String> = None,
        /// The folder of everything that is kept on this machine; relative to where the server is started.
        data_dir: PathBuf = PathBuf::from("./data"),
    }
}

section! {
    /// `[listen]`: where connections come in.
    Listen {
        /// IP address and port for clients. Plain HTTP unless `client_tls` says otherwise.
        client: SocketAddr = SocketAddr::from(([127, 0, 0, 1], 8008)),
        /// IP address and port for other servers, usually `0.0.0.0:8448`. Unset: not opened. TLS when there is a
        /// certificate. Both listeners serve the same paths.
        federation: Option<SocketAddr> = None,
        /// PEM file with the certificate and those of its issuers.
        tls_cert: Option<PathBuf> = None,
        /// PEM file with the certificate's private key.
        tls_key: Option<PathBuf> = None,
        /// Whether the listener for clients speaks TLS too (without it, put a reverse proxy in front).
        client_tls: bool = false,
        /// Reverse proxies whose `X-Forwarded-For` is believed: addresses and networks (`127.0.0.1`, `10.0.0.0/8`). Of the
        /// list in that header the rightmost address that isn't one of them is the client's, by which rates are limited.
        trusted_proxies: Vec<Network> = Vec::new(),
        /// Connections held at once; more wait in the operating system's queue. Unset: as many as the process may
        /// open files, less a quarter.
        max_connections: Option<usize> = None,
    }
}

section! {
    /// `[federation]`: how other servers reach this one.
    Federation {
        /// `host` or `host:port` of the server, published at `/.well-known/matrix/server` for those who ask at `server_name`.
        /// Unset: it is at `server_name`, port 8448 where that names none.
        delegated_to: Option<OwnedServerName> = None,
    }
}

section! {
    /// `[outbound]`: requests to other servers.
    Outbound {
        /// PEM files with certificate authorities to trust besides the system's.
        extra_ca_files: Vec<PathBuf> = Vec::new(),
        /// Whether requests to other servers may go to private, loopback and link-local addresses. For federations of one's own,
        /// and test networks.
        allow_private_addresses: bool = false,
        /// The same for pages that are previewed, and for files that other servers keep elsewhere. Anybody could read by it what
        /// only this machine's network is to see: for test networks only.
        allow_private_pages: bool = false,
    }
}

section! {
    /// `[registration]`: who may sign up.
    Registration {
        /// Whether anyone may. Otherwise accounts are made by `comity user add`, by whoever has a token
        /// (`comity registration-token add`), or by shared secret.
        open: bool = false,
        /// Whether guests may look around without an account.
        guests: bool = false,
        /// The secret of `/_synapse/admin/v1/register`, by which scripts make accounts. Unset: closed.
        shared_secret: Option<Secret> = None,
    }
}

section! {
    /// `[limits]`: rate limits.
    Limits {
        /// Whether rate limits apply. Switch them off for tests and benchmarks only.
        enabled: bool = true,
    }
}

section! {
    /// `[rooms]`: what rooms are like.
    Rooms {
        /// The room version of a room whose creator names none.
        default_version: String = "12".to_owned(),
        /// Whether rooms are encrypted. `forbidden`: users of this server can't encrypt. `allowed`: they decide. `default`: they do,
        /// but new rooms that aren't public begin encrypted. `required`: all new rooms do, and users of this server send no
        /// message in the clear, in older rooms neither.
        encryption: Mode = Mode::Allowed,
    }
}

section! {
    /// `[media]`: files that users upload. They are kept below `data_dir`, or in a bucket (`[s3]`).
    Media {
        /// The longest upload, in bytes.
        max_upload_bytes: u64 = 50 << 20,
        /// How many bytes a user may have uploaded altogether. Unset: any number.
        max_user_bytes: Option<u64> = None,
        /// The longest file fetched from another server, in bytes.
        max_remote_bytes: u64 = 50 << 20,
        /// How many bytes are kept of other servers' files, and of the thumbnails of all. Beyond, those go that nobody has looked at for
        /// longest; what your users uploaded stays.
        max_cache_bytes: u64 = 10 << 30,
        /// How many bytes of other servers' files a user may have fetched at once; it takes a quarter of an hour to have as many again.
        fetch_bucket_bytes: u64 = 1 << 30,
        /// Whether users see previews of the pages they write of. The pages are fetched by this server, from public addresses alone;
        /// where all rooms have to be encrypted, none are.
        url_previews: bool = false,
        /// How many ids a user may have asked for at a time without uploading anything to them.
        max_pending_uploads: usize = 5,
        /// How many hours such an id waits for its upload.
        pending_upload_hours: u64 = 24,
    }
}

section! {
    /// `[s3]`: a bucket of an S3 service that keeps the files users upload.
    S3 {
        /// The bucket's name. Unset: files are kept below `data_dir`. What was uploaded before it is set stays where it was: copy
        /// `data_dir/media/blobs` into the bucket first.
        bucket: Option<String> = None,
        /// Where the service is: `https://host` or `https://host:port`; the bucket's name comes in the path. Unset: Amazon's.
        endpoint: Option<String> = None,
        /// The region of the bucket.
        region: String = "us-east-1".to_owned(),
        /// A folder in the bucket, for a server that shares it with others.
        prefix: String = String::new(),
        /// The access key's name. It may get, put and delete objects, and abort uploads; `comity doctor` tries that out.
        access_key_id: Option<String> = None,
        /// The access key's secret.
        secret_access_key: Option<Secret> = None,
        /// Whether clients fetch files from the service itself, by links that are good for five minutes. The bucket must allow the
        /// origins of web clients (CORS).
        redirects: bool = false,
    }
}

section! {
    /// `[support]`: whom users and other servers' administrators turn to, published at `/.well-known/matrix/support`.
    Support {
        /// An administrator's e-mail address.
        email_address: Option<String> = None,
        /// An administrator's Matrix user id, perhaps on another server: this one may be what is in trouble.
        matrix_id: Option<OwnedUserId> = None,
        /// The address of a page about getting help.
        page: Option<String> = None,
    }
}

section! {
    /// `[log]`: what is written to standard error.
    Log {
        /// `text` for people, `json` for machines.
        format: LogFormat = LogFormat::Text,
        /// `error`, `warn`, `info`, `debug` or `trace`; also by module: `info,comity_rooms=debug`.
        level: String = "info".to_owned(),
    }
}

section! {
    /// `[storage]`: where the data is kept.
    Storage {
        /// `rocksdb` (below `data_dir`), `postgres` (at `url`), or `memory` (gone at the end; for tests).
        engine: StorageEngine = StorageEngine::Rocksdb,
        /// The PostgreSQL database: `postgresql://user:password@host/database`. The connection is not encrypted: on another
        /// machine it needs a network to be trusted, or a tunnel; `sslmode=require` is refused.
        url: Option<Secret> = None,
        /// Whether an answer waits until what it promises is on the disk. Without, a power cut loses seconds; and after any start
        /// that no orderly end came before, everybody has to sign in again, on the devices they have, and clients fetch their rooms
        /// anew: whose sessions had been ended may be among what was lost.
        sync: bool = true,
        /// How many lanes a new store is divided into, a power of two up to 64; fixed when the store is made.
        lanes: u32 = 1,
    }
}

/// What is written, by section.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Settings {
    #[serde(flatten, skip_deserializing)]
    pub general: General,
    pub listen: Listen,
    pub federation: Federation,
    pub outbound: Outbound,
    pub registration: Registration,
    pub limits: Limits,
    pub rooms: Rooms,
    pub media: Media,
    pub s3: S3,
    pub support: Support,
    pub log: Log,
    pub storage: Storage,
}

/// Every key, in the reference's order.
pub(super) fn entries() -> Vec<Entry> {
    [
        General::entries(""),
        Listen::entries("listen"),
        Federation::entries("federation"),
        Outbound::entries("outbound"),
        Registration::entries("registration"),
        Limits::entries("limits"),
        Rooms::entries("rooms"),
        Media::entries("media"),
        S3::entries("s3"),
        Support::entries("support"),
        Log::entries("log"),
        Storage::entries("storage"),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// What keeps the rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StorageEngine {
    /// Embedded, in `data_dir`.
    Rocksdb,
    /// A PostgreSQL server.
    Postgres,
    /// Nothing is kept beyond the process.
    Memory,
}

/// A text that is neither printed nor logged.
#[derive(Clone, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// The text itself.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str("(secret)")
    }
}

/// How an environment variable's text becomes a value of this type. Which type a key has decides, never what the
/// text looks like: a secret of digits stays a secret.
trait Setting {
    fn parse(text: &str) -> Result<Value, &'static str>;
}

macro_rules! texts {
    ($($type:ty)*) => {$(
        impl Setting for $type {
            fn parse(text: &str) -> Result<Value, &'static str> {
                Ok(Value::from(text))
            }
        }
    )*};
}

texts!(String PathBuf SocketAddr OwnedServerName OwnedUserId Secret LogFormat StorageEngine Network Mode);

macro_rules! numbers {
    ($($type:ty)*) => {$(
        impl Setting for $type {
            fn parse(text: &str) -> Result<Value, &'static str> {
                text.parse::<$type>().map(Value::from).map_err(|_| "is a number")
            }
        }
    )*};
}

numbers!(u32 u64 usize);

impl Setting for bool {
    fn parse(text: &str) -> Result<Value, &'static str> {
        match text {
            "true" | "1" | "yes" => Ok(Value::from(true)),
            "false" | "0" | "no" => Ok(Value::from(false)),
            _ => Err("is true or false"),
        }
    }
}

impl<T: Setting> Setting for Option<T> {
    fn parse(text: &str) -> Result<Value, &'static str> {
        T::parse(text)
    }
}

/// Separated by commas.
impl<T: Setting> Setting for Vec<T> {
    fn parse(text: &str) -> Result<Value, &'static str> {
        let parts = text
            .split(',')
            .map(str::trim)
            .filter(|part| !part.is_empty());
        Ok(Value::from(
            parts.map(T::parse).collect::<Result<Vec<_>, _>>()?,
        ))
    }
}
