//! The keys of a dehydrated device: checked before there is a device, kept with it or not at all.
//!
//! <https://github.com/matrix-org/matrix-spec-proposals/pull/3814>

use std::collections::{BTreeMap, BTreeSet};

use comity_accounts::{PublicKey, PublicKeys};
use comity_storage::{At, Batch};
use serde_json::value::RawValue;

use crate::{
    Keys, KeysError, Upload,
    object::{DeviceKeys, PreKey},
    tables::{
        DeviceKey, Fallback, FallbackKey, Fallbacks, OneTimeKey, OneTimeKeyKey, OneTimeKeys,
        Supplies, Supply,
    },
    upload::{MAX_ALGORITHMS, MAX_ONE_TIME_KEYS},
};

impl Keys {
    /// The keys of a device that is to be dehydrated, if they are its own.
    ///
    /// # Errors
    /// [`KeysError::Missing`] without identity keys; else as [`Keys::upload`].
    pub fn of_dehydrated(
        user: &str,
        device: &str,
        upload: &Upload,
    ) -> Result<PublicKeys, KeysError> {
        let identity = upload.device_keys.as_deref();
        let identity = identity.ok_or(KeysError::Missing("device_keys are missing"))?;
        let identity = DeviceKeys::read(identity, user, device)?;
        if upload.one_time_keys.len() > MAX_ONE_TIME_KEYS {
            return Err(KeysError::TooLarge("There are too many one-time keys"));
        }
        let read = |keys: &BTreeMap<String, Box<RawValue>>| -> Result<Vec<PublicKey>, KeysError> {
            let keys = keys.iter().map(|(key_id, raw)| {
                PreKey::read(key_id, raw, user, device, Some(&identity.ed25519)).map(public)
            });
            keys.collect()
        };
        let one_time = read(&upload.one_time_keys)?;
        let fallback = read(&upload.fallback_keys)?;
        let algorithms = |keys: &[PublicKey]| -> usize {
            let algorithms = keys.iter().map(|key| key.algorithm.as_str());
            algorithms.collect::<BTreeSet<_>>().len()
        };
        if algorithms(&fallback) < fallback.len() {
            return Err(KeysError::Invalid(
                "There is more than one fallback key of an algorithm",
            ));
        }
        if algorithms(&one_time).max(fallback.len()) > MAX_ALGORITHMS {
            return Err(KeysError::TooLarge("There are too many algorithms"));
        }
        Ok(PublicKeys {
            identity: identity.json,
            one_time,
            fallback,
        })
    }
}

fn public(key: PreKey) -> PublicKey {
    PublicKey {
        algorithm: key.algorithm,
        key_id: key.key_id,
        json: key.json,
    }
}

/// Adds the keys that a device comes with, to be given away, to the batch that brings it.
pub(crate) fn put(device: &DeviceKey, keys: &PublicKeys, batch: &mut Batch) {
    let mut supply = Supply::default();
    for (index, key) in (0_u32..).zip(&keys.one_time) {
        let to = OneTimeKeyKey {
            device: device.clone(),
            algorithm: key.algorithm.clone(),
            pos: At::Commit,
            index,
        };
        let (key_id, json) = (key.key_id.clone(), key.json.clone());
        batch.put::<OneTimeKeys>(&to, &OneTimeKey { key_id, json });
        let count = supply.one_time_keys.entry(key.algorithm.clone());
        *count.or_default() += 1;
    }
    for key in &keys.fallback {
        let to = FallbackKey {
            device: device.clone(),
            algorithm: key.algorithm.clone(),
        };
        let (key_id, json, used) = (key.key_id.clone(), key.json.clone(), false);
        batch.put::<Fallbacks>(&to, &Fallback { key_id, json, used });
        supply.unused_fallback.push(key.algorithm.clone());
    }
    batch.put::<Supplies>(device, &supply);
}
