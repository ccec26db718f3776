//! `/keys/upload`: a device's keys, checked and kept.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3keysupload>

use std::collections::{BTreeMap, BTreeSet};

use comity_storage::{At, Attempts, Batch, Expect, Home, Pos, Range, Reader, Row};
use serde_json::value::RawValue;

use crate::{
    Keys, KeysError, change,
    devices::{forget_keys, forget_signatures_on},
    lists::{self, News},
    object::{DeviceKeys, PreKey},
    supply::{counts, of_incarnation},
    tables::{
        Device, DeviceKey, Devices, Fallback, FallbackKey, Fallbacks, GivenKey, GivenKeys,
        NameHash, OneTimeKey, OneTimeKeyKey, OneTimeKeys, Supplies, Supply,
    },
};

/// One-time keys of a device at the most; clients keep fifty to a hundred.
pub(crate) const MAX_ONE_TIME_KEYS: usize = 500;
/// Algorithms of a device's keys at the most.
pub(crate) const MAX_ALGORITHMS: usize = 16;
/// Keys given away that are remembered, so that none is taken in again by an upload that is repeated.
const REMEMBERED: usize = 1_000;

/// What a device uploads.
#[derive(Debug, Default)]
pub struct Upload {
    /// Its identity keys.
    pub device_keys: Option<Box<RawValue>>,
    /// Keys to be given away once each, by `algorithm:name`.
    pub one_time_keys: BTreeMap<String, Box<RawValue>>,
    /// Keys to be given away when there are no others, one an algorithm.
    pub fallback_keys: BTreeMap<String, Box<RawValue>>,
}

/// What is kept of a device.
struct Kept {
    device: Row<Device>,
    supply: Option<Row<Supply>>,
    one_time: Vec<(OneTimeKeyKey, Row<OneTimeKey>)>,
    fallback: Vec<(FallbackKey, Row<Fallback>)>,
    given: Vec<GivenKey>,
}

/// What an upload comes to.
enum Plan {
    Nothing(Supply),
    Change(Batch, Supply),
}

impl Keys {
    /// Takes a device's keys; how many one-time keys it has then, by algorithm.
    ///
    /// # Errors
    /// [`KeysError::BadJson`], [`KeysError::Invalid`] (wrong signatures are that here) and [`KeysError::TooLarge`] for keys that can't
    /// be, [`KeysError::NotFound`] if the device is gone; then nothing is kept.
    pub async fn upload(
        &self,
        user: &str,
        device: &str,
        upload: &Upload,
    ) -> Result<BTreeMap<String, u32>, KeysError> {
        let at = DeviceKey::new(user, device);
        let lane = self.lane(user);
        let turn = self.0.turns.of(user).await;
        let mut attempts = Attempts::default();
        loop {
            let reader = lane.reader();
            let kept = self.kept(&reader, &at).await?;
            let newest = kept.newest();
            match self.plan(&reader, &at, device, upload, kept).await? {
                Plan::Nothing(supply) => {
                    drop(turn);
                    // Said twice: what the first said has to last before the second is answered.
                    self.0.tenant.settled(Home::User(user), newest).await;
                    return Ok(counts(&supply));
                }
                Plan::Change(batch, supply) => {
                    if let Some(appended) = attempts.append(lane, batch).await? {
                        drop(turn);
                        appended.durable().await?;
                        return Ok(counts(&supply));
                    }
                }
            }
        }
    }

    async fn kept(&self, reader: &Reader, at: &DeviceKey) -> Result<Kept, KeysError> {
        let rows = || {
            Range::of(Home::User(&at.user), |key| {
                key.str(&at.user).fixed(&at.device.0);
            })
        };
        let (device, supply, one_time, fallback, given) = futures_util::try_join!(
            reader.get::<Devices>(at),
            reader.get::<Supplies>(at),
            reader.scan::<OneTimeKeys>(rows()),
            reader.scan::<Fallbacks>(rows()),
            reader.scan::<GivenKeys>(rows()),
        )?;
        Ok(Kept {
            device: device.ok_or(KeysError::NotFound("There is no such device"))?,
            supply,
            one_time,
            fallback,
            given: given.into_iter().map(|(key, _)| key).collect(),
        })
    }

    async fn plan(
        &self,
        reader: &Reader,
        at: &DeviceKey,
        device: &str,
        upload: &Upload,
        kept: Kept,
    ) -> Result<Plan, KeysError> {
        let user = at.user.as_str();
        let began_at = self.began_at(user);
        let was = kept.device.value.keys.as_deref();
        let new = upload.device_keys.as_deref();
        let new = new.map(|raw| DeviceKeys::read(raw, user, device));
        let new = new
            .transpose()?
            .filter(|new| Some(new.json.as_str()) != was);
        let known = was.and_then(|json| DeviceKeys::signing_key(json, device));
        // Keys of an identity that is no more are of no use to anybody.
        let is_another = new
            .as_ref()
            .is_some_and(|new| known.as_ref().is_some_and(|known| *known != new.ed25519));
        let signing_key = new
            .as_ref()
            .map(|new| new.ed25519.as_str())
            .or(known.as_deref());
        let counts_still = |pos: Pos| pos > began_at && !is_another;

        let mut supply = Supply::default();
        let mut count = |algorithm: &str| {
            *supply
                .one_time_keys
                .entry(algorithm.to_owned())
                .or_default() += 1;
        };
        let mut there: BTreeMap<&str, &str> = BTreeMap::new();
        let mut void = Vec::new();
        for (key, row) in &kept.one_time {
            if counts_still(row.pos) {
                there.insert(&row.value.key_id, &row.value.json);
                count(&key.algorithm);
            } else {
                void.push(key);
            }
        }
        let given: BTreeSet<NameHash> = kept.given.iter().map(|given| given.key).collect();
        let mut one_time = Vec::new();
        for (key_id, raw) in &upload.one_time_keys {
            let key = PreKey::read(key_id, raw, user, device, signing_key)?;
            match there.get(key_id.as_str()) {
                Some(json) if **json == key.json => continue,
                Some(_) => {
                    return Err(KeysError::Invalid(
                        "There is another one-time key of this id already",
                    ));
                }
                None if given.contains(&name_of(&key.key_id, &key.json)) => continue,
                None => {
                    count(&key.algorithm);
                    one_time.push(key);
                }
            }
        }
        if there.len() + one_time.len() > MAX_ONE_TIME_KEYS {
            return Err(KeysError::TooLarge("There are too many one-time keys"));
        }
        let of = (user, device, signing_key);
        let (fallback, unused) = fallbacks(&kept, upload, of, counts_still)?;
        supply.unused_fallback = unused;
        if supply.one_time_keys.len() > MAX_ALGORITHMS
            || kept.fallback.len() + fallback.len() > 2 * MAX_ALGORITHMS
        {
            return Err(KeysError::TooLarge("There are too many algorithms"));
        }

        let supply_was = of_incarnation(kept.supply.clone(), began_at);
        if new.is_none() && one_time.is_empty() && fallback.is_empty() && supply_was == supply {
            return Ok(Plan::Nothing(supply));
        }
        let mut batch = self.lane(user).batch();
        batch.expect::<Devices>(at, Expect::At(kept.device.pos));
        let expected = kept.supply.as_ref();
        let expected = expected.map_or(Expect::Absent, |row| Expect::At(row.pos));
        batch.expect::<Supplies>(at, expected);
        if is_another {
            forget_keys(&mut batch, at);
        } else {
            for key in void {
                batch.delete::<OneTimeKeys>(key);
            }
            for old in kept.given.iter().rev().skip(REMEMBERED) {
                batch.delete::<GivenKeys>(old);
            }
        }
        for (index, key) in (0_u32..).zip(one_time) {
            let to = OneTimeKeyKey {
                device: at.clone(),
                algorithm: key.algorithm,
                pos: At::Commit,
                index,
            };
            let (key_id, json) = (key.key_id, key.json);
            batch.put::<OneTimeKeys>(&to, &OneTimeKey { key_id, json });
        }
        for key in fallback {
            let to = FallbackKey {
                device: at.clone(),
                algorithm: key.algorithm,
            };
            let (key_id, json, used) = (key.key_id, key.json, false);
            batch.put::<Fallbacks>(&to, &Fallback { key_id, json, used });
        }
        if supply_was != supply {
            batch.put::<Supplies>(at, &supply).log(change::supply(user));
        }
        if let Some(new) = new {
            forget_signatures_on(&mut batch, user, device);
            let row = Device {
                keys: Some(new.json),
                ..kept.device.value
            };
            batch.put::<Devices>(at, &row);
            let news = News {
                devices: &[device.to_owned()],
                cross_signing: false,
                shown: true,
            };
            lists::note(&self.0.tenant, reader, user, news, &mut batch).await?;
        }
        Ok(Plan::Change(batch, supply))
    }
}

impl Kept {
    /// The latest position of what was read.
    fn newest(&self) -> Pos {
        let supply = self.supply.as_ref().map_or(0, |row| row.pos);
        let one_time = self.one_time.iter().map(|(_, row)| row.pos);
        let fallback = self.fallback.iter().map(|(_, row)| row.pos);
        let newest = one_time.chain(fallback).max().unwrap_or(0);
        newest.max(supply).max(self.device.pos)
    }
}

/// The fallback keys that are new, and the algorithms that have an unused one then.
fn fallbacks(
    kept: &Kept,
    upload: &Upload,
    (user, device, signing_key): (&str, &str, Option<&str>),
    counts_still: impl Fn(Pos) -> bool,
) -> Result<(Vec<PreKey>, Vec<String>), KeysError> {
    let mut new: BTreeMap<String, PreKey> = BTreeMap::new();
    for (key_id, raw) in &upload.fallback_keys {
        let key = PreKey::read(key_id, raw, user, device, signing_key)?;
        if new.insert(key.algorithm.clone(), key).is_some() {
            return Err(KeysError::Invalid(
                "There is more than one fallback key of an algorithm",
            ));
        }
    }
    let mut unused = BTreeSet::new();
    for (key, row) in &kept.fallback {
        let stays = counts_still(row.pos);
        let same = new
            .get(&key.algorithm)
            .is_some_and(|new| new.key_id == row.value.key_id && new.json == row.value.json);
        if same && stays {
            new.remove(&key.algorithm);
        }
        if stays && !row.value.used {
            unused.insert(key.algorithm.clone());
        }
    }
    unused.extend(new.keys().cloned());
    Ok((new.into_values().collect(), unused.into_iter().collect()))
}

/// A key with its id, as it is remembered once it was given away.
pub(crate) fn name_of(key_id: &str, json: &str) -> NameHash {
    NameHash::of(&[key_id, json])
}
