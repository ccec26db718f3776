//! `/keys/signatures/upload`: what a user signs, of their own keys and of others'.
//!
//! Each object must be the key as it is there, with signatures by keys of the user's that may sign it: their self-signing key a
//! device, a device their master key, their user-signing key another user's master key. What isn't so is told for that object.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3keyssignaturesupload>

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use comity_protocol::{
    id::{OwnedUserId, UserId},
    sign::unsigned_part,
};
use comity_storage::{Attempts, Expect, Home};
use serde_json::value::RawValue;

use crate::{
    Found, Keys, KeysError,
    lists::{self, News},
    object::{CrossSigningKey, DeviceKeys, Signed, Usage, is_signed},
    query::signed,
    tables::{CrossSigning, Device, NameHash, Signature, SignatureKey, Signatures, UserKey},
};

/// Objects taken of one request.
const MAX_OBJECTS: usize = 1_000;

/// User → device or public half of a master key → signed object.
pub type SignedObjects = BTreeMap<OwnedUserId, BTreeMap<String, Box<RawValue>>>;
/// User → device or public half of a master key → why it was not taken.
pub type Refusals = BTreeMap<String, BTreeMap<String, KeysError>>;

const INVALID: KeysError = KeysError::InvalidSignature("Invalid signature");
const UNKNOWN: KeysError = KeysError::NotFound("There is no such key");
const ANOTHER: KeysError = KeysError::Invalid("This is not the key as it is there");

/// What the signer has to sign with, and what of theirs can be signed.
struct Signer<'a> {
    user: &'a str,
    keys: CrossSigning,
    devices: &'a [Device],
}

impl Keys {
    /// Takes signatures by `user`; what isn't taken, with the reason. Other servers have that time to tell their users' master keys.
    ///
    /// # Errors
    /// [`KeysError::TooLarge`]; the store's: then nothing is taken.
    pub async fn sign(
        &self,
        user: &UserId,
        objects: &SignedObjects,
        time: Duration,
    ) -> Result<Refusals, KeysError> {
        if objects.values().map(BTreeMap::len).sum::<usize>() > MAX_OBJECTS {
            return Err(KeysError::TooLarge("There are too many signed keys"));
        }
        let others = objects.keys().filter(|other| **other != *user);
        // No device has an empty id: of others only the master keys are wanted.
        let others = others.map(|other| (other.clone(), vec![String::new()]));
        let (others, _) = self.query_all(&others.collect(), user, time).await?;
        let user = user.as_str();
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
            let signer = Signer {
                user,
                keys: row.map(|row| row.value).unwrap_or_default(),
                devices: &devices,
            };
            let (signatures, refusals) = signer.check_all(objects, &others);
            let keys: Vec<SignatureKey> = signatures.iter().map(|of| of.row(user)).collect();
            let rows = reader.get_many::<Signatures>(&keys).await?;
            let mut batch = lane.batch();
            batch.expect::<crate::tables::CrossSigningKeys>(&UserKey(user.to_owned()), was);
            let (mut changes, mut cross_signing) = (false, false);
            let mut own_devices = BTreeSet::new();
            let mut others_signed = BTreeSet::new();
            for ((key, row), signature) in keys.iter().zip(rows).zip(&signatures) {
                if row.as_ref().is_some_and(|row| row.value == *signature) {
                    continue;
                }
                changes = true;
                batch.put::<Signatures>(key, signature);
                if signature.target != user {
                    others_signed.insert(signature.target.as_str());
                } else if devices.iter().any(|of| of.device_id == signature.key) {
                    own_devices.insert(signature.key.clone());
                } else {
                    cross_signing = true;
                }
            }
            if !changes {
                drop(turn);
                self.0.tenant.settled(Home::User(user), newest).await;
                return Ok(refusals);
            }
            let own_devices: Vec<String> = own_devices.into_iter().collect();
            if cross_signing || !own_devices.is_empty() {
                let news = News {
                    devices: &own_devices,
                    cross_signing,
                    shown: true,
                };
                lists::note(&self.0.tenant, &reader, user, news, &mut batch).await?;
            }
            let before = others_signed.iter().map(|target| signed(user, target));
            let before = reader.scan_many::<Signatures>(before.collect()).await?;
            for (target, before) in others_signed.into_iter().zip(before) {
                let before = before.into_iter().map(|(_, row)| row.pos);
                lists::note_signed(user, target, before, &mut batch);
            }
            if let Some(appended) = attempts.append(lane, batch).await? {
                drop(turn);
                appended.durable().await?;
                return Ok(refusals);
            }
        }
    }
}

impl Signature {
    fn row(&self, signer: &str) -> SignatureKey {
        SignatureKey {
            signer: signer.to_owned(),
            target: NameHash::of(&[&self.target]),
            key: NameHash::of(&[&self.key]),
            by: NameHash::of(&[&self.by]),
        }
    }
}

impl Signer<'_> {
    fn check_all(&self, objects: &SignedObjects, others: &Found) -> (Vec<Signature>, Refusals) {
        let mut good = Vec::new();
        let mut refusals = Refusals::new();
        for (target, of_target) in objects {
            for (key, raw) in of_target {
                match self.check(target.as_str(), key, raw, others) {
                    Ok(signatures) => good.extend(signatures),
                    Err(refusal) => {
                        let of_target = refusals.entry(target.to_string()).or_default();
                        of_target.insert(key.clone(), refusal);
                    }
                }
            }
        }
        (good, refusals)
    }

    /// The signatures of one object, all of them right.
    fn check(
        &self,
        target: &str,
        key: &str,
        raw: &RawValue,
        others: &Found,
    ) -> Result<Vec<Signature>, KeysError> {
        let object = Signed::read(raw)?;
        let device = self.devices.iter().find(|device| device.device_id == key);
        let (stored, is_device) = if target != self.user {
            let master = others.master_keys.get(target).map(|master| master.get());
            (master.filter(|json| is_of(json, target, key)), false)
        } else if let Some(device) = device {
            (device.keys.as_deref(), true)
        } else {
            let master = self.keys.master.as_deref();
            (master.filter(|json| is_of(json, target, key)), false)
        };
        let stored = stored.ok_or(UNKNOWN)?;
        if unsigned_part(stored) != unsigned_part(&object.json) {
            return Err(ANOTHER);
        }
        let there = Signed::read(&raw_of(stored)?)?.signatures;
        let there = there.get(self.user);
        let mut good = Vec::new();
        for (by, signature) in object.signatures.get(self.user).into_iter().flatten() {
            // A key comes with what it was uploaded with.
            if there.and_then(|there| there.get(by)) == Some(signature) {
                continue;
            }
            let by_key = self.key(by, target, is_device).ok_or(INVALID)?;
            if !is_signed(&object.json, &by_key, signature) {
                return Err(INVALID);
            }
            good.push(Signature {
                target: target.to_owned(),
                key: key.to_owned(),
                by: by.clone(),
                signature: signature.clone(),
            });
        }
        let says_nothing = object
            .signatures
            .get(self.user)
            .is_none_or(BTreeMap::is_empty);
        if says_nothing {
            return Err(INVALID);
        }
        Ok(good)
    }

    /// The key of the signer's of this id, if it may sign that.
    fn key(&self, by: &str, target: &str, is_device: bool) -> Option<String> {
        let (stored, usage) = if is_device {
            (&self.keys.self_signing, Usage::SelfSigning)
        } else if target != self.user {
            (&self.keys.user_signing, Usage::UserSigning)
        } else {
            let id = by.strip_prefix("ed25519:")?;
            let device = self.devices.iter().find(|device| device.device_id == id)?;
            return DeviceKeys::signing_key(device.keys.as_deref()?, id);
        };
        let key = CrossSigningKey::stored(stored.as_deref()?, self.user, usage)?;
        (key.id() == by).then_some(key.public)
    }
}

/// Whether a master key has this public half.
fn is_of(json: &str, user: &str, public: &str) -> bool {
    let key = CrossSigningKey::stored(json, user, Usage::Master);
    key.is_some_and(|key| key.public == public)
}

fn raw_of(json: &str) -> Result<Box<RawValue>, KeysError> {
    RawValue::from_string(json.to_owned()).map_err(|_| UNKNOWN)
}
