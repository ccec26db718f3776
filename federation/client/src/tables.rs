//! What is kept about other servers, each server's rows in its own lane.

use comity_storage::{
    Damaged, Family, Home, Key, KeyReader, KeyWriter, Registered, Table, postcard_value,
};
use serde::{Deserialize, Serialize};

/// Another server's one row in a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerKey(pub String);

impl Key for ServerKey {
    fn home(&self) -> Home<'_> {
        Home::Server(&self.0)
    }
    fn write(&self, to: &mut KeyWriter) {
        to.str(&self.0);
    }
    fn read(from: &mut KeyReader<'_>) -> Result<Self, Damaged> {
        Ok(Self(from.str()?))
    }
}

/// A server that doesn't answer. There is no row of one that does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failing {
    /// Since when, in milliseconds since 1970.
    pub since_ts: u64,
    /// Not asked again before, in milliseconds since 1970.
    pub retry_ts: u64,
    /// The wait that ends then, before jitter, in milliseconds; the next is twice as long.
    pub interval_ms: u64,
}

/// A server's keys: all that it ever published to us.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownKeys {
    /// When its last answer was fetched, in milliseconds since 1970.
    pub fetched_ts: u64,
    /// When that is to be asked for again, in milliseconds since 1970.
    pub valid_until_ts: u64,
    /// Its keys by id, in the order of ids.
    pub keys: Vec<KnownKey>,
    /// That answer, in canonical JSON, for those who ask us as a notary.
    pub answer: String,
}

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownKey {
    /// `ed25519:VERSION`.
    pub key_id: String,
    /// In unpadded base64.
    pub key: String,
    /// Until when it is good (of a current key), or for events made before when (of an old one).
    pub ts: i64,
    /// Whether it is an old one.
    pub old: bool,
}

postcard_value!(Failing, KnownKeys);

macro_rules! tables {
    ($($(#[$doc:meta])* $table:ident: $name:literal, $tag:literal, $key:ty => $value:ty;)+) => {$(
        $(#[$doc])*
        #[derive(Debug)]
        pub struct $table;
        impl Table for $table {
            const NAME: &'static str = $name;
            const FAMILY: Family = Family::Hot;
            const TAG: [u8; 2] = *$tag;
            type Key = $key;
            type Value = $value;
        }
    )+

        /// Every table of this crate, for the check of a store.
        pub fn all() -> Vec<Registered> {
            vec![$(Registered::of::<$table>()),+]
        }
    };
}

tables! {
    /// `server` → [`Failing`].
    BackOffs: "back-off", b"Fb", ServerKey => Failing;
    /// `server` → [`KnownKeys`].
    ServerKeys: "server keys", b"Fk", ServerKey => KnownKeys;
}
