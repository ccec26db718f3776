//! The rows of accounts, all under the user and in the user's lane, but for registration tokens (a lane of their own), room
//! account data (the room's lane) and reports (the audit slot).

use comity_storage::{
    Damaged, Family, Home, Key, KeyReader, KeyWriter, Registered, RoomKey, Slot, Table, Value,
    postcard_value,
};
use serde::{Deserialize, Serialize};

use crate::reports::Report;

/// The longest part of a [`UserPart`] or [`UserRoomPart`], in bytes: it fits a key beside the longest user id and a room.
const MAX_PART_BYTES: usize = 230;

/// Whether this can be a part of a key. A zero takes two bytes there.
pub(crate) fn is_part(text: &str) -> bool {
    text.len() <= MAX_PART_BYTES && !text.contains('\0')
}

/// A user's one row in a table. User ids are whole: `@localpart:server`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserKey(pub String);

/// A row under a user: a device, a type of account data, a filter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserPart {
    /// The user's id.
    pub user: String,
    /// What of the user.
    pub part: String,
}

/// A row of a user about a room, in the room's lane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserRoomPart {
    /// The user's id.
    pub user: String,
    /// The room.
    pub room: RoomKey,
    /// The type of account data.
    pub part: String,
}

/// A row by a tenant-wide name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named(pub String);

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

impl UserPart {
    pub(crate) fn new(user: &str, part: &str) -> Self {
        Self {
            user: user.to_owned(),
            part: part.to_owned(),
        }
    }
}

impl Key for UserPart {
    fn home(&self) -> Home<'_> {
        Home::User(&self.user)
    }
    fn write(&self, to: &mut KeyWriter) {
        to.str(&self.user).str(&self.part);
    }
    fn read(from: &mut KeyReader<'_>) -> Result<Self, Damaged> {
        Ok(Self {
            user: from.str()?,
            part: from.str()?,
        })
    }
}

impl Key for UserRoomPart {
    fn home(&self) -> Home<'_> {
        Home::Room(self.room)
    }
    fn write(&self, to: &mut KeyWriter) {
        to.str(&self.user).room(self.room).str(&self.part);
    }
    fn read(from: &mut KeyReader<'_>) -> Result<Self, Damaged> {
        Ok(Self {
            user: from.str()?,
            room: from.room()?,
            part: from.str()?,
        })
    }
}

impl Key for Named {
    fn home(&self) -> Home<'_> {
        Home::Name(&self.0)
    }
    fn write(&self, to: &mut KeyWriter) {
        to.str(&self.0);
    }
    fn read(from: &mut KeyReader<'_>) -> Result<Self, Damaged> {
        Ok(Self(from.str()?))
    }
}

/// A report's place: by time, so that they read as they came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReportKey {
    /// When it was made, in milliseconds since 1970.
    pub ts: u64,
    /// Tells those of one moment apart.
    pub id: [u8; 8],
}

/// Where what administrators must be able to look back on is kept.
pub(crate) const AUDIT: Home<'static> = Home::Fixed(Slot::new(0));

impl Key for ReportKey {
    fn home(&self) -> Home<'_> {
        AUDIT
    }
    fn write(&self, to: &mut KeyWriter) {
        to.u64(self.ts).fixed(&self.id);
    }
    fn read(from: &mut KeyReader<'_>) -> Result<Self, Damaged> {
        Ok(Self {
            ts: from.u64()?,
            id: from.fixed()?,
        })
    }
}

/// The prefix of a user's rows, in tables that begin with the user.
pub(crate) fn of_user(user: &str) -> impl FnOnce(&mut KeyWriter) + '_ {
    move |key| {
        key.str(user);
    }
}

/// A local account.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// The password's argon2id hash as a PHC string; `None` for guests and those who sign in elsewhere.
    pub password: Option<String>,
    /// When it was made, in milliseconds since 1970.
    pub created_ts: u64,
    /// A guest account.
    pub guest: bool,
    /// A server administrator.
    pub admin: bool,
    /// Locked: no request is answered, the sessions stay.
    pub locked: bool,
    /// Suspended: may read, not act.
    pub suspended: bool,
    /// Gone for good.
    pub deactivated: bool,
}

/// A device, as its owner sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// The name its owner gave it.
    pub display_name: Option<String>,
    /// When it was made, in milliseconds since 1970.
    pub created_ts: u64,
}

/// The device of a user that nobody signs in by; there is a [`Device`] of it too.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DehydratedDevice {
    /// Its id.
    pub device_id: String,
    /// What its secrets are sealed in, as JSON.
    pub data: String,
}

/// When and from where a device was last seen; written now and then.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// In milliseconds since 1970.
    pub ts: u64,
    /// The address.
    pub ip: String,
    /// The client's `User-Agent`.
    pub user_agent: String,
}

/// The id of a login: what its tokens name.
pub type SessionId = [u8; 16];

/// A device's login. Signing in again on the device writes another over it, which ends the tokens of the first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// Named by its tokens.
    pub id: SessionId,
    /// The store's incarnation that it began in: it ends with it, for what ended it may have been lost.
    pub incarnation: u32,
    /// Whether its tokens expire and are refreshed.
    pub refreshed: bool,
    /// The newest pair of tokens; each refresh makes the next.
    pub generation: u32,
    /// Whether that pair has been used: then the pair before is dead.
    pub used: bool,
}

/// A registration token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegistrationToken {
    /// How many accounts it may make; `None`: any number.
    pub uses_allowed: Option<u32>,
    /// How many it has made.
    pub uses: u32,
    /// Until when, in milliseconds since 1970.
    pub expires_ts: Option<u64>,
}

/// What is left to do for an account that was deactivated: leave its rooms, then forget the job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deactivation {
    /// Whether the user asked that their data be erased.
    pub erase: bool,
    /// When it was asked, in milliseconds since 1970.
    pub ts: u64,
}

/// Room account data: the room's id is kept whole, the key has only its hash.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoomData {
    /// The room.
    pub room_id: String,
    /// The content, as JSON.
    pub content: String,
}

/// A JSON text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Json(pub String);

impl Value for Json {
    fn write(&self, to: &mut Vec<u8>) {
        to.extend_from_slice(self.0.as_bytes());
    }
    fn read(_: u8, payload: &[u8]) -> Result<Self, Damaged> {
        let text = String::from_utf8(payload.to_vec());
        text.map(Self)
            .map_err(|_| Damaged("a JSON value is not UTF-8"))
    }
}

postcard_value!(
    User,
    Device,
    DehydratedDevice,
    Seen,
    Session,
    RegistrationToken,
    Deactivation,
    RoomData,
    Report
);

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
    /// `user` → [`User`].
    Users: "user", b"A.", UserKey => User;
    /// `user, device` → [`Device`].
    Devices: "device", b"Ad", UserPart => Device;
    /// `user` → [`DehydratedDevice`].
    Dehydrated: "dehydrated device", b"Ah", UserKey => DehydratedDevice;
    /// `user, device` → [`Seen`].
    LastSeen: "last seen", b"Al", UserPart => Seen;
    /// `user, device` → [`Session`].
    Sessions: "session", b"As", UserPart => Session;
    /// `user` → the profile, a JSON object.
    Profiles: "profile", b"Ap", UserKey => Json;
    /// `user, type` → the content of global account data.
    AccountData: "account data", b"Aa", UserPart => Json;
    /// `user, room, type` → room account data; `m.tag` is one of the types.
    RoomAccountData: "room account data", b"Ar", UserRoomPart => RoomData;
    /// `user, filter id` → the filter.
    Filters: "filter", b"Af", UserPart => Json;
    /// `user` → [`Deactivation`].
    Deactivations: "deactivation", b"Aj", UserKey => Deactivation;
    /// `token` → [`RegistrationToken`].
    RegistrationTokens: "registration token", b"At", Named => RegistrationToken;
    /// `time, id` → [`Report`].
    Reports: "report", b"Ax", ReportKey => Report;
}
