//! What is kept of a device comes, changes its name and goes with it.

use async_trait::async_trait;
use comity_accounts::{Belongings, DeviceChange};
use comity_storage::{Batch, CommitError, Expect, Home, KeyWriter, Range, Reader, Tenant};

use crate::{
    dehydrated,
    lists::{self, News},
    object::{CrossSigningKey, Usage},
    tables::{
        CrossSigningKeys, Device, DeviceKey, Devices, Fallbacks, GivenKeys, NameHash, OneTimeKeys,
        SignatureKey, Signatures, Supplies, UserKey,
    },
};

/// See the module.
pub(crate) struct OfDevices {
    pub tenant: Tenant,
}

#[async_trait]
impl Belongings for OfDevices {
    async fn follow(
        &self,
        reader: &Reader,
        user: &str,
        changes: &[DeviceChange],
        batch: &mut Batch,
    ) -> Result<(), CommitError> {
        let mut devices = Vec::new();
        let mut cross_signing = false;
        let mut shown = false;
        for change in changes {
            match change {
                DeviceChange::Named { device, name } => {
                    let key = DeviceKey::new(user, device);
                    let row = reader.get::<Devices>(&key).await?;
                    let was = row
                        .as_ref()
                        .map_or(Expect::Absent, |row| Expect::At(row.pos));
                    batch.expect::<Devices>(&key, was);
                    let keys = row.and_then(|row| row.value.keys);
                    shown |= keys.is_some();
                    let device_id = device.clone();
                    let name = name.clone();
                    batch.put::<Devices>(
                        &key,
                        &Device {
                            device_id,
                            name,
                            keys,
                        },
                    );
                    devices.push(device.clone());
                }
                DeviceChange::Dehydrated { device, name, keys } => {
                    let key = DeviceKey::new(user, device);
                    let row = reader.get::<Devices>(&key).await?;
                    let was = row.map_or(Expect::Absent, |row| Expect::At(row.pos));
                    batch.expect::<Devices>(&key, was);
                    let row = Device {
                        device_id: device.clone(),
                        name: name.clone(),
                        keys: Some(keys.identity.clone()),
                    };
                    batch.put::<Devices>(&key, &row);
                    dehydrated::put(&key, keys, batch);
                    shown = true;
                    // In place of itself it is one device that changes.
                    devices.retain(|of| of != device);
                    devices.push(device.clone());
                }
                DeviceChange::Removed { device } => {
                    let key = DeviceKey::new(user, device);
                    let Some(row) = reader.get::<Devices>(&key).await? else {
                        continue;
                    };
                    batch.expect::<Devices>(&key, Expect::At(row.pos));
                    batch.delete::<Devices>(&key).delete::<Supplies>(&key);
                    forget_keys(batch, &key);
                    forget_signatures_on(batch, user, device);
                    if let Some(master) = master(reader, user).await? {
                        let by = format!("ed25519:{device}");
                        batch.delete::<Signatures>(&SignatureKey {
                            signer: user.to_owned(),
                            target: NameHash::of(&[user]),
                            key: NameHash::of(&[&master.public]),
                            by: NameHash::of(&[&by]),
                        });
                    }
                    shown |= row.value.keys.is_some();
                    devices.push(device.clone());
                }
                DeviceChange::AccountEnded => {
                    cross_signing = master(reader, user).await?.is_some();
                    shown |= cross_signing;
                    batch.delete::<CrossSigningKeys>(&UserKey(user.to_owned()));
                    let signed = Range::of(Home::User(user), |key| {
                        key.str(user);
                    });
                    for (key, row) in reader.scan::<Signatures>(signed).await? {
                        batch.delete::<Signatures>(&key);
                        if row.value.target != user {
                            lists::forget_signed(user, &row.value.target, row.pos, batch);
                        }
                    }
                }
            }
        }
        if !devices.is_empty() || cross_signing {
            let news = News {
                devices: &devices,
                cross_signing,
                shown,
            };
            lists::note(&self.tenant, reader, user, news, batch).await?;
        }
        Ok(())
    }

    /// Signatures name devices and cross-signing keys alike.
    ///
    /// <https://spec.matrix.org/v1.19/client-server-api/#cross-signing>
    async fn has_id(&self, reader: &Reader, user: &str, id: &str) -> Result<bool, CommitError> {
        let key = UserKey(user.to_owned());
        let Some(row) = reader.get::<CrossSigningKeys>(&key).await? else {
            return Ok(false);
        };
        let keys = [
            (row.value.master, Usage::Master),
            (row.value.self_signing, Usage::SelfSigning),
            (row.value.user_signing, Usage::UserSigning),
        ];
        Ok(keys.into_iter().any(|(json, usage)| {
            let key = json.and_then(|json| CrossSigningKey::stored(&json, user, usage));
            key.is_some_and(|key| key.public == id)
        }))
    }
}

/// Removes all keys that a device could give away.
pub(crate) fn forget_keys(batch: &mut Batch, device: &DeviceKey) {
    let home = Home::User(&device.user);
    let of_device = |key: &mut KeyWriter| {
        key.str(&device.user).fixed(&device.device.0);
    };
    batch
        .delete_all::<OneTimeKeys>(home, of_device)
        .delete_all::<GivenKeys>(home, of_device)
        .delete_all::<Fallbacks>(home, of_device);
}

/// Removes what a user signed of a device of theirs.
pub(crate) fn forget_signatures_on(batch: &mut Batch, user: &str, device: &str) {
    batch.delete_all::<Signatures>(Home::User(user), |key| {
        key.str(user)
            .fixed(&NameHash::of(&[user]).0)
            .fixed(&NameHash::of(&[device]).0);
    });
}

async fn master(reader: &Reader, user: &str) -> Result<Option<CrossSigningKey>, CommitError> {
    let row = reader
        .get::<CrossSigningKeys>(&UserKey(user.to_owned()))
        .await?;
    let master = row.and_then(|row| row.value.master);
    Ok(master.and_then(|json| CrossSigningKey::stored(&json, user, Usage::Master)))
}
