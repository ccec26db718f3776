//! `/keys/query`: identity keys as they were uploaded, with what was signed of them since.
//!
//! Who asks sees the signatures that a user made of their own keys, and those that they made themselves; a user-signing key is its
//! owner's alone.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3keysquery>

use std::collections::{BTreeMap, BTreeSet};

use comity_storage::{Home, Pos, Range};
use serde::Serialize;
use serde_json::value::RawValue;

use crate::{
    Keys, KeysError,
    object::{CrossSigningKey, Usage, shown},
    tables::{
        CrossSigning, CrossSigningKeys, Device, Devices, List, Lists, NameHash, Signature,
        Signatures, UserKey,
    },
};

/// Users whose rows are read in one go.
const CHUNK: usize = 128;

/// User → devices, all of them if none is named.
pub type Asked = BTreeMap<String, Vec<String>>;

/// Keys by user.
#[derive(Debug, Default, Serialize)]
pub struct Found {
    /// User → device → identity keys.
    pub device_keys: BTreeMap<String, BTreeMap<String, Box<RawValue>>>,
    /// Master keys.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub master_keys: BTreeMap<String, Box<RawValue>>,
    /// Self-signing keys.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub self_signing_keys: BTreeMap<String, Box<RawValue>>,
    /// The user-signing key of who asks.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub user_signing_keys: BTreeMap<String, Box<RawValue>>,
}

/// A user's list, as another server is told.
#[derive(Debug, Default)]
pub struct UserDevices {
    /// The stream id of its latest change.
    pub stream_id: u64,
    /// Devices with keys: id, keys, name.
    pub devices: Vec<(String, Box<RawValue>, Option<String>)>,
    /// The master key.
    pub master_key: Option<Box<RawValue>>,
    /// The self-signing key.
    pub self_signing_key: Option<Box<RawValue>>,
}

impl UserDevices {
    /// Whether there is nothing by which somebody could encrypt for the user.
    pub fn is_empty(&self) -> bool {
        self.devices.is_empty() && self.master_key.is_none()
    }
}

/// What is known of a user.
pub(crate) struct Rows {
    pub devices: Vec<Device>,
    pub cross_signing: Option<CrossSigning>,
    /// Signatures by the user themselves, then by who asks: signer, what.
    pub signatures: Vec<(String, Signature)>,
}

impl Keys {
    /// The keys that are here of these users, as `viewer` sees them; another server sees what its users could. Users of ours who
    /// aren't there are left out.
    ///
    /// # Errors
    /// The store's.
    pub async fn query(&self, asked: &Asked, viewer: Option<&str>) -> Result<Found, KeysError> {
        let mut found = Found::default();
        let users: Vec<&String> = asked.keys().collect();
        for chunk in users.chunks(CHUNK) {
            let rows = self.rows(chunk, viewer).await?;
            for (user, rows) in chunk.iter().zip(rows) {
                let wanted = asked.get(*user).map_or(&[][..], Vec::as_slice);
                // Whoever has a device is there; who has none may be.
                let has_any = !rows.devices.is_empty() || rows.cross_signing.is_some();
                if has_any || self.is_there(user).await? {
                    found.add(user, wanted, &rows, viewer);
                }
            }
        }
        Ok(found)
    }

    async fn is_there(&self, user: &str) -> Result<bool, KeysError> {
        let account = self.0.accounts.user(user).await?;
        Ok(account.is_some_and(|account| !account.deactivated))
    }

    /// The list of a user of ours; `None` if there is no such user.
    ///
    /// <https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1userdevicesuserid>
    ///
    /// # Errors
    /// The store's.
    pub async fn devices(&self, user: &str) -> Result<Option<UserDevices>, KeysError> {
        let list = self.list(user).await?;
        let owner = user.to_owned();
        let Some(rows) = self.rows(&[&owner], None).await?.pop() else {
            return Ok(None);
        };
        if rows.devices.is_empty() && !self.is_there(user).await? {
            return Ok(None);
        }
        let devices = rows.devices.iter().filter_map(|device| {
            // The name stands beside the keys here.
            let unnamed = Device {
                name: None,
                ..device.clone()
            };
            let keys = rows.device(user, &unnamed)?;
            Some((device.device_id.clone(), keys, device.name.clone()))
        });
        Ok(Some(UserDevices {
            // Read before the rest: what has changed since is told again by its own update.
            stream_id: list.id,
            devices: devices.collect(),
            master_key: rows.master(user),
            self_signing_key: rows.self_signing(),
        }))
    }

    /// Where a user's list stands.
    pub(crate) async fn list(&self, user: &str) -> Result<List, KeysError> {
        let reader = self.0.tenant.reader();
        let row = reader.get::<Lists>(&UserKey(user.to_owned())).await?;
        if let Some(row) = &row {
            self.0.tenant.settled(Home::User(user), row.pos).await;
        }
        Ok(row.map(|row| row.value).unwrap_or_default())
    }

    /// The rows of these users, once they are durable.
    async fn rows(&self, users: &[&String], viewer: Option<&str>) -> Result<Vec<Rows>, KeysError> {
        let reader = self.0.tenant.reader();
        let of_user = |user: &str| {
            Range::of(Home::User(user), |key| {
                key.str(user);
            })
        };
        let devices = users.iter().map(|user| of_user(user)).collect();
        let keys: Vec<UserKey> = users.iter().map(|user| UserKey((*user).clone())).collect();
        let own = users.iter().map(|user| signed(user, user)).collect();
        let of_viewer: Vec<Range> = match viewer {
            Some(viewer) => users.iter().map(|user| signed(viewer, user)).collect(),
            None => Vec::new(),
        };
        let (devices, cross_signing, own, of_viewer) = futures_util::try_join!(
            reader.scan_many::<Devices>(devices),
            reader.get_many::<CrossSigningKeys>(&keys),
            reader.scan_many::<Signatures>(own),
            reader.scan_many::<Signatures>(of_viewer),
        )?;
        let mut of_viewer = of_viewer.into_iter();
        let mut all = Vec::with_capacity(users.len());
        for (((user, devices), cross_signing), own) in
            users.iter().zip(devices).zip(cross_signing).zip(own)
        {
            let of_viewer = of_viewer.next().unwrap_or_default();
            let newest: BTreeSet<Pos> = devices
                .iter()
                .map(|(_, row)| row.pos)
                .chain(cross_signing.iter().map(|row| row.pos))
                .chain(own.iter().map(|(_, row)| row.pos))
                .collect();
            let home = Home::User(user);
            self.0
                .tenant
                .settled(home, newest.last().copied().unwrap_or(0))
                .await;
            let signatures = own.into_iter().chain(of_viewer);
            all.push(Rows {
                devices: devices.into_iter().map(|(_, row)| row.value).collect(),
                cross_signing: cross_signing.map(|row| row.value),
                signatures: signatures
                    .map(|(key, row)| (key.signer, row.value))
                    .collect(),
            });
        }
        Ok(all)
    }
}

impl Found {
    /// Adds what a user has, of these devices, all of them if none is named.
    pub(crate) fn add(&mut self, user: &str, wanted: &[String], rows: &Rows, viewer: Option<&str>) {
        let devices = rows
            .devices
            .iter()
            .filter(|device| wanted.is_empty() || wanted.contains(&device.device_id))
            .filter_map(|device| Some((device.device_id.clone(), rows.device(user, device)?)));
        self.device_keys.insert(user.to_owned(), devices.collect());
        if let Some(master) = rows.master(user) {
            self.master_keys.insert(user.to_owned(), master);
        }
        if let Some(key) = rows.self_signing() {
            self.self_signing_keys.insert(user.to_owned(), key);
        }
        if viewer == Some(user)
            && let Some(key) = rows.user_signing()
        {
            self.user_signing_keys.insert(user.to_owned(), key);
        }
    }
}

/// What `signer` has signed of `target`'s keys.
pub(crate) fn signed(signer: &str, target: &str) -> Range {
    Range::of(Home::User(signer), |key| {
        key.str(signer).fixed(&NameHash::of(&[target]).0);
    })
}

impl Rows {
    fn device(&self, user: &str, device: &Device) -> Option<Box<RawValue>> {
        let json = device.keys.as_deref()?;
        let by_owner = self
            .on(&device.device_id)
            .filter(|(signer, ..)| *signer == user);
        shown(json, by_owner, device.name.as_deref())
    }

    fn master(&self, user: &str) -> Option<Box<RawValue>> {
        let json = self.cross_signing.as_ref()?.master.as_deref()?;
        let master = CrossSigningKey::stored(json, user, Usage::Master)?;
        shown(json, self.on(&master.public), None)
    }

    fn self_signing(&self) -> Option<Box<RawValue>> {
        shown(
            self.cross_signing.as_ref()?.self_signing.as_deref()?,
            [],
            None,
        )
    }

    fn user_signing(&self) -> Option<Box<RawValue>> {
        shown(
            self.cross_signing.as_ref()?.user_signing.as_deref()?,
            [],
            None,
        )
    }

    /// Signatures on a key: who, by which key, what.
    fn on(&self, key: &str) -> impl Iterator<Item = (&str, &str, &str)> {
        let on = self.signatures.iter().filter(move |(_, of)| of.key == key);
        on.map(|(signer, of)| (signer.as_str(), of.by.as_str(), of.signature.as_str()))
    }
}
