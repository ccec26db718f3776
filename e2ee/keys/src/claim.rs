//! `/keys/claim`: one-time keys are given away, each once, in the order in which they came; then fallback keys.
//!
//! A key is gone with the batch that says so, and whoever asked has it only once that batch is durable: whatever fails, or is
//! undone, a key may be lost but not given twice.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3keysclaim>

use std::collections::BTreeMap;

use comity_storage::{At, Attempts, Expect, Home, Range, Reader, Row};
use futures_util::future::try_join_all;
use serde_json::value::RawValue;

use crate::{
    Keys, KeysError, change,
    supply::of_incarnation,
    tables::{
        DeviceKey, Fallback, FallbackKey, Fallbacks, GivenKey, GivenKeys, OneTimeKey,
        OneTimeKeyKey, OneTimeKeys, Supplies, Supply,
    },
    upload::name_of,
};

/// Users whose keys are taken side by side.
const SIDE_BY_SIDE: usize = 32;

/// User → device → algorithm.
pub type Wanted = BTreeMap<String, BTreeMap<String, String>>;
/// User → device → `algorithm:name` → key.
pub type Claimed = BTreeMap<String, BTreeMap<String, BTreeMap<String, Box<RawValue>>>>;

/// What a device could give.
struct Offer {
    supply: Option<Row<Supply>>,
    one_time: Option<(OneTimeKeyKey, Row<OneTimeKey>)>,
    fallback: Option<Row<Fallback>>,
}

impl Keys {
    /// Takes keys of our users' devices; whoever has none is left out.
    ///
    /// # Errors
    /// The store's. Keys that were taken until then are lost.
    pub async fn claim(&self, wanted: &Wanted) -> Result<Claimed, KeysError> {
        let users: Vec<&String> = wanted.keys().collect();
        let mut claimed = Claimed::new();
        for chunk in users.chunks(SIDE_BY_SIDE) {
            let mut claims = Vec::with_capacity(chunk.len());
            for user in chunk {
                claims.extend(
                    wanted
                        .get(*user)
                        .map(|devices| self.claim_of(user, devices)),
                );
            }
            for (user, devices) in chunk.iter().zip(try_join_all(claims).await?) {
                if !devices.is_empty() {
                    claimed.insert((*user).clone(), devices);
                }
            }
        }
        Ok(claimed)
    }

    async fn claim_of(
        &self,
        user: &str,
        wanted: &BTreeMap<String, String>,
    ) -> Result<BTreeMap<String, BTreeMap<String, Box<RawValue>>>, KeysError> {
        let lane = self.lane(user);
        let turn = self.0.turns.of(user).await;
        let mut attempts = Attempts::default();
        loop {
            let offers = self.offers(&lane.reader(), user, wanted).await?;
            let mut batch = lane.batch();
            let mut claimed = BTreeMap::new();
            let (mut changes, mut newest) = (false, 0);
            for ((device, algorithm), offer) in wanted.iter().zip(offers) {
                let at = DeviceKey::new(user, device);
                let was = offer.supply.as_ref();
                let was = was.map_or(Expect::Absent, |row| Expect::At(row.pos));
                let mut supply = of_incarnation(offer.supply, self.began_at(user));
                let (key_id, json) = if let Some((key, row)) = offer.one_time {
                    let given = GivenKey {
                        device: at.clone(),
                        pos: At::Commit,
                        key: name_of(&row.value.key_id, &row.value.json),
                    };
                    batch.expect::<OneTimeKeys>(&key, Expect::At(row.pos));
                    batch.delete::<OneTimeKeys>(&key);
                    batch.put::<GivenKeys>(&given, &());
                    if let Some(left) = supply.one_time_keys.get_mut(algorithm) {
                        *left = left.saturating_sub(1);
                    }
                    supply.one_time_keys.retain(|_, left| *left > 0);
                    (row.value.key_id, row.value.json)
                } else if let Some(row) = offer.fallback {
                    let (key_id, json) = (row.value.key_id.clone(), row.value.json.clone());
                    if row.value.used {
                        newest = newest.max(row.pos);
                        put(&mut claimed, device, key_id, json);
                        continue;
                    }
                    let key = FallbackKey {
                        device: at.clone(),
                        algorithm: algorithm.clone(),
                    };
                    batch.expect::<Fallbacks>(&key, Expect::At(row.pos));
                    let used = true;
                    batch.put::<Fallbacks>(&key, &Fallback { used, ..row.value });
                    supply.unused_fallback.retain(|unused| unused != algorithm);
                    (key_id, json)
                } else {
                    continue;
                };
                batch.expect::<Supplies>(&at, was);
                batch.put::<Supplies>(&at, &supply);
                changes = true;
                put(&mut claimed, device, key_id, json);
            }
            if !changes {
                drop(turn);
                self.0.tenant.settled(Home::User(user), newest).await;
                return Ok(claimed);
            }
            batch.log(change::supply(user));
            if let Some(appended) = attempts.append(lane, batch).await? {
                drop(turn);
                appended.durable().await?;
                return Ok(claimed);
            }
        }
    }

    /// What these devices could give, in the order of their ids.
    async fn offers(
        &self,
        reader: &Reader,
        user: &str,
        wanted: &BTreeMap<String, String>,
    ) -> Result<Vec<Offer>, KeysError> {
        let began_at = self.began_at(user);
        let of = |device: &str| DeviceKey::new(user, device);
        let devices: Vec<DeviceKey> = wanted.keys().map(|device| of(device)).collect();
        let fallbacks = wanted.iter().map(|(device, algorithm)| FallbackKey {
            device: of(device),
            algorithm: algorithm.clone(),
        });
        let fallbacks: Vec<FallbackKey> = fallbacks.collect();
        let first = fallbacks.iter().map(|key| {
            Range::of(Home::User(user), |to| {
                to.str(user).fixed(&key.device.device.0).str(&key.algorithm);
            })
            .from(|to| {
                to.u64(began_at + 1);
            })
            .limit(1)
        });
        let first: Vec<Range> = first.collect();
        let (supplies, fallbacks, first) = futures_util::try_join!(
            reader.get_many::<Supplies>(&devices),
            reader.get_many::<Fallbacks>(&fallbacks),
            reader.scan_many::<OneTimeKeys>(first),
        )?;
        let offers = supplies.into_iter().zip(fallbacks).zip(first);
        Ok(offers
            .map(|((supply, fallback), mut first)| Offer {
                supply,
                one_time: first.pop(),
                fallback,
            })
            .collect())
    }
}

/// Adds a key to what was claimed. What is stored can be read.
fn put(
    claimed: &mut BTreeMap<String, BTreeMap<String, Box<RawValue>>>,
    device: &str,
    key_id: String,
    json: String,
) {
    if let Ok(json) = RawValue::from_string(json) {
        claimed.insert(device.to_owned(), BTreeMap::from([(key_id, json)]));
    }
}
