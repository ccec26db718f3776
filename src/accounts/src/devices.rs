//! Devices: the list, their names, signing out, when they were last seen; and what is left to do for a deactivated account.

use std::{collections::BTreeMap, sync::Weak, time::Duration};

use async_trait::async_trait;
use comity_storage::{Attempts, Expect, Home, Lane, Range};
use parking_lot::Mutex;

use crate::{
    AccountError, Accounts, Authenticated, Change, DeviceChange, Inner,
    login::{NewDevice, check_device},
    tables::{
        Deactivations, Dehydrated, Device, Devices, LastSeen, Seen, Sessions, UserKey, UserPart,
        of_user,
    },
};

/// How often what was seen is written.
const WRITE_SEEN: Duration = Duration::from_secs(60);
/// Devices noted between two writes; more are noted the next time.
const MOST_SEEN: usize = 100_000;

/// A device with when and where it was last seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceInfo {
    /// Its id.
    pub device_id: String,
    /// Its name.
    pub display_name: Option<String>,
    /// When and where it was last seen.
    pub seen: Option<Seen>,
}

/// Leaves rooms on behalf of a deactivated account; the room engine's side of the job.
#[async_trait]
pub trait LeaveRooms: Send + Sync {
    /// Leaves all rooms of the user, rejects their invites, and if `erase` says so hides what they wrote and removes their files. May be asked again after
    /// a failure or a crash: leaving what is left already is fine.
    async fn leave_all(&self, user_id: &str, erase: bool) -> Result<(), AccountError>;
}

/// What was seen since it was last written.
#[derive(Debug, Default)]
pub(crate) struct SeenLately(Mutex<BTreeMap<(String, String), Seen>>);

impl Accounts {
    /// The devices of a user, by id, but for the dehydrated one.
    ///
    /// # Errors
    /// The store's.
    pub async fn devices(&self, user_id: &str) -> Result<Vec<DeviceInfo>, AccountError> {
        let reader = self.0.tenant.reader();
        let home = Home::User(user_id);
        let rows = || Range::of(home, of_user(user_id));
        let user = UserKey(user_id.to_owned());
        let (mut devices, seen, dehydrated) = futures_util::try_join!(
            reader.scan::<Devices>(rows()),
            reader.scan::<LastSeen>(rows()),
            reader.get::<Dehydrated>(&user)
        )?;
        let dehydrated = dehydrated.map(|row| row.value.device_id);
        devices.retain(|(key, _)| Some(&key.part) != dehydrated.as_ref());
        let newest = devices.iter().map(|(_, row)| row.pos).max().unwrap_or(0);
        self.settled(home, newest).await;
        let mut seen: BTreeMap<_, _> = seen
            .into_iter()
            .map(|(key, row)| (key.part, row.value))
            .collect();
        let lately = self.0.seen.0.lock();
        let info = |device_id: String, device: Device| DeviceInfo {
            seen: lately
                .get(&(user_id.to_owned(), device_id.clone()))
                .cloned()
                .or_else(|| seen.remove(&device_id)),
            display_name: device.display_name,
            device_id,
        };
        let mut info = info;
        Ok(devices
            .into_iter()
            .map(|(key, row)| info(key.part, row.value))
            .collect())
    }

    /// One device; the dehydrated one is none that its user is signed in on.
    ///
    /// # Errors
    /// [`AccountError::NotFound`]; the store's.
    pub async fn device(&self, user_id: &str, device_id: &str) -> Result<DeviceInfo, AccountError> {
        let key = UserPart::new(user_id, device_id);
        let user = UserKey(user_id.to_owned());
        let (device, seen, dehydrated) = futures_util::try_join!(
            self.get::<Devices>(&key),
            self.get::<LastSeen>(&key),
            self.get::<Dehydrated>(&user)
        )?;
        let is_dehydrated = dehydrated.is_some_and(|row| row.value.device_id == device_id);
        let device = device.filter(|_| !is_dehydrated);
        let device = device.ok_or(AccountError::NotFound("Device"))?.value;
        let lately = self.0.seen.0.lock().get(&(key.user, key.part)).cloned();
        Ok(DeviceInfo {
            device_id: device_id.to_owned(),
            display_name: device.display_name,
            seen: lately.or(seen.map(|row| row.value)),
        })
    }

    /// Names a device.
    ///
    /// # Errors
    /// [`AccountError::NotFound`], [`AccountError::InvalidParam`]; the store's.
    pub async fn rename_device(
        &self,
        user_id: &str,
        device_id: &str,
        name: Option<String>,
    ) -> Result<(), AccountError> {
        check_device(&NewDevice {
            display_name: name.clone(),
            ..NewDevice::default()
        })?;
        let lane = self.0.tenant.lane(Home::User(user_id));
        let key = UserPart::new(user_id, device_id);
        let mut attempts = Attempts::default();
        loop {
            let reader = lane.reader();
            let row = reader.get::<Devices>(&key).await?;
            let row = row.ok_or(AccountError::NotFound("Device"))?;
            let mut batch = lane.batch();
            batch.expect::<Devices>(&key, Expect::At(row.pos));
            batch.put::<Devices>(
                &key,
                &Device {
                    display_name: name.clone(),
                    ..row.value
                },
            );
            batch.log(
                Change::Device {
                    device: device_id.to_owned(),
                }
                .record(user_id),
            );
            let named = DeviceChange::Named {
                device: device_id.to_owned(),
                name: name.clone(),
            };
            self.add_belongings(&reader, user_id, &[named], &mut batch)
                .await?;
            if attempts.commit(lane, batch).await?.is_some() {
                return Ok(());
            }
        }
    }

    /// Removes devices and ends their sessions, all in one commit. Those that aren't there are stepped over.
    ///
    /// # Errors
    /// The store's.
    pub async fn delete_devices(
        &self,
        user_id: &str,
        device_ids: &[String],
    ) -> Result<(), AccountError> {
        let lane = self.0.tenant.lane(Home::User(user_id));
        let keys: Vec<_> = device_ids
            .iter()
            .map(|id| UserPart::new(user_id, id))
            .collect();
        let user = UserKey(user_id.to_owned());
        let mut attempts = Attempts::default();
        loop {
            let reader = lane.reader();
            let (devices, sessions, dehydrated) = futures_util::try_join!(
                reader.get_many::<Devices>(&keys),
                reader.get_many::<Sessions>(&keys),
                reader.get::<Dehydrated>(&user)
            )?;
            let mut batch = lane.batch();
            let mut changes = Vec::new();
            let mut removed = Vec::new();
            for ((key, device), session) in keys.iter().zip(devices).zip(sessions) {
                if let Some(row) = device {
                    batch.expect::<Devices>(key, Expect::At(row.pos));
                    batch.delete::<Devices>(key).delete::<LastSeen>(key);
                    if let Some(row) = &dehydrated
                        && row.value.device_id == key.part
                    {
                        batch.expect::<Dehydrated>(&user, Expect::At(row.pos));
                        batch.delete::<Dehydrated>(&user);
                    }
                    changes.push(Change::Device {
                        device: key.part.clone(),
                    });
                    removed.push(DeviceChange::Removed {
                        device: key.part.clone(),
                    });
                }
                if let Some(row) = session {
                    batch.expect::<Sessions>(key, Expect::At(row.pos));
                    batch.delete::<Sessions>(key);
                    changes.push(Change::TokensEnded {
                        session: row.value.id,
                        from_generation: None,
                    });
                }
            }
            if changes.is_empty() {
                return Ok(());
            }
            for change in &changes {
                batch.log(change.record(user_id));
            }
            if !removed.is_empty() {
                self.add_belongings(&reader, user_id, &removed, &mut batch)
                    .await?;
            }
            if attempts.commit(lane, batch).await?.is_some() {
                for change in &changes {
                    self.0.live.apply(user_id, change);
                }
                return Ok(());
            }
        }
    }

    /// Signs a device out: it goes, with its tokens.
    ///
    /// <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3logout>
    ///
    /// # Errors
    /// The store's.
    pub async fn logout(&self, who: &Authenticated) -> Result<(), AccountError> {
        let who = &who.requester;
        self.delete_devices(&who.user_id, std::slice::from_ref(&who.device_id))
            .await
    }

    /// Signs all of a user's devices out, but one if it is named.
    ///
    /// # Errors
    /// The store's.
    pub async fn logout_all(&self, user_id: &str, but: Option<&str>) -> Result<(), AccountError> {
        let range = Range::of(Home::User(user_id), of_user(user_id));
        let reader = self.0.tenant.lane(Home::User(user_id)).reader();
        let devices = reader
            .scan::<Devices>(range)
            .await?
            .into_iter()
            .map(|(key, _)| key.part);
        let devices: Vec<_> = devices.filter(|id| but != Some(id)).collect();
        self.delete_devices(user_id, &devices).await
    }

    /// Notes that a device made a request; written with others' now and then.
    pub fn saw(&self, who: &Authenticated, ip: &str, user_agent: &str) {
        let who = &who.requester;
        let mut lately = self.0.seen.0.lock();
        let device = (who.user_id.clone(), who.device_id.clone());
        if lately.len() < MOST_SEEN || lately.contains_key(&device) {
            let user_agent = user_agent.chars().take(256).collect();
            lately.insert(
                device,
                Seen {
                    ts: self.now_ms(),
                    ip: ip.to_owned(),
                    user_agent,
                },
            );
        }
    }

    /// Writes what was seen of devices that are still there; what fails is lost, and seen again.
    pub async fn write_seen(&self) -> Result<(), AccountError> {
        let lately = std::mem::take(&mut *self.0.seen.0.lock());
        let mut lanes: BTreeMap<Lane, Vec<(UserPart, Seen)>> = BTreeMap::new();
        for ((user, part), seen) in lately {
            let key = UserPart { user, part };
            let lane = self.0.tenant.lanes().of(Home::User(&key.user).slot());
            lanes.entry(lane).or_default().push((key, seen));
        }
        for rows in lanes.values() {
            for rows in rows.chunks(256) {
                self.write_seen_of(rows).await?;
            }
        }
        Ok(())
    }

    async fn write_seen_of(&self, rows: &[(UserPart, Seen)]) -> Result<(), AccountError> {
        let Some((first, _)) = rows.first() else {
            return Ok(());
        };
        let lane = self.0.tenant.lane(Home::User(&first.user));
        let keys: Vec<_> = rows.iter().map(|(key, _)| key.clone()).collect();
        let mut attempts = Attempts::default();
        loop {
            let devices = lane.reader().get_many::<Devices>(&keys).await?;
            let mut batch = lane.batch();
            for ((key, seen), device) in rows.iter().zip(devices) {
                if let Some(device) = device {
                    // A device deleted meanwhile must not leave this row behind.
                    batch.expect::<Devices>(key, Expect::At(device.pos));
                    batch.put::<LastSeen>(key, seen);
                }
            }
            if attempts.commit(lane, batch).await?.is_some() {
                return Ok(());
            }
        }
    }

    /// Does what is left to do for deactivated accounts: after each deactivation, and at start for those a crash left.
    ///
    /// # Errors
    /// The first failure; what is not done stays to be done.
    pub async fn finish_deactivations(&self, rooms: &dyn LeaveRooms) -> Result<(), AccountError> {
        let jobs = self
            .0
            .tenant
            .reader()
            .scan::<Deactivations>(Range::everywhere(|_| {}))
            .await?;
        // One account that can't leave yet must not keep the others.
        let mut first = Ok(());
        for (UserKey(user_id), row) in jobs {
            let done = self
                .finish_deactivation(&user_id, row.value.erase, rooms)
                .await;
            first = first.and(done);
        }
        first
    }

    async fn finish_deactivation(
        &self,
        user_id: &str,
        erase: bool,
        rooms: &dyn LeaveRooms,
    ) -> Result<(), AccountError> {
        rooms.leave_all(user_id, erase).await?;
        self.forget_room_account_data(user_id).await?;
        let lane = self.0.tenant.lane(Home::User(user_id));
        let mut batch = lane.batch();
        batch.delete::<Deactivations>(&UserKey(user_id.to_owned()));
        lane.commit(batch).await?;
        Ok(())
    }
}

/// Writes what was seen every [`WRITE_SEEN`], until the accounts are closed.
pub(crate) async fn write_seen(inner: Weak<Inner>) {
    loop {
        tokio::time::sleep(WRITE_SEEN).await;
        let Some(inner) = inner.upgrade() else { return };
        if let Err(error) = Accounts(inner).write_seen().await {
            tracing::warn!(%error, "when devices were last seen could not be written");
        }
    }
}
