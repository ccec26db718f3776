//! A user's dehydrated device: nobody signs in by it. It is sent messages like any other, and waits, its secrets sealed, until a
//! client of its user takes out what it was sent (MSC3814, a draft).
//!
//! It is a device to everybody else, so that it comes and goes with what others keep of devices; it is in no list of where a user is
//! signed in.
//!
//! <https://github.com/matrix-org/matrix-spec-proposals/pull/3814>

use std::sync::Arc;

use comity_storage::{Attempts, Batch, Expect, Home};

use crate::{
    AccountError, Accounts, Change, DeviceChange, PublicKeys,
    login::{NewDevice, check_device},
    tables::{Dehydrated, DehydratedDevice, Device, Devices, UserKey, UserPart, Users},
};

/// The largest sealed secrets, in bytes: those of a hundred keys have some ten thousand.
const MAX_DATA_BYTES: usize = 128 << 10;

/// What a client makes of a device that it dehydrates.
#[derive(Clone, Debug)]
pub struct Dehydration {
    /// The device's id; nobody's so far.
    pub device_id: String,
    /// Its name.
    pub display_name: Option<String>,
    /// What its secrets are sealed in, as JSON.
    pub data: String,
    /// Its public keys.
    pub keys: Arc<PublicKeys>,
}

impl Accounts {
    /// Puts a dehydrated device there with its keys, in place of the one that was: one commit.
    ///
    /// # Errors
    /// [`AccountError::InvalidParam`], if the id is that of a device which isn't dehydrated too; [`AccountError::TooLarge`],
    /// [`AccountError::NotFound`], [`AccountError::Deactivated`]; the store's.
    pub async fn dehydrate(&self, user_id: &str, device: &Dehydration) -> Result<(), AccountError> {
        if device.device_id.is_empty() {
            return Err(AccountError::InvalidParam("A device's id is not empty."));
        }
        check_device(&NewDevice {
            device_id: Some(device.device_id.clone()),
            display_name: device.display_name.clone(),
            ..NewDevice::default()
        })?;
        if device.data.len() > MAX_DATA_BYTES {
            return Err(AccountError::TooLarge("The device's data is too large."));
        }
        let lane = self.0.tenant.lane(Home::User(user_id));
        let user_key = UserKey(user_id.to_owned());
        let key = UserPart::new(user_id, &device.device_id);
        let mut attempts = Attempts::default();
        loop {
            let reader = lane.reader();
            let (user, was, same) = futures_util::try_join!(
                self.existing(&reader, user_id),
                async { Ok(reader.get::<Dehydrated>(&user_key).await?) },
                async { Ok(reader.get::<Devices>(&key).await?) },
            )?;
            let old = was.as_ref().map(|row| row.value.device_id.as_str());
            if same.is_some() && old != Some(device.device_id.as_str()) {
                return Err(AccountError::InvalidParam(
                    "There is a device of this id already.",
                ));
            }
            if same.is_none() && self.is_taken(&reader, user_id, &device.device_id).await? {
                return Err(AccountError::InvalidParam("The device's id is in use."));
            }
            let mut batch = lane.batch();
            batch.expect::<Users>(&user_key, Expect::At(user.pos));
            batch.expect::<Dehydrated>(&user_key, expected(was.as_ref().map(|row| row.pos)));
            batch.expect::<Devices>(&key, expected(same.map(|row| row.pos)));
            let mut changes = Vec::with_capacity(2);
            if let Some(old) = old {
                let old_key = UserPart::new(user_id, old);
                // Whoever removes it meanwhile changes the row above.
                batch.delete::<Devices>(&old_key);
                tell(user_id, old, &mut batch);
                let device = old.to_owned();
                changes.push(DeviceChange::Removed { device });
            }
            let row = Device {
                display_name: device.display_name.clone(),
                created_ts: self.now_ms(),
            };
            batch.put::<Devices>(&key, &row);
            // As at a login.
            batch.put::<Users>(&user_key, &user.value);
            let row = DehydratedDevice {
                device_id: device.device_id.clone(),
                data: device.data.clone(),
            };
            batch.put::<Dehydrated>(&user_key, &row);
            tell(user_id, &device.device_id, &mut batch);
            changes.push(DeviceChange::Dehydrated {
                device: device.device_id.clone(),
                name: device.display_name.clone(),
                keys: Arc::clone(&device.keys),
            });
            self.add_belongings(&reader, user_id, &changes, &mut batch)
                .await?;
            if attempts.commit(lane, batch).await?.is_some() {
                return Ok(());
            }
        }
    }

    /// A user's dehydrated device: its id, and its data as JSON.
    ///
    /// # Errors
    /// [`AccountError::NotFound`]; the store's.
    pub async fn dehydrated(&self, user_id: &str) -> Result<DehydratedDevice, AccountError> {
        let row = self
            .get::<Dehydrated>(&UserKey(user_id.to_owned()))
            .await?
            .ok_or(AccountError::NotFound("Dehydrated device"))?;
        Ok(row.value)
    }

    /// Removes a user's dehydrated device; which one it was.
    ///
    /// # Errors
    /// [`AccountError::NotFound`]; the store's.
    pub async fn delete_dehydrated(&self, user_id: &str) -> Result<String, AccountError> {
        let device = self.dehydrated(user_id).await?.device_id;
        self.delete_devices(user_id, std::slice::from_ref(&device))
            .await?;
        Ok(device)
    }
}

fn expected(pos: Option<u64>) -> Expect {
    pos.map_or(Expect::Absent, Expect::At)
}

fn tell(user_id: &str, device: &str, batch: &mut Batch) {
    let device = device.to_owned();
    batch.log(Change::Device { device }.record(user_id));
}
