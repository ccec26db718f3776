//! `/keys/device_signing/upload`: the keys by which a user signs their devices and other users.
//!
//! The first ones are free, so are those that are there already; any other needs proof that it is the user who asks.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3keysdevice_signingupload>

use comity_storage::{Attempts, Batch, Expect, Home, Range, Reader, Row};
use serde_json::value::RawValue;

use crate::{
    Keys, KeysError,
    lists::{self, News},
    object::{CrossSigningKey, DeviceKeys, Usage, is_signed},
    tables::{CrossSigning, CrossSigningKeys, Device, Devices, Signatures, UserKey},
};

/// What a user uploads.
#[derive(Debug, Default)]
pub struct CrossSigningUpload {
    /// The master key.
    pub master_key: Option<Box<RawValue>>,
    /// The self-signing key.
    pub self_signing_key: Option<Box<RawValue>>,
    /// The user-signing key.
    pub user_signing_key: Option<Box<RawValue>>,
}

/// What an upload asks of its user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Nothing: it says what is so already.
    Nothing,
    /// Nothing, as long as there is no master key.
    FirstUpload,
    /// Proof that it is the user who asks.
    Proof,
}

/// The keys of an upload that are others than those there.
#[derive(Default)]
struct New {
    master: Option<CrossSigningKey>,
    self_signing: Option<CrossSigningKey>,
    user_signing: Option<CrossSigningKey>,
}

impl New {
    fn is_empty(&self) -> bool {
        self.master.is_none() && self.self_signing.is_none() && self.user_signing.is_none()
    }
}

impl Keys {
    /// Whether a user has to prove who they are before these keys are taken.
    ///
    /// # Errors
    /// Keys that can't be, as [`Keys::upload_cross_signing`].
    pub async fn need_of(
        &self,
        user: &str,
        upload: &CrossSigningUpload,
    ) -> Result<Need, KeysError> {
        let reader = self.lane(user).reader();
        let (row, devices) = self.own(&reader, user).await?;
        let has_master = row.as_ref().is_some_and(|row| row.value.master.is_some());
        let new = check(user, upload, row.map(|row| row.value), &devices)?;
        Ok(if new.is_empty() {
            Need::Nothing
        } else if has_master {
            Need::Proof
        } else {
            Need::FirstUpload
        })
    }

    /// Takes a user's cross-signing keys, in place of those before. Whatever a key that is replaced has signed is forgotten, and a
    /// new master key's predecessors' subkeys with it. `proved`: that it is the user who asks.
    ///
    /// # Errors
    /// [`KeysError::BadJson`], [`KeysError::Invalid`], [`KeysError::InvalidSignature`] for keys that can't be;
    /// [`KeysError::Missing`] without a master key; [`KeysError::Forbidden`] for a key named as a device is, or without proof where it
    /// is needed.
    pub async fn upload_cross_signing(
        &self,
        user: &str,
        upload: &CrossSigningUpload,
        proved: bool,
    ) -> Result<(), KeysError> {
        let lane = self.lane(user);
        let turn = self.0.turns.of(user).await;
        let mut attempts = Attempts::default();
        loop {
            let reader = lane.reader();
            let (row, devices) = self.own(&reader, user).await?;
            let was = row
                .as_ref()
                .map_or(Expect::Absent, |row| Expect::At(row.pos));
            let newest = row.as_ref().map_or(0, |row| row.pos);
            let before = row.map(|row| row.value).unwrap_or_default();
            let new = check(user, upload, Some(before.clone()), &devices)?;
            if new.is_empty() {
                drop(turn);
                self.0.tenant.settled(Home::User(user), newest).await;
                return Ok(());
            }
            if before.master.is_some() && !proved {
                // Somebody else was first.
                return Err(KeysError::Forbidden("There are cross-signing keys already"));
            }
            let mut batch = lane.batch();
            let key = UserKey(user.to_owned());
            batch.expect::<CrossSigningKeys>(&key, was);
            let after = after(&before, &new);
            forget_signatures(&reader, user, (&before, &after), &mut batch).await?;
            let news = News {
                devices: &[],
                cross_signing: before.master != after.master
                    || before.self_signing != after.self_signing,
                shown: true,
            };
            batch.put::<CrossSigningKeys>(&key, &after);
            lists::note(&self.0.tenant, &reader, user, news, &mut batch).await?;
            if let Some(appended) = attempts.append(lane, batch).await? {
                drop(turn);
                appended.durable().await?;
                return Ok(());
            }
        }
    }

    /// A user's cross-signing keys and devices.
    pub(crate) async fn own(
        &self,
        reader: &Reader,
        user: &str,
    ) -> Result<(Option<Row<CrossSigning>>, Vec<Device>), KeysError> {
        let key = UserKey(user.to_owned());
        let devices = Range::of(Home::User(user), |key| {
            key.str(user);
        });
        let (row, devices) = futures_util::try_join!(
            reader.get::<CrossSigningKeys>(&key),
            reader.scan::<Devices>(devices),
        )?;
        let devices = devices.into_iter().map(|(_, row)| row.value);
        Ok((row, devices.collect()))
    }
}

/// Checks what is uploaded; the keys of it that are new.
fn check(
    user: &str,
    upload: &CrossSigningUpload,
    before: Option<CrossSigning>,
    devices: &[Device],
) -> Result<New, KeysError> {
    let mut before = before.unwrap_or_default();
    let read = |raw: &Option<Box<RawValue>>, usage, stored: Option<&String>| {
        let key = raw
            .as_deref()
            .map(|raw| CrossSigningKey::read(raw, user, usage));
        let key = key.transpose()?;
        let is_new = |key: &CrossSigningKey| stored.is_none_or(|stored| !is_same(key, stored));
        Ok::<_, KeysError>(key.filter(is_new))
    };
    let master = read(&upload.master_key, Usage::Master, before.master.as_ref())?;
    if master.is_some() {
        // What another master key has signed is no key of this one's, even if it comes again.
        before.self_signing = None;
        before.user_signing = None;
    }
    let new = New {
        self_signing: read(
            &upload.self_signing_key,
            Usage::SelfSigning,
            before.self_signing.as_ref(),
        )?,
        user_signing: read(
            &upload.user_signing_key,
            Usage::UserSigning,
            before.user_signing.as_ref(),
        )?,
        master,
    };
    let stored = before.master.as_deref();
    let stored = stored.and_then(|json| CrossSigningKey::stored(json, user, Usage::Master));
    let master = new.master.clone().or(stored);
    let Some(master) = master else {
        return Err(KeysError::Missing("There is no master key"));
    };
    for key in [&new.master, &new.self_signing, &new.user_signing]
        .into_iter()
        .flatten()
    {
        if devices.iter().any(|device| device.device_id == key.public) {
            return Err(KeysError::Forbidden("Key ID in use"));
        }
    }
    for subkey in [&new.self_signing, &new.user_signing].into_iter().flatten() {
        if !subkey.is_signed_by(user, &master) {
            return Err(KeysError::InvalidSignature(
                "A key is not signed by the master key",
            ));
        }
    }
    if let Some(master) = &new.master {
        check_devices_signatures(user, master, devices)?;
    }
    Ok(new)
}

/// A master key may come signed by devices; what they signed must be that.
fn check_devices_signatures(
    user: &str,
    master: &CrossSigningKey,
    devices: &[Device],
) -> Result<(), KeysError> {
    for (by, signature) in master.signatures.get(user).into_iter().flatten() {
        let device = by.strip_prefix("ed25519:").and_then(|id| {
            let device = devices.iter().find(|device| device.device_id == id)?;
            DeviceKeys::signing_key(device.keys.as_deref()?, id)
        });
        if device.is_some_and(|key| !is_signed(&master.json, &key, signature)) {
            return Err(KeysError::InvalidSignature(
                "The master key is not signed by the device that it names",
            ));
        }
    }
    Ok(())
}

/// Whether a key is one that is there: the same public half and, as others may have signed it since, nothing else that counts.
fn is_same(key: &CrossSigningKey, stored: &str) -> bool {
    comity_protocol::sign::unsigned_part(&key.json) == comity_protocol::sign::unsigned_part(stored)
}

fn after(before: &CrossSigning, new: &New) -> CrossSigning {
    let json = |key: &Option<CrossSigningKey>| key.as_ref().map(|key| key.json.clone());
    // What another master key has signed is no key of this one's.
    let kept = |key: &Option<String>| key.clone().filter(|_| new.master.is_none());
    CrossSigning {
        master: json(&new.master).or_else(|| before.master.clone()),
        self_signing: json(&new.self_signing).or_else(|| kept(&before.self_signing)),
        user_signing: json(&new.user_signing).or_else(|| kept(&before.user_signing)),
    }
}

/// Forgets what keys signed that are no more, and what was signed of a master key that is no more.
async fn forget_signatures(
    reader: &Reader,
    user: &str,
    (before, after): (&CrossSigning, &CrossSigning),
    batch: &mut Batch,
) -> Result<(), KeysError> {
    let public = |json: &Option<String>, usage| {
        let key = CrossSigningKey::stored(json.as_deref()?, user, usage)?;
        Some(key.public)
    };
    let usages = [
        (&before.master, &after.master, Usage::Master),
        (
            &before.self_signing,
            &after.self_signing,
            Usage::SelfSigning,
        ),
        (
            &before.user_signing,
            &after.user_signing,
            Usage::UserSigning,
        ),
    ];
    let gone = usages.into_iter().filter_map(|(before, after, usage)| {
        let was = public(before, usage)?;
        (public(after, usage).as_ref() != Some(&was)).then_some(was)
    });
    let gone: Vec<String> = gone.collect();
    if gone.is_empty() {
        return Ok(());
    }
    let signed = Range::of(Home::User(user), |key| {
        key.str(user);
    });
    for (key, row) in reader.scan::<Signatures>(signed).await? {
        let by = row.value.by.strip_prefix("ed25519:").unwrap_or_default();
        if gone.iter().any(|gone| *gone == row.value.key || gone == by) {
            batch.delete::<Signatures>(&key);
            if row.value.target != user {
                lists::forget_signed(user, &row.value.target, row.pos, batch);
            }
        }
    }
    Ok(())
}
