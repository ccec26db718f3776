//! The rows of key backups, all in their user's lane. A version's row is rewritten with each change of its keys, so it is what
//! such a change is conditioned on.

use comity_storage::{
    Damaged, Family, Home, Key, KeyReader, KeyWriter, Registered, RoomKey, Table, postcard_value,
};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Every table of this crate, for the check of a store.
pub fn all() -> Vec<Registered> {
    vec![
        Registered::of::<Versions>(),
        Registered::of::<Backups>(),
        Registered::of::<Sessions>(),
    ]
}

/// A user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserKey(pub String);

impl Key for UserKey {
    fn home(&self) -> Home<'_> {
        Home::User(&self.0)
    }
    fn write(&self, to: &mut KeyWriter) {
        to.str(&self.0);
    }
    fn read(from: &mut KeyReader<'_>) -> Result<Self, Damaged> {
        Ok(Self(from.str()?))
    }
}

/// A version of a user's backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserVersion {
    /// The user's id.
    pub user: String,
    /// The version.
    pub version: u64,
}

impl Key for UserVersion {
    fn home(&self) -> Home<'_> {
        Home::User(&self.user)
    }
    fn write(&self, to: &mut KeyWriter) {
        to.str(&self.user).u64(self.version);
    }
    fn read(from: &mut KeyReader<'_>) -> Result<Self, Damaged> {
        Ok(Self {
            user: from.str()?,
            version: from.u64()?,
        })
    }
}

/// A session's key in a backup. Sessions' names are the clients' choice, so the key has their hash; the row has the names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserSession {
    /// The backup.
    pub backup: UserVersion,
    /// The session's room.
    pub room: RoomKey,
    /// The first 16 bytes of the SHA-256 of the session's id.
    pub session: [u8; 16],
}

impl UserSession {
    pub(crate) fn new(backup: &UserVersion, room_id: &str, session_id: &str) -> Self {
        let digest = Sha256::digest(session_id.as_bytes());
        let mut session = [0; 16];
        session
            .iter_mut()
            .zip(digest)
            .for_each(|(to, from)| *to = from);
        Self {
            backup: backup.clone(),
            room: RoomKey::of(room_id),
            session,
        }
    }
}

impl Key for UserSession {
    fn home(&self) -> Home<'_> {
        self.backup.home()
    }
    fn write(&self, to: &mut KeyWriter) {
        self.backup.write(to);
        to.room(self.room).fixed(&self.session);
    }
    fn read(from: &mut KeyReader<'_>) -> Result<Self, Damaged> {
        Ok(Self {
            backup: UserVersion::read(from)?,
            room: from.room()?,
            session: from.fixed()?,
        })
    }
}

/// Which versions a user's backups had.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Given {
    /// The last version given; none is given again.
    pub last: u64,
}

/// A backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backup {
    /// How its keys are encrypted.
    pub algorithm: String,
    /// What the algorithm needs to know, as JSON.
    pub auth_data: String,
    /// How many keys it has.
    pub count: u64,
    /// How often its keys have changed.
    pub etag: u64,
}

/// A session's key as a client backed it up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// The session's room.
    pub room_id: String,
    /// The session.
    pub session_id: String,
    /// The first message that the key decrypts.
    pub first_message_index: u64,
    /// How often the key was handed from device to device.
    pub forwarded_count: u64,
    /// Whether the device it came from was verified.
    pub is_verified: bool,
    /// The encrypted key, as JSON.
    pub session_data: String,
}

postcard_value!(Given, Backup, Session);

/// `user` → [`Given`].
#[derive(Debug)]
pub struct Versions;

impl Table for Versions {
    const NAME: &'static str = "key backup versions";
    const FAMILY: Family = Family::Hot;
    const TAG: [u8; 2] = *b"Bv";
    type Key = UserKey;
    type Value = Given;
}

/// `user, version` → [`Backup`].
#[derive(Debug)]
pub struct Backups;

impl Table for Backups {
    const NAME: &'static str = "key backup";
    const FAMILY: Family = Family::Hot;
    const TAG: [u8; 2] = *b"Bb";
    type Key = UserVersion;
    type Value = Backup;
}

/// `user, version, room, session` → [`Session`].
#[derive(Debug)]
pub struct Sessions;

impl Table for Sessions {
    const NAME: &'static str = "backed-up key";
    const FAMILY: Family = Family::Index;
    const TAG: [u8; 2] = *b"Bs";
    type Key = UserSession;
    type Value = Session;
}
