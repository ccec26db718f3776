//! The rows of keys: all of a user's in the user's lane, of users of other servers as well.
//!
//! What clients name as long as they like (devices, keys) stands in keys by its hash, and whole in the value.

use std::collections::BTreeMap;

use comity_storage::{
    At, Damaged, Home, Key, KeyReader, KeyWriter, Pos, Slot, postcard_value, tables,
};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// A name in a key: the first 16 bytes of its SHA-256.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct NameHash(pub [u8; 16]);

impl NameHash {
    /// Of a name, or of several that are one together.
    pub fn of(parts: &[&str]) -> Self {
        let mut hash = Sha256::new();
        for part in parts {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        let digest = hash.finalize();
        Self(digest.first_chunk().copied().unwrap_or_default())
    }
}

/// A user's one row in a table.
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

/// A device's one row in a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceKey {
    /// The user's id.
    pub user: String,
    /// The device's id.
    pub device: NameHash,
}

impl DeviceKey {
    /// The row of a device.
    pub fn new(user: &str, device: &str) -> Self {
        Self {
            user: user.to_owned(),
            device: NameHash::of(&[device]),
        }
    }
}

impl Key for DeviceKey {
    fn home(&self) -> Home<'_> {
        Home::User(&self.user)
    }
    fn write(&self, to: &mut KeyWriter) {
        to.str(&self.user).fixed(&self.device.0);
    }
    fn read(from: &mut KeyReader<'_>) -> Result<Self, Damaged> {
        Ok(Self {
            user: from.str()?,
            device: NameHash(from.fixed()?),
        })
    }
}

/// A one-time key: those of one algorithm stand in the order in which they came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OneTimeKeyKey {
    /// Whose.
    pub device: DeviceKey,
    /// For what.
    pub algorithm: String,
    /// The commit that it came with.
    pub pos: At,
    /// Its place among what came with it.
    pub index: u32,
}

impl Key for OneTimeKeyKey {
    fn home(&self) -> Home<'_> {
        self.device.home()
    }
    fn write(&self, to: &mut KeyWriter) {
        self.device.write(to);
        to.str(&self.algorithm).position(self.pos).u32(self.index);
    }
    fn read(from: &mut KeyReader<'_>) -> Result<Self, Damaged> {
        Ok(Self {
            device: DeviceKey::read(from)?,
            algorithm: from.str()?,
            pos: from.position()?,
            index: from.u32()?,
        })
    }
}

/// That a one-time key was given away, in the order in which they were.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GivenKey {
    /// Whose.
    pub device: DeviceKey,
    /// The commit that gave it away.
    pub pos: At,
    /// The key, with its id.
    pub key: NameHash,
}

impl Key for GivenKey {
    fn home(&self) -> Home<'_> {
        self.device.home()
    }
    fn write(&self, to: &mut KeyWriter) {
        self.device.write(to);
        to.position(self.pos).fixed(&self.key.0);
    }
    fn read(from: &mut KeyReader<'_>) -> Result<Self, Damaged> {
        Ok(Self {
            device: DeviceKey::read(from)?,
            pos: from.position()?,
            key: NameHash(from.fixed()?),
        })
    }
}

/// A device's fallback key of an algorithm.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FallbackKey {
    /// Whose.
    pub device: DeviceKey,
    /// For what.
    pub algorithm: String,
}

impl Key for FallbackKey {
    fn home(&self) -> Home<'_> {
        self.device.home()
    }
    fn write(&self, to: &mut KeyWriter) {
        self.device.write(to);
        to.str(&self.algorithm);
    }
    fn read(from: &mut KeyReader<'_>) -> Result<Self, Damaged> {
        Ok(Self {
            device: DeviceKey::read(from)?,
            algorithm: from.str()?,
        })
    }
}

/// A signature that one of our users made; with whoever signed, since those on others' keys are nobody else's to see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignatureKey {
    /// Who signed.
    pub signer: String,
    /// Whose key is signed.
    pub target: NameHash,
    /// Which: a device's id, or the public half of a master key.
    pub key: NameHash,
    /// The id of the key that signed.
    pub by: NameHash,
}

impl Key for SignatureKey {
    fn home(&self) -> Home<'_> {
        Home::User(&self.signer)
    }
    fn write(&self, to: &mut KeyWriter) {
        to.str(&self.signer)
            .fixed(&self.target.0)
            .fixed(&self.key.0)
            .fixed(&self.by.0);
    }
    fn read(from: &mut KeyReader<'_>) -> Result<Self, Damaged> {
        Ok(Self {
            signer: from.str()?,
            target: NameHash(from.fixed()?),
            key: NameHash(from.fixed()?),
            by: NameHash(from.fixed()?),
        })
    }
}

/// The latest change of a user's list, by when it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChangeKey {
    /// The slot of who changed it, so that it goes where their rows go.
    pub slot: u8,
    /// The commit that changed it.
    pub pos: At,
    /// Whose list.
    pub user: String,
}

impl Key for ChangeKey {
    fn home(&self) -> Home<'_> {
        Home::Fixed(Slot::new(self.slot))
    }
    fn write(&self, to: &mut KeyWriter) {
        to.u8(self.slot).position(self.pos).str(&self.user);
    }
    fn read(from: &mut KeyReader<'_>) -> Result<Self, Damaged> {
        Ok(Self {
            slot: from.u8()?,
            pos: from.position()?,
            user: from.str()?,
        })
    }
}

/// A device as others see it. There is a row of every device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// Its id.
    pub device_id: String,
    /// What its owner calls it.
    pub name: Option<String>,
    /// Its identity keys in canonical JSON, once there are any.
    pub keys: Option<String>,
}

/// A key to be given away once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OneTimeKey {
    /// `algorithm:name`
    pub key_id: String,
    /// The key in canonical JSON.
    pub json: String,
}

/// A key to be given away when there is no other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fallback {
    /// `algorithm:name`
    pub key_id: String,
    /// The key in canonical JSON.
    pub json: String,
    /// Whether it has been given away.
    pub used: bool,
}

/// What a device has left to be given away. Void if it was written before the incarnation: so are the keys.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Supply {
    /// One-time keys by algorithm.
    pub one_time_keys: BTreeMap<String, u32>,
    /// Algorithms whose fallback key has not been given away.
    pub unused_fallback: Vec<String>,
}

/// A user's cross-signing keys, in canonical JSON.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CrossSigning {
    /// The master key.
    pub master: Option<String>,
    /// The self-signing key.
    pub self_signing: Option<String>,
    /// The user-signing key.
    pub user_signing: Option<String>,
}

/// A signature.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signature {
    /// Whose key is signed.
    pub target: String,
    /// Which: a device's id, or the public half of a master key.
    pub key: String,
    /// The id of the key that signed.
    pub by: String,
    /// The signature.
    pub signature: String,
}

/// Where a user's device list stands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct List {
    /// The stream id of its latest change, of a user of ours.
    pub id: u64,
    /// The one that comes before it.
    pub prev: u64,
    /// The device that it was about.
    pub device: String,
    /// Where its entry in the order of changes stands, if not at this row's own position.
    pub shown_at: Option<Pos>,
}

/// Who learns of a change.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangedFor {
    /// This user alone, who signed a key of the other; `None`: whoever shares a room with the user.
    pub only: Option<String>,
}

/// What we hold of the list of a user of another server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemoteList {
    /// The stream id up to which it is complete, if it came with one.
    pub stream_id: Option<u64>,
    /// Whether nothing is known to be missing from it.
    pub fresh: bool,
    /// How far our lanes had come before it was asked for.
    pub asked_at: Vec<Pos>,
}

postcard_value!(
    Device,
    OneTimeKey,
    Fallback,
    Supply,
    CrossSigning,
    Signature,
    List,
    ChangedFor,
    RemoteList
);

tables! {
    /// `user, device` → [`Device`].
    Devices: "device keys", b"Kd", Hot, DeviceKey => Device;
    /// `user, device, algorithm, position, index` → [`OneTimeKey`].
    OneTimeKeys: "one-time key", b"Ko", Queue, OneTimeKeyKey => OneTimeKey;
    /// `user, device, position, key` → (): given away lately.
    GivenKeys: "one-time key given", b"Kg", Queue, GivenKey => ();
    /// `user, device, algorithm` → [`Fallback`].
    Fallbacks: "fallback key", b"Kf", Hot, FallbackKey => Fallback;
    /// `user, device` → [`Supply`].
    Supplies: "keys left", b"Kc", Hot, DeviceKey => Supply;
    /// `user` → [`CrossSigning`].
    CrossSigningKeys: "cross-signing keys", b"Kx", Hot, UserKey => CrossSigning;
    /// `signer, target, key, by` → [`Signature`].
    Signatures: "key signature", b"Ks", Hot, SignatureKey => Signature;
    /// `user` → [`List`].
    Lists: "device list", b"Kv", Hot, UserKey => List;
    /// `slot, position, user` → [`ChangedFor`]: of each list the latest change.
    Changes: "device list change", b"Kp", Index, ChangeKey => ChangedFor;
    /// `user` → [`RemoteList`].
    RemoteLists: "remote device list", b"Kr", Hot, UserKey => RemoteList;
}
