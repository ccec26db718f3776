//! Device lists between servers: what we tell of ours, what we hear of theirs.
//!
//! Each update names the one before it. Who follows a list and misses that one asks for the list as a whole.
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#device-management>

use comity_protocol::{
    canonical::MAX_INTEGER,
    id::{OwnedUserId, ServerName},
};
use comity_storage::{Attempts, Batch, Expect, Home, Range, Reader, Row};
use serde::Deserialize;
use serde_json::{Map, Value, value::RawValue};

use crate::{
    DeviceUpdate, Keys, KeysError,
    lists::{self, News},
    object::{MAX_PEER_TEXT, device_keys_of_peer, name_of_peer},
    remote::{MAX_DEVICES, cross_signing_of_peer},
    tables::{
        CrossSigning, CrossSigningKeys, Device, DeviceKey, Devices, RemoteList, RemoteLists,
        UserKey,
    },
};

/// A device of another server's user changed.
///
/// <https://spec.matrix.org/v1.19/server-server-api/#definition-mdevice_list_update>
#[derive(Debug, Deserialize)]
pub struct PeerUpdate {
    /// Whose.
    pub user_id: OwnedUserId,
    /// Which.
    pub device_id: String,
    /// Its name.
    pub device_display_name: Option<String>,
    /// The change.
    pub stream_id: u64,
    /// Those before it.
    pub prev_id: Option<Vec<u64>>,
    /// It is gone.
    #[serde(default)]
    pub deleted: bool,
    /// Its identity keys.
    pub keys: Option<Box<RawValue>>,
}

/// The cross-signing keys of another server's user changed.
///
/// <https://spec.matrix.org/v1.19/server-server-api/#definition-msigning_key_update>
#[derive(Debug, Deserialize)]
pub struct PeerSigningUpdate {
    /// Whose.
    pub user_id: OwnedUserId,
    /// The master key.
    pub master_key: Option<Box<RawValue>>,
    /// The self-signing key.
    pub self_signing_key: Option<Box<RawValue>>,
}

/// What an update does to what is here.
enum Effect {
    /// It is here already.
    None,
    /// It follows what is here.
    Applies,
    /// Something before it is missing.
    Gap,
}

impl Keys {
    /// Takes a device's change from the server `origin`. What isn't its user's, or of nobody whom we share a room with, is ignored.
    ///
    /// # Errors
    /// The store's.
    pub async fn receive_update(
        &self,
        origin: &ServerName,
        update: PeerUpdate,
    ) -> Result<(), KeysError> {
        let in_range = |id: &u64| i64::try_from(*id).is_ok_and(|id| id <= MAX_INTEGER);
        if !in_range(&update.stream_id)
            || !update.prev_id.iter().flatten().all(in_range)
            || update.device_id.len() > MAX_PEER_TEXT
            || !self.is_heard(origin, &update.user_id).await?
        {
            return Ok(());
        }
        let user = update.user_id.as_str();
        let lane = self.lane(user);
        let turn = self.0.turns.of(user).await;
        let mut attempts = Attempts::default();
        loop {
            let reader = lane.reader();
            let key = UserKey(user.to_owned());
            let remote = reader.get::<RemoteLists>(&key).await?;
            let effect = effect(remote.as_ref(), &update, self.began_at(user));
            let mut batch = lane.batch();
            let mut gap = false;
            match (effect, &remote) {
                (Effect::None, _) => return Ok(()),
                (_, None) => {}
                (Effect::Applies, Some(row)) if apply(&reader, &update, &mut batch).await? => {
                    let stream_id = Some(update.stream_id);
                    batch.expect::<RemoteLists>(&key, Expect::At(row.pos));
                    let list = RemoteList {
                        stream_id,
                        ..row.value.clone()
                    };
                    batch.put::<RemoteLists>(&key, &list);
                }
                (_, Some(row)) => {
                    gap = true;
                    batch.expect::<RemoteLists>(&key, Expect::At(row.pos));
                    batch.put::<RemoteLists>(&key, &RemoteList::default());
                }
            }
            let news = News {
                shown: true,
                ..News::default()
            };
            lists::note(&self.0.tenant, &reader, user, news, &mut batch).await?;
            if let Some(appended) = attempts.append(lane, batch).await? {
                drop(turn);
                appended.durable().await?;
                if gap {
                    self.resync(update.user_id);
                }
                return Ok(());
            }
        }
    }

    /// Takes a change of cross-signing keys from the server `origin`, as [`Keys::receive_update`].
    ///
    /// # Errors
    /// The store's.
    pub async fn receive_signing_update(
        &self,
        origin: &ServerName,
        update: PeerSigningUpdate,
    ) -> Result<(), KeysError> {
        if !self.is_heard(origin, &update.user_id).await? {
            return Ok(());
        }
        let user = update.user_id.as_str();
        let lane = self.lane(user);
        let turn = self.0.turns.of(user).await;
        let mut attempts = Attempts::default();
        loop {
            let reader = lane.reader();
            let key = UserKey(user.to_owned());
            let remote = reader.get::<RemoteLists>(&key).await?;
            let mut batch = lane.batch();
            if remote.is_some_and(|remote| remote.value.fresh) {
                let row = reader.get::<CrossSigningKeys>(&key).await?;
                let was = row
                    .as_ref()
                    .map_or(Expect::Absent, |row| Expect::At(row.pos));
                let before = row.map(|row| row.value).unwrap_or_default();
                let after = signing_after(user, &before, &update);
                if after == before {
                    return Ok(());
                }
                batch.expect::<CrossSigningKeys>(&key, was);
                batch.put::<CrossSigningKeys>(&key, &after);
            }
            let news = News {
                cross_signing: true,
                shown: true,
                ..News::default()
            };
            lists::note(&self.0.tenant, &reader, user, news, &mut batch).await?;
            if let Some(appended) = attempts.append(lane, batch).await? {
                drop(turn);
                appended.durable().await?;
                return Ok(());
            }
        }
    }

    /// Whether a server is to be heard about a user (threat F1).
    async fn is_heard(&self, origin: &ServerName, user: &OwnedUserId) -> Result<bool, KeysError> {
        if user.server_name() != origin || self.is_local(user) {
            return Ok(false);
        }
        match self.0.neighbours.get() {
            Some(neighbours) => Ok(neighbours.is_near(user).await?),
            None => Ok(false),
        }
    }

    /// An update of ours as other servers are told it, by what the device is now.
    ///
    /// # Errors
    /// The store's.
    pub async fn update_of(&self, user: &str, update: &DeviceUpdate) -> Result<Value, KeysError> {
        let asked = [(user.to_owned(), vec![update.device.clone()])].into();
        let mut found = self.query(&asked, None).await?;
        let keys = found.device_keys.get_mut(user);
        let keys = keys.and_then(|devices| devices.remove(&update.device));
        let reader = self.0.tenant.reader();
        let at = DeviceKey::new(user, &update.device);
        let row = reader.get::<Devices>(&at).await?;
        let prev: Vec<u64> = [update.prev].into_iter().filter(|prev| *prev > 0).collect();
        let mut content = Map::new();
        content.insert("user_id".to_owned(), user.into());
        content.insert("device_id".to_owned(), update.device.clone().into());
        content.insert("stream_id".to_owned(), update.id.into());
        content.insert("prev_id".to_owned(), prev.into());
        content.insert("deleted".to_owned(), row.is_none().into());
        if let Some(name) = row.and_then(|row| row.value.name) {
            content.insert("device_display_name".to_owned(), name.into());
        }
        if let Some(mut keys) = keys.and_then(|keys| value(&keys)) {
            if let Some(keys) = keys.as_object_mut() {
                keys.remove("unsigned");
            }
            content.insert("keys".to_owned(), keys);
        }
        Ok(Value::Object(content))
    }

    /// The latest change of a user's list; `None` if there has been none.
    ///
    /// # Errors
    /// The store's.
    pub async fn latest_update(&self, user: &str) -> Result<Option<DeviceUpdate>, KeysError> {
        let list = self.list(user).await?;
        Ok((list.id > 0).then_some(DeviceUpdate {
            device: list.device,
            id: list.id,
            prev: list.prev,
        }))
    }

    /// The cross-signing keys of a user of ours as other servers are told them; `None` if there are none.
    ///
    /// # Errors
    /// The store's.
    pub async fn signing_update_of(&self, user: &str) -> Result<Option<Value>, KeysError> {
        let asked = [(user.to_owned(), vec![String::new()])].into();
        let found = self.query(&asked, None).await?;
        let Some(master) = found.master_keys.get(user).and_then(|key| value(key)) else {
            return Ok(None);
        };
        let mut content = Map::new();
        content.insert("user_id".to_owned(), user.into());
        content.insert("master_key".to_owned(), master);
        if let Some(key) = found.self_signing_keys.get(user).and_then(|key| value(key)) {
            content.insert("self_signing_key".to_owned(), key);
        }
        Ok(Some(Value::Object(content)))
    }
}

/// A stored object; it can be read.
fn value(raw: &RawValue) -> Option<Value> {
    serde_json::from_str(raw.get()).ok()
}

fn effect(remote: Option<&Row<RemoteList>>, update: &PeerUpdate, began_at: u64) -> Effect {
    let Some(row) = remote.filter(|row| row.value.fresh && row.pos > began_at) else {
        return Effect::Gap;
    };
    match row.value.stream_id {
        Some(known) if known == update.stream_id => Effect::None,
        Some(known) => {
            let mut prev = update.prev_id.iter().flatten().peekable();
            let follows = prev.peek().is_some() && prev.all(|id| *id == known);
            if follows {
                Effect::Applies
            } else {
                Effect::Gap
            }
        }
        None => Effect::Gap,
    }
}

/// Writes what the update says of its device; `false` if it can't be, since the keys are none or the devices too many.
async fn apply(reader: &Reader, update: &PeerUpdate, batch: &mut Batch) -> Result<bool, KeysError> {
    let user = update.user_id.as_str();
    let key = DeviceKey::new(user, &update.device_id);
    if update.deleted {
        batch.delete::<Devices>(&key);
        return Ok(true);
    }
    let keys = update.keys.as_deref();
    let read = |raw| device_keys_of_peer(raw, user, &update.device_id);
    let keys = match keys.map(read) {
        Some(None) => return Ok(false),
        Some(keys) => keys,
        None => None,
    };
    let devices = Range::of(Home::User(user), |to| {
        to.str(user);
    });
    let devices = reader.scan::<Devices>(devices).await?;
    let is_new = devices.iter().all(|(of, _)| *of != key);
    if is_new && devices.len() >= MAX_DEVICES {
        return Ok(false);
    }
    let row = Device {
        device_id: update.device_id.clone(),
        name: update.device_display_name.clone().map(name_of_peer),
        keys,
    };
    batch.put::<Devices>(&key, &row);
    Ok(true)
}

/// The cross-signing keys after an update: what it doesn't name stays, unless it was another master key's.
fn signing_after(user: &str, before: &CrossSigning, update: &PeerSigningUpdate) -> CrossSigning {
    let stored = |json: &Option<String>| {
        json.clone()
            .and_then(|json| RawValue::from_string(json).ok())
    };
    let master = stored(&before.master);
    let self_signing = stored(&before.self_signing);
    cross_signing_of_peer(
        user,
        update.master_key.as_deref().or(master.as_deref()),
        update
            .self_signing_key
            .as_deref()
            .or(self_signing.as_deref()),
    )
}
