//! Whether the rows of keys agree with one another: what `comity check` asks of them once each row by itself is as its table writes it
//! ([`comity_storage::check`]).
//!
//! Each device of ours has its row here, and each row here of a user of ours its device; keys to be given away are of devices, and
//! counted; cross-signing keys are of users who are there; and of each list the latest change stands in the order of changes, at
//! the place that the list names. Signatures are not verified anew. Nothing is written, and a page of rows is held at a time.

use std::collections::BTreeMap;

use comity_accounts::tables as accounts;
use comity_protocol::id::ServerName;
use comity_storage::{
    At, Home, Lane, Lanes, Pages, Pos, Range, ReadError, Reader, Row, Table, broken,
    check::{Contradiction, Listener},
    system::{Birth, Births, LaneKey},
};

use crate::{
    object::{CrossSigningKey, Usage},
    supply::of_incarnation,
    tables::{
        ChangeKey, Changes, CrossSigning, CrossSigningKeys, DeviceKey, Devices, Fallback,
        FallbackKey, Fallbacks, GivenKeys, Lists, NameHash, OneTimeKey, OneTimeKeyKey, OneTimeKeys,
        Supplies, Supply, UserKey,
    },
};

/// Devices whose keys are counted in one go.
const COUNTED: usize = 50;

/// Something that rows of keys say differently.
pub type Finding = Contradiction<Broken>;

broken! {
    NoUser: "the user isn't there",
    NoDevice: "the device isn't there",
    NotKept: "a device has none",
    OtherName: "it names another device than its key",
    Count: "other keys are left than it says",
    CrossSigning: "a key can't be read, is another user's or has no master key",
    NotListed: "its latest change isn't in the order of changes",
    NotLatest: "it isn't the list's latest",
}

/// Walks all keys of a tenant, whose users are those of `server`.
///
/// On a store that is being written meanwhile, what is found need not be so.
///
/// # Errors
/// The store can't be read.
pub async fn tenant(
    reader: &Reader,
    server: &ServerName,
    to: &mut dyn Listener<Finding>,
) -> Result<(), ReadError> {
    let birth = reader.get::<Births>(&LaneKey(Lane(0))).await?;
    let Some(birth) = birth.map(|row| row.value) else {
        // Which is found where lanes are looked at.
        return Ok(());
    };
    let mut walk = Walk {
        reader,
        server,
        birth,
        to,
    };
    walk.accounts().await?;
    walk.devices().await?;
    walk.of_devices::<OneTimeKeys>(|key| &key.device).await?;
    walk.of_devices::<GivenKeys>(|key| &key.device).await?;
    walk.of_devices::<Fallbacks>(|key| &key.device).await?;
    walk.of_devices::<Supplies>(|key| key).await?;
    walk.cross_signing().await?;
    walk.lists().await?;
    walk.changes().await
}

struct Walk<'a> {
    reader: &'a Reader,
    server: &'a ServerName,
    birth: Birth,
    to: &'a mut dyn Listener<Finding>,
}

impl Walk<'_> {
    fn is_local(&self, user: &str) -> bool {
        user.split_once(':')
            .is_some_and(|(_, server)| server == self.server.as_str())
    }

    /// Where a user's lane stood when the incarnation began.
    fn began_at(&self, user: &str) -> Pos {
        let lanes = Lanes::new(self.birth.lanes).unwrap_or(Lanes::ONE);
        self.birth.base(lanes.of(Home::User(user).slot()))
    }

    /// Each device of an account has its row.
    async fn accounts(&mut self) -> Result<(), ReadError> {
        let mut pages = Pages::<accounts::Devices>::all();
        while let Some(rows) = self.to.page(self.reader, &mut pages).await? {
            let keys = rows
                .iter()
                .map(|(key, _)| DeviceKey::new(&key.user, &key.part));
            let keys: Vec<DeviceKey> = keys.collect();
            let kept = self.reader.get_many::<Devices>(&keys).await?;
            for (key, _) in keys.iter().zip(kept).filter(|(_, row)| row.is_none()) {
                self.to.say::<Devices>(&key.user, Broken::NotKept);
            }
        }
        Ok(())
    }

    /// Each row is of the device that it names, which an account has if it is one of ours; and has the keys that it counts.
    async fn devices(&mut self) -> Result<(), ReadError> {
        let mut pages = Pages::<Devices>::all();
        while let Some(mut rows) = self.to.page(self.reader, &mut pages).await? {
            for (key, row) in &rows {
                if key.device != NameHash::of(&[&row.value.device_id]) {
                    self.to.say::<Devices>(&key.user, Broken::OtherName);
                }
            }
            rows.retain(|(key, _)| self.is_local(&key.user));
            let names = rows.iter().map(|(key, row)| accounts::UserPart {
                user: key.user.clone(),
                part: row.value.device_id.clone(),
            });
            let names: Vec<accounts::UserPart> = names.collect();
            let there = self.reader.get_many::<accounts::Devices>(&names).await?;
            for (key, _) in names.iter().zip(there).filter(|(_, row)| row.is_none()) {
                self.to.say::<Devices>(&key.user, Broken::NoDevice);
            }
            let keys: Vec<DeviceKey> = rows.into_iter().map(|(key, _)| key).collect();
            for keys in keys.chunks(COUNTED) {
                self.counts(keys).await?;
            }
        }
        Ok(())
    }

    /// What is left of each device's keys is what its row says.
    async fn counts(&mut self, devices: &[DeviceKey]) -> Result<(), ReadError> {
        let ranges = devices.iter().map(|key| {
            Range::of(Home::User(&key.user), |to| {
                to.str(&key.user).fixed(&key.device.0);
            })
        });
        let ranges: Vec<Range> = ranges.collect();
        let said = self.reader.get_many::<Supplies>(devices).await?;
        let one_time = self.reader.scan_many::<OneTimeKeys>(ranges.clone());
        let one_time = one_time.await?;
        let fallbacks = self.reader.scan_many::<Fallbacks>(ranges).await?;
        let rows = said.into_iter().zip(one_time.iter().zip(&fallbacks));
        for (key, (said, (one_time, fallbacks))) in devices.iter().zip(rows) {
            let began_at = self.began_at(&key.user);
            let mut said = of_incarnation(said, began_at);
            said.unused_fallback.sort_unstable();
            if said != left(one_time, fallbacks, began_at) {
                self.to.say::<Supplies>(&key.user, Broken::Count);
            }
        }
        Ok(())
    }

    /// The devices of these rows are there.
    async fn of_devices<T: Table>(
        &mut self,
        device: impl Fn(&T::Key) -> &DeviceKey,
    ) -> Result<(), ReadError> {
        let mut pages = Pages::<T>::all();
        while let Some(rows) = self.to.page(self.reader, &mut pages).await? {
            let keys = rows.iter().map(|(key, _)| device(key).clone());
            let mut keys: Vec<DeviceKey> = keys.collect();
            keys.dedup();
            let devices = self.reader.get_many::<Devices>(&keys).await?;
            for (key, _) in keys.iter().zip(devices).filter(|(_, row)| row.is_none()) {
                self.to.say::<T>(&key.user, Broken::NoDevice);
            }
        }
        Ok(())
    }

    async fn cross_signing(&mut self) -> Result<(), ReadError> {
        let mut pages = Pages::<CrossSigningKeys>::all();
        while let Some(mut rows) = self.to.page(self.reader, &mut pages).await? {
            // What other servers have is theirs to keep in order.
            rows.retain(|(UserKey(user), _)| self.is_local(user));
            let users = rows
                .iter()
                .map(|(UserKey(user), _)| accounts::UserKey(user.clone()));
            let users: Vec<accounts::UserKey> = users.collect();
            let there = self.reader.get_many::<accounts::Users>(&users).await?;
            for ((UserKey(user), row), there) in rows.iter().zip(there) {
                if there.is_none() {
                    self.to.say::<CrossSigningKeys>(user, Broken::NoUser);
                }
                if !is_whole(user, &row.value) {
                    self.to.say::<CrossSigningKeys>(user, Broken::CrossSigning);
                }
            }
        }
        Ok(())
    }

    /// Of each list that was ever shown the latest change stands where the list says.
    async fn lists(&mut self) -> Result<(), ReadError> {
        let mut pages = Pages::<Lists>::all();
        while let Some(rows) = self.to.page(self.reader, &mut pages).await? {
            let shown = rows.iter().filter_map(|(UserKey(user), row)| {
                let pos = row.value.shown_at.unwrap_or(row.pos);
                (pos > 0).then(|| change(user, pos))
            });
            let shown: Vec<ChangeKey> = shown.collect();
            let changes = self.reader.get_many::<Changes>(&shown).await?;
            for (key, row) in shown.iter().zip(changes) {
                if row.is_none_or(|row| row.value.only.is_some()) {
                    self.to.say::<Lists>(&key.user, Broken::NotListed);
                }
            }
        }
        Ok(())
    }

    /// A change that isn't for one user alone is its list's latest.
    async fn changes(&mut self) -> Result<(), ReadError> {
        let mut pages = Pages::<Changes>::all();
        while let Some(mut rows) = self.to.page(self.reader, &mut pages).await? {
            rows.retain(|(_, row)| row.value.only.is_none());
            let users = rows.iter().map(|(key, _)| UserKey(key.user.clone()));
            let users: Vec<UserKey> = users.collect();
            let lists = self.reader.get_many::<Lists>(&users).await?;
            for ((key, _), list) in rows.iter().zip(lists) {
                let latest = list.map(|row| {
                    let pos = row.value.shown_at.unwrap_or(row.pos);
                    change(&key.user, pos)
                });
                if latest.as_ref() != Some(key) {
                    self.to.say::<Changes>(&key.user, Broken::NotLatest);
                }
            }
        }
        Ok(())
    }
}

/// What these rows leave to be given away, as an upload would count them.
fn left(
    one_time: &[(OneTimeKeyKey, Row<OneTimeKey>)],
    fallbacks: &[(FallbackKey, Row<Fallback>)],
    began_at: Pos,
) -> Supply {
    let mut counts: BTreeMap<String, u32> = BTreeMap::new();
    for (key, _) in one_time.iter().filter(|(_, row)| row.pos > began_at) {
        *counts.entry(key.algorithm.clone()).or_default() += 1;
    }
    let unused = fallbacks
        .iter()
        .filter(|(_, row)| row.pos > began_at && !row.value.used)
        .map(|(key, _)| key.algorithm.clone());
    Supply {
        one_time_keys: counts,
        // They stand in the order of their algorithms.
        unused_fallback: unused.collect(),
    }
}

/// All keys are the user's, and there is a master key where there is another.
fn is_whole(user: &str, keys: &CrossSigning) -> bool {
    let usages = [
        (&keys.master, Usage::Master),
        (&keys.self_signing, Usage::SelfSigning),
        (&keys.user_signing, Usage::UserSigning),
    ];
    let mut stored = usages
        .into_iter()
        .filter_map(|(json, usage)| Some((json.as_deref()?, usage)));
    keys.master.is_some()
        && stored.all(|(json, usage)| CrossSigningKey::stored(json, user, usage).is_some())
}

/// The place of a list's change in the order of changes.
fn change(user: &str, pos: Pos) -> ChangeKey {
    ChangeKey {
        slot: Home::User(user).slot().number(),
        pos: At::Is(pos),
        user: user.to_owned(),
    }
}
